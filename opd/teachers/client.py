"""Many requests to one HTTP server at once, repeated while it is away for a while."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import httpx

from opd.types import RunError

T = TypeVar("T")
Body = Mapping[str, Any]
FIRST_WAIT, LONGEST_WAIT = 0.25, 8.0
"""Seconds before a request is repeated: each wait is twice the one before."""
BUSY = 429
BROKEN = 500
"""Status codes from here on mean that the server is at fault, not the request."""


class Gone(RunError):
    """The server did not come back in time."""


class Refusal(Exception):
    """The server does not want this request, however often it is sent; the message is in its own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Client:
    """How a server is spoken to. Holds no connection between calls."""

    url: str
    key: str | None = None
    """Sent as a bearer token."""
    timeout: float = 300.0
    """Seconds that one request may take."""
    patience: float = 300.0
    """Seconds that a request is repeated for after its first failure."""
    concurrency: int = 64
    """Requests under way at once."""

    def get(self, path: str) -> Any:
        """Answer of a single GET, as JSON; Gone at the first failure."""
        impatient = replace(self, patience=0.0)
        (answer,) = asyncio.run(_all(impatient, "GET", path, [{}], lambda _, answer: answer))
        return answer

    def post(self, path: str, bodies: Sequence[Body], parse: Callable[[int, Any], T]) -> list[T]:
        """What `parse` makes of each body's index and its answer, in the order given.

        Raises:
            Gone: no answer within `patience` seconds of a request's first failure (no connection, timeout, 429, 5xx).
            Refusal: any other status.
        """
        return asyncio.run(_all(self, "POST", path, bodies, parse))


async def _all(
    client: Client, method: str, path: str, bodies: Sequence[Body], parse: Callable[[int, Any], T]
) -> list[T]:
    headers = {"Authorization": f"Bearer {client.key}"} if client.key else {}
    limits = httpx.Limits(max_connections=client.concurrency)
    tls = client.url.startswith("https")  # reading the certificates takes longer than a small step
    async with httpx.AsyncClient(
        base_url=client.url, headers=headers, timeout=client.timeout, limits=limits, verify=tls
    ) as http:
        line = _Line(client, http, asyncio.Semaphore(client.concurrency))

        async def one(index: int, body: Body) -> T:
            # Parsed at once: the answers of a whole step, as JSON objects, would take gigabytes.
            async with line.places:
                return parse(index, await line.ask(method, path, body))

        return list(await asyncio.gather(*(one(i, body) for i, body in enumerate(bodies))))


@dataclass
class _Line:
    """An open line to a server."""

    client: Client
    http: httpx.AsyncClient
    places: asyncio.Semaphore
    said: bool = False

    async def ask(self, method: str, path: str, body: Body) -> Any:
        """One answer, as JSON, after as many attempts as it takes."""
        wait, deadline = FIRST_WAIT, 0.0
        while True:
            try:
                response = await self.http.request(method, path, json=dict(body) if body else None)
            except httpx.TransportError as e:
                problem = f"{type(e).__name__}: {e}".removesuffix(": ")
            else:
                if response.status_code != BUSY and response.status_code < BROKEN:
                    return _content(response)
                problem = f"status {response.status_code}: {_message(response)}"
            deadline = deadline or time.monotonic() + self.client.patience
            if time.monotonic() + wait > deadline:
                raise Gone(problem)
            self.say(problem)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def say(self, problem: str) -> None:
        """Tell the person once per call that the run is waiting, and what for."""
        if not self.said:
            text = "%s does not answer (%s); trying again for up to %g s"
            logging.getLogger(__name__).warning(text, self.client.url, problem, self.client.patience)
        self.said = True


def _content(response: httpx.Response) -> Any:
    if response.status_code != httpx.codes.OK:
        raise Refusal(response.status_code, _message(response))
    try:
        return response.json()
    except ValueError as e:
        raise Refusal(response.status_code, "its answer is no JSON") from e


def _message(response: httpx.Response) -> str:
    """The words of an error answer: OpenAI's form, that of older servers, or the text itself."""
    try:
        body = response.json()
    except ValueError:
        return response.text[:200] or response.reason_phrase
    error = body.get("error", body) if isinstance(body, dict) else body
    return str(error.get("message", error) if isinstance(error, dict) else error)[:300]
