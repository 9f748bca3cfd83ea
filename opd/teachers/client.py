"""Many requests to one HTTP server at once, repeated while it is away for a while."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from opd.plain import plain
from opd.types import RunError

T = TypeVar("T")
Body = Mapping[str, Any]
FIRST_WAIT, LONGEST_WAIT = 0.25, 8.0
"""Seconds before a request is repeated: each wait is twice the one before."""
KEPT = 600.0
"""Seconds that an idle connection is kept: longer than most steps. What the server closes before is dialled anew."""
BUSY = 429
BROKEN = 500
"""Status codes from here on mean that the server is at fault, not the request."""
QUICK = 20.0
"""Seconds that a GET may take at most: no model computes for it."""
PACKED = ("", "identity", "gzip", "deflate")
"""How an answer may be packed: a piece as it is read from these grows a thousandfold at most, and is then counted."""
LOST = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
"""How a connection ends that was there."""


class Gone(RunError):
    """The server did not come back in time."""


class Refusal(Exception):
    """The server does not want this request, however often it is sent; the message is in its own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Unreadable(Refusal):
    """What it sends is nothing that can be read, or more than was asked for."""


@dataclass
class Client:
    """How a server is spoken to. Connections stay open between calls; calls of several threads wait for each other."""

    url: str
    key: str | None = None
    """Sent as a bearer token."""
    timeout: float = 300.0
    """Seconds that one request may take, from its first byte to the answer's last."""
    patience: float = 300.0
    """Seconds that a request is repeated for after its first failure."""
    concurrency: int = 64
    """Requests under way at once."""
    _turn: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _runner: asyncio.Runner | None = field(default=None, init=False, repr=False)
    """Its event loop runs during calls only, in the thread that called: an interrupt ends them as it would any code."""
    _http: httpx.AsyncClient | None = field(default=None, init=False, repr=False)

    def get(self, path: str, most: int) -> bytes:
        """Answer of a single GET, of at most so many bytes; Gone at the first failure."""
        (answer,) = self._call("GET", path, [{}], lambda _, answer: answer, most, 0.0)
        return answer

    def post(
        self,
        path: str,
        bodies: Sequence[Body],
        parse: Callable[[int, bytes], T],
        most: int,
        patience: float | None = None,
    ) -> list[T]:
        """What `parse` makes of each body's index and its answer, in the order given; `patience` is by default its own.

        Raises:
            Gone: no answer within `patience` seconds of a request's first failure (no connection, timeout, 429, 5xx).
            Unreadable: it has more than `most` bytes, unpacked, or is packed in a way that was not asked for.
            Refusal: any other status.
        """
        return self._call("POST", path, bodies, parse, most, self.patience if patience is None else patience)

    def close(self) -> None:
        """Hang up, also on another thread's call; calling it twice is fine, and the next call dials again."""
        while not self._turn.acquire(timeout=0.1):
            if (runner := self._runner) is not None:
                runner.get_loop().call_soon_threadsafe(_cancel, runner.get_loop())
        try:
            self._hang_up()
        finally:
            self._turn.release()

    def _call(
        self,
        method: str,
        path: str,
        bodies: Sequence[Body],
        parse: Callable[[int, bytes], T],
        most: int,
        patience: float,
    ) -> list[T]:
        with self._turn:
            if self._runner is None or self._http is None:
                # A loop of its own making: the thread's current one is somebody else's to set.
                self._runner, self._http = asyncio.Runner(loop_factory=asyncio.new_event_loop), self._dialled()
            seconds = min(self.timeout, QUICK) if method == "GET" else self.timeout
            line = _Line(self.url, self._http, patience, seconds, most)
            try:
                return self._runner.run(_all(line, self.concurrency, method, path, bodies, parse))
            except Exception:
                raise  # of a request: the others are cancelled, and the connections are sound
            except BaseException:  # a signal's, out of the middle of the loop: its requests must not go on later
                self._hang_up()
                raise

    def _hang_up(self) -> None:
        if self._runner is not None and self._http is not None:
            self._runner.run(_end(self._http))
            self._runner.close()
        self._runner = self._http = None

    def _dialled(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url,
            headers={"Accept-Encoding": "gzip, deflate"}
            | ({"Authorization": f"Bearer {self.key}"} if self.key else {}),
            timeout=self.timeout,
            limits=httpx.Limits(max_connections=self.concurrency, keepalive_expiry=KEPT),
            verify=self.url.startswith("https"),  # reading the certificates takes longer than a small step
        )


