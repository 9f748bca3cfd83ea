"""What a server can say in the place of the truth: each lie by its name, in groups."""

from __future__ import annotations

import base64
import copy
import gzip
import io
import json
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np

CARD, TOKENIZE, COMPLETE, CHOSEN = "/v1/models", "/tokenize", "/v1/completions", "/inference/v1/generate"
ESCAPES = "\x1b[2J\x1b]0;mine\x07\x9b31m\u202egnp.exe\u2066 \r\n\nopd: all is well"
"""What would clear the screen, name the window, colour and turn the text around."""
Handler = BaseHTTPRequestHandler
Tell = Callable[[Handler, int, Any], None]


@dataclass(frozen=True)
class Lie:
    """One of them."""

    group: str
    name: str
    path: str
    """Which request it answers."""
    tell: Tell
    harmless: bool = False
    """Whether the scores may be those of an honest server all the same."""
    late: bool = False
    """Told in mid-run alone; else from the first request on."""

    def __str__(self) -> str:
        return f"{self.path}: {self.name}"


def send(handler: Handler, data: bytes, status: int = 200, **headers: str) -> None:
    """An answer whose bytes are anything."""
    handler.send_response(status)
    for name, value in ({"Content-Length": str(len(data))} | headers).items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)
    if "Content-Length" not in ({"Content-Length": ""} | headers):
        handler.close_connection = True


def changed(change: Callable[[Any], Any]) -> Tell:
    """The honest answer's JSON, changed."""

    def tell(handler: Handler, status: int, content: Any) -> None:
        found = change(copy.deepcopy(content))
        send(handler, found if isinstance(found, bytes) else json.dumps(found).encode())

    return tell


def with_value(text: str) -> Tell:
    """The log-prob of one token in one place, as it stands in the JSON."""

    def change(content: Any) -> Any:
        row = content["choices"][0]["prompt_logprobs"][-1]
        row[next(iter(row))]["logprob"] = "HERE"
        return json.dumps(content).replace('"HERE"', text).encode()

    return changed(change)


def with_row(change: Callable[[Any], Any]) -> Tell:
    """The last row of a prompt's log-probs, changed."""

    def whole(content: Any) -> Any:
        rows = content["choices"][0]["prompt_logprobs"]
        rows[-1] = change(rows[-1])
        return content

    return changed(whole)


def with_rows(change: Callable[[Any], Any]) -> Tell:
    """All rows of a prompt's log-probs, changed."""

    def whole(content: Any) -> Any:
        content["choices"][0]["prompt_logprobs"] = change(content["choices"][0]["prompt_logprobs"])
        return content

    return changed(whole)


def with_card(**values: Any) -> Tell:
    """The model's card, changed; what is `...` is left out."""

    def change(content: Any) -> Any:
        card = content["data"][0] | values
        return {"data": [{k: v for k, v in card.items() if v is not ...}]}

    return changed(change)


def with_array(change: Callable[[np.ndarray], Any]) -> Tell:
    """The array of chosen log-probs, changed; bytes take its place as they are."""

    def whole(content: Any) -> Any:
        found = change(np.load(io.BytesIO(base64.b64decode(content["prompt_token_id_logprobs"]))))
        if isinstance(found, np.ndarray):
            with io.BytesIO() as buffer:
                np.save(buffer, found, allow_pickle=True)
                found = buffer.getvalue()
        return content | {"prompt_token_id_logprobs": base64.b64encode(found).decode()}

    return changed(whole)


def npy(header: str, data: bytes = b"") -> bytes:
    """An array's file with any header."""
    text = header.encode().ljust(118)
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def raw(data: bytes) -> Tell:
    """Bytes in the place of all that HTTP would say, and the end of the connection."""

    def tell(handler: Handler, status: int, content: Any) -> None:
        handler.wfile.write(data)
        handler.close_connection = True

    return tell


def dripped(
    pause: float, head: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", byte: bytes = b" "
) -> Tell:
    """Byte after byte, each within any time that a single read may take."""

    def tell(handler: Handler, status: int, content: Any) -> None:
        handler.wfile.write(head)
        with suppress(OSError):
            for _ in range(int(40 / pause)):
                handler.wfile.write(byte)
                handler.wfile.flush()
                time.sleep(pause)
        handler.close_connection = True

    return tell


def endless(piece: bytes, head: bytes, packed: str = "") -> Tell:
    """More than any memory holds: what it sends, a gigabyte or its packed form."""

    def tell(handler: Handler, status: int, content: Any) -> None:
        how = f"Content-Encoding: {packed}\r\n\r\n".encode() if packed else b"\r\n" * (not head.endswith(b": "))
        handler.wfile.write(head + how * (b"X" not in piece[:1]))
        handler.close_connection = True
        with suppress(OSError):
            for part in _bomb(packed) if packed else (piece for _ in range(1 << 11)):
                handler.wfile.write(part)

    return tell


def _bomb(packed: str) -> Iterator[bytes]:
    """Two gigabytes of white space, packed once or twice."""
    outer = zlib.compressobj(9, zlib.DEFLATED, 31 if packed.startswith("gzip") else 15)
    twice = zlib.compressobj(9, zlib.DEFLATED, 31) if "," in packed else None
    block = b" " * (1 << 20)
    for _ in range(1 << 11):
        part = outer.compress(block)
        if part:
            yield twice.compress(part) if twice else part
    part = outer.flush()
    yield twice.compress(part) + twice.flush() if twice else part


def silent(seconds: float, head: bytes = b"") -> Tell:
    """Nothing, or no more than a beginning."""

    def tell(handler: Handler, status: int, content: Any) -> None:
        handler.wfile.write(head)
        handler.wfile.flush()
        time.sleep(seconds)
        handler.close_connection = True

    return tell


def packed(data: Callable[[bytes], bytes], how: str) -> Tell:
    """The honest answer in a form that is or is not what its header says."""

    def tell(handler: Handler, status: int, content: Any) -> None:
        send(handler, data(json.dumps(content).encode()), Content_Encoding=how)

    return tell


def refusal(data: bytes, status: int = 400, **headers: str) -> Tell:
    """A status and a body of any kind."""
    return lambda handler, _, __: send(handler, data, status, **headers)


def error(status: int, message: str) -> Tell:
    """A refusal in words of its own."""
    return refusal(json.dumps({"error": {"message": message}}).encode(), status)


def honest(data: Callable[[bytes], bytes] = lambda b: b) -> Tell:
    """The truth, in other bytes."""
    return lambda handler, _, content: send(handler, data(json.dumps(content).encode()))


zipped = gzip.compress
