"""A Ray cluster: found, or begun for a run, and left or ended again."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from opd.devices.launch import Stopped
from opd.devices.reaper import Reaper
from opd.devices.reaper import end as reap
from opd.devices.report import first_line
from opd.types import RunError, UserError

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "RAY_enable_metrics_collection": "0"}
PATIENT = {"RAY_raylet_start_wait_time_s": "60", "RAY_agent_register_timeout_ms": "60000"}
"""Ray gives its own processes 15 s to start, which is too little on a busy machine. One that dies at once is waited for
as long: a start that fails takes these seconds, and there are `TRIES`."""
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
TOKEN = secrets.token_hex(32)
"""What a cluster that this process begins asks of everyone who connects; Ray keeps the first that it reads."""
STORE_BYTES = 80 << 20
"""For Ray's shared objects, of which there are none; it wants 75 MiB at least."""
TRIES = 3
HANGUP: int | None = getattr(signal, "SIGHUP", None)
REACHED = 10.0
"""Seconds in which a cluster has to answer."""
SILENT: Mapping[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}


def read_again() -> None:
    """Have Ray read the variables that it goes by: it does once, and vLLM may have imported it before they were set."""
    import ray._raylet

    compiled: Any = ray._raylet  # without types
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def connected(address: str | None, cpus: int | None) -> Iterator[None]:
    """Ray, connected to a cluster; one that a script has begun is taken, and left as it is.

    Args:
        address: of a running one; None: RAY_ADDRESS, else one of this machine is begun, for as long as this lasts.
        cpus: how many cores that one is to have, whatever the machine has; None: the machine's.

    Raises:
        UserError: there is no such cluster.
        RunError: Ray does not start here.
        Stopped: a signal came meanwhile.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    refuse_unreachable(address)
    with ExitStack() as until_then:
        until_then.enter_context(variables(QUIET | PATIENT))
        import ray  # as it is set up by now

        read_again()
        logging.getLogger("ray").setLevel(logging.ERROR)
        if not ray.is_initialized():
            until_then.callback(ray.shutdown)
            if address == "local":
                begin(cpus, until_then)
            else:
                find(address)
        yield


def begin(cpus: int | None, until_then: ExitStack) -> None:
    """Begin a cluster of this machine that ends with this process; it listens to all, and asks for a token."""
    import ray

    if not any(name in os.environ for name in TOKENS):
        until_then.enter_context(variables({"RAY_AUTH_TOKEN": TOKEN}))  # else Ray writes one into the home folder
    place = tempfile.mkdtemp(prefix="opd-ray-")
    until_then.callback(Reaper(place).close)
    until_then.callback(ray.shutdown)  # before its folder is removed
    tries = 0
    while True:
        tries += 1
        try:
            with own_signals():
                ray.init(
                    "local", num_cpus=cpus, object_store_memory=STORE_BYTES, include_dashboard=False,
                    _temp_dir=place, **SILENT,
                )  # fmt: skip
            return
        except Exception as error:  # of many kinds, where its processes were too slow for each other
            ray.shutdown()
            reap(place, 0)
            if tries == TRIES:
                raise RunError(f"devices=ray: Ray did not start in {TRIES} tries: {first_line(error)}") from error


def find(address: str) -> None:
    """Connect to a running cluster."""
    import ray

    with own_signals():
        try:
            ray.init(address, **SILENT)
        except Exception as error:  # ConnectionError, RuntimeError, Ray's own: all say that there is none for us
            raise UserError(f"devices.address={address}: {first_line(error)}") from error


def refuse_unreachable(address: str) -> None:
    """UserError where nobody listens at an address, which Ray would try for minutes, and for Ray's client."""
    if address.startswith("ray://"):
        raise UserError(f"devices.address={address}: allowed is auto, or head:6379, on one of the cluster's machines")
    try:
        if ":" in address:
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=REACHED).close()
    except (OSError, ValueError) as error:
        raise UserError(f"devices.address={address}: nobody answers there: {first_line(error)}") from error


@contextmanager
def own_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM, for which Ray puts one that leaves the program; what is begun is deaf to a hangup.

    Its processes are in this one's group, and so are told of a terminal that is closed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = {number: signal.getsignal(number) for number in (signal.SIGTERM, *([HANGUP] if HANGUP else []))}
    if HANGUP:
        signal.signal(HANGUP, signal.SIG_IGN)
    try:
        yield
    except SystemExit as left:
        raise Stopped(signal.SIGTERM) from left
    finally:
        for number, handler in own.items():
            signal.signal(number, handler)


@contextmanager
def variables(wanted: Mapping[str, str]) -> Iterator[None]:
    """The environment with some of Ray's variables, as far as nobody has set them; afterwards without new ones."""
    before = dict(os.environ)
    os.environ |= {name: value for name, value in wanted.items() if name not in before}
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            if name.startswith("RAY_"):
                del os.environ[name]
