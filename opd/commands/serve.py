"""`opd serve-teacher`: become a vLLM server that gives log-probs of prompts, with the flags that this takes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import socket
from collections.abc import Sequence

from opd import children
from opd.devices.threads import idle_cores
from opd.extras import build, install
from opd.hints import quoted
from opd.models.reading import reading
from opd.models.there import check_there
from opd.types import Pretrained, UserError

MEMORY = 2**30
"""Bytes of KV cache on CPU, where vLLM would take half of the machine's memory."""
BATCHED_TOKENS = 2048
"""Positions that go through the model at once. vLLM makes the float32 logits of all of them, beside the memory that it
plans with: 1.2 GB for each copy of them at a vocabulary of 150,000."""
KEEP_ALIVE = 600
"""Seconds that the server keeps an idle connection, where vLLM would keep it 5: a run comes back after each step."""
CHOSEN_SINCE = (0, 32)
"""Version of vLLM."""
GPU_SHARE = 0.85
"""Share of a GPU's memory that vLLM plans with; the rest is for those logits."""


def command(
    model: str,
    *,
    host: str,
    port: int,
    top_k: int,
    dtype: str = "auto",
    max_len: int | None = None,
    extra: Sequence[str] = (),
    cpu: bool,
) -> list[str]:
    """Command line of the server; `extra` comes last, so that it has the last word."""
    # `vllm serve` looks up the version of a package named vllm, which the CPU build is not.
    entry = ["launchers.api_server.entry", "--model"] if cpu else ["cli.main", "serve"]
    out = children.command(f"vllm.entrypoints.{entry[0]}", entry[1], model, "--host", host, "--port", str(port))
    # One more: beside the student's likeliest tokens it is asked for the sampled one.
    out += ["--max-logprobs", str(top_k + 1), "--logprobs-mode", "raw_logprobs", "--dtype", dtype]
    out += ["--enable-scale-out"] if scores_chosen() else []
    out += ["--max-num-batched-tokens", str(BATCHED_TOKENS), "--enable-chunked-prefill"]
    out += ["--generation-config", "vllm", "--disable-uvicorn-access-log"]
    if cpu:
        out += ["--enforce-eager", "--kv-cache-memory-bytes", str(MEMORY), "--distributed-executor-backend", "uni"]
    else:
        out += ["--gpu-memory-utilization", str(GPU_SHARE)]
    out += [] if max_len is None else ["--max-model-len", str(max_len)]
    return [*out, *extra]


def environment(cpu: bool) -> dict[str, str]:
    """Environment of the server; what is set already stays."""
    own = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(KEEP_ALIVE)}
    if cpu:
        own |= {
            # It would bind its threads to all cores but one, whoever else works there.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(idle_cores()),
            # Its worker in the engine's process, not in a third one: up in three quarters of the time.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        }
    return own | os.environ


def check(model: str, host: str, port: int) -> None:
    """Refuse what vLLM would only find out after a while: no vLLM, no such folder, a port that is taken."""
    if importlib.util.find_spec("vllm") is None:
        raise UserError(f"serve-teacher: vLLM is not installed:  {install(build())}")
    check_there(model)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except (OSError, ValueError) as e:  # no name of a host at all
            why = getattr(e, "strerror", None) or e
            raise UserError(f"--host {host} --port {port}: {why}; choose another --port") from e
    check_config(model)


def check_config(model: str) -> None:
    """UserError where neither a folder nor a hub that answers has a model: vLLM takes 90 lines to say so."""
    if ":" in model or "VLLM_USE_MODELSCOPE" in os.environ:  # a file in a hub, or another hub
        return
    from transformers import PretrainedConfig

    with reading("model", Pretrained(model)):
        if not PretrainedConfig.get_config_dict(model)[0]:  # which runs no code of the model's
            raise OSError("there is no config.json in it")


def on_cpu() -> bool:
    """Whether the vLLM that is installed is a build for CPUs."""
    names = installed()
    return "vllm-cpu" in names or "cpu" in names.get("vllm", "")


def scores_chosen() -> bool:
    """Whether the vLLM that is installed knows the flag that the log-probs of chosen tokens are behind."""
    names = installed()
    numbers = re.findall(r"\d+", names.get("vllm-cpu") or names.get("vllm") or "0.0")
    return (int(numbers[0]), int(numbers[1])) >= CHOSEN_SINCE


def installed() -> dict[str, str]:
    """Versions of all packages by their names."""
    return {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}


def settings(host: str, port: int, top_k: int) -> str:
    """The overrides that make a run use the server."""
    reachable = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    return f"teacher=server teacher.url=http://{reachable}:{port} teacher.top_k={top_k}"


def serve(
    model: str, *, host: str, port: int, top_k: int, dtype: str, max_len: int | None, extra: Sequence[str]
) -> None:
    """Replace this process by the server, so that signals reach it; `conf=NAME` stands for that config's teacher."""
    named = "conf=NAME"
    if model.startswith("conf="):
        from opd.config.compose import load

        named = quoted(model)
        found = load(model.removeprefix("conf=")).config.teacher.checkpoint()
        if found is None:
            raise UserError(f"{model}: its teacher has no checkpoint; name a folder or a hub name")
        model, trusted = found.path, found.trust_remote_code
        extra = [*extra, *(["--trust-remote-code"] if trusted else [])]
    model = Pretrained(model).path
    check(model, host, port)
    cpu = on_cpu()
    if cpu and dtype == "auto":  # vLLM would take the checkpoint's, which the processor may have to emulate
        from opd.devices.compute import dtype_name

        dtype = dtype_name("auto", "cpu")
    argv = command(model, host=host, port=port, top_k=top_k, dtype=dtype, max_len=max_len, extra=extra, cpu=cpu)
    print(f"when it is up:  opd train {named} {settings(host, port, top_k)}", flush=True)
    os.execvpe(argv[0], argv, environment(cpu))