async def _all(
    line: _Line, concurrency: int, method: str, path: str, bodies: Sequence[Body], parse: Callable[[int, bytes], T]
) -> list[T]:
    places = asyncio.Semaphore(concurrency)

    async def one(index: int, body: Body) -> T:
        # Parsed at once: the answers of a whole step, as JSON objects, would take gigabytes.
        async with places:
            return parse(index, await line.ask(method, path, body))

    tasks = [asyncio.ensure_future(one(i, body)) for i, body in enumerate(bodies)]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        # The loop goes on to live: what one failure leaves under way must not.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _cancel(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


async def _end(http: httpx.AsyncClient) -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await http.aclose()


@dataclass
class _Line:
    """What the requests of one call have in common."""

    url: str
    http: httpx.AsyncClient
    patience: float
    seconds: float
    """For one attempt."""
    most: int
    """Bytes of an answer."""
    said: bool = False

    async def ask(self, method: str, path: str, body: Body) -> bytes:
        """One answer, after as many attempts as it takes."""
        wait, deadline, fresh = FIRST_WAIT, 0.0, True
        while True:
            try:
                status, data = await self.answer(method, path, body)
            except LOST as e:
                if fresh:  # a kept connection that the server hung up on at this very moment, and may have to no other
                    fresh = False
                    continue
                problem = f"{type(e).__name__}: {e}".removesuffix(": ")
            except httpx.TransportError as e:
                problem = f"{type(e).__name__}: {e}".removesuffix(": ")
            except TimeoutError:
                problem = f"no whole answer within {self.seconds:g} s"
            else:
                if status == httpx.codes.OK:
                    return data
                if status < httpx.codes.BAD_REQUEST:
                    raise Refusal(
                        status, f"{_message(status, data)}; it sends elsewhere, and nobody is followed: name that"
                    )
                if status != BUSY and status < BROKEN:
                    raise Refusal(status, _message(status, data))
                problem = f"status {status}: {_message(status, data)}"
            deadline = deadline or time.monotonic() + self.patience
            if time.monotonic() + wait > deadline:
                raise Gone(problem)
            self.say(problem)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    async def answer(self, method: str, path: str, body: Body) -> tuple[int, bytes]:
        """Status and bytes of one attempt, which ends in time however the server deals its bytes out."""
        try:
            async with (
                asyncio.timeout(self.seconds),
                self.http.stream(method, path, json=dict(body) if body else None) as response,
            ):
                return response.status_code, await _read(response, self.most)
        except httpx.DecodingError as e:
            raise Unreadable(httpx.codes.OK, "its answer cannot be unpacked") from e

    def say(self, problem: str) -> None:
        """Tell the person once per call that the run is waiting, and what for."""
        if not self.said:
            text = "%s does not answer (%s); trying again for up to %g s"
            logging.getLogger(__name__).warning(text, self.url, problem, self.patience)
        self.said = True


async def _read(response: httpx.Response, most: int) -> bytes:
    how = response.headers.get("content-encoding", "").strip().lower()
    if how not in PACKED:
        raise Unreadable(response.status_code, f"its answer is packed as {how[:40]!r}, which was not asked for")
    data = bytearray()
    async for part in response.aiter_bytes():
        data += part
        if len(data) > most:
            raise Unreadable(
                response.status_code, f"its answer has more than the {most} bytes that were to be expected"
            )
    return bytes(data)


def _message(status: int, data: bytes) -> str:
    """The words of an error answer: OpenAI's form, that of older servers, or the text itself."""
    try:
        body = plain(data)
    except ValueError:
        return data[:800].decode("utf-8", "replace")[:200] or httpx.codes.get_reason_phrase(status)
    error = body.get("error", body) if isinstance(body, dict) else body
    return str(error.get("message", error) if isinstance(error, dict) else error)[:300]
