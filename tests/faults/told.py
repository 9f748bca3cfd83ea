"""The table of lies that a teacher's server is made to tell."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.faults.lies import (
    CARD,
    CHOSEN,
    COMPLETE,
    ESCAPES,
    TOKENIZE,
    Lie,
    changed,
    dripped,
    endless,
    error,
    honest,
    npy,
    packed,
    raw,
    refusal,
    silent,
    with_array,
    with_card,
    with_row,
    with_rows,
    with_value,
    zipped,
)

OK = b"HTTP/1.1 200 OK\r\n"
DEEP = 100_000


def lies() -> Iterator[Lie]:
    """All of them."""
    for late in (False, True):
        yield from _values(late)
    yield from _rows()
    yield from _cards()
    yield from _chosen()
    for path in (CARD, TOKENIZE, COMPLETE, CHOSEN):
        yield from _bodies(path)
    for path in (CARD, COMPLETE):
        yield from _protocol(path)


def _values(late: bool) -> Iterator[Lie]:
    wrong = ["true", "false", "null", '"-1.0"', "0.5", "7", "NaN", '"NaN"', "Infinity", "1e400", "[]", "{}", "[-1.0]"]
    wrong += ["9" * 5000, "-" + "9" * 5000]
    for text in wrong:
        yield Lie("log-probs", f"{text[:12]}{' late' * late}", COMPLETE, with_value(text), late=late)
    for text in ("-Infinity", "-1e400", "-9999.0", "0.0000001"):
        yield Lie("log-probs", f"{text}{' late' * late}", COMPLETE, with_value(text), harmless=True, late=late)


def _rows() -> Iterator[Lie]:
    def row(name: str, change: Any, harmless: bool = False) -> Lie:
        return Lie("rows", name, COMPLETE, with_row(change), harmless)

    for value in (None, [], {}, "row", True, -1.0, [-1.0]):
        yield row(f"a row that is {value!r}", lambda _, v=value: v)
    for key in ("abc", "-1", "9" * 30, "1.5", "", "null", "9" * 5000, ESCAPES, "\ud800"):
        yield row(f"a token called {key[:12]!r}", lambda r, k=key: r | {k: {"logprob": -1.0}})
    yield row("a token without a log-prob", lambda r: {k: {} for k in r})
    yield row("log-probs without an object", lambda r: dict.fromkeys(r, -1.0))
    yield row("half of the tokens", lambda r: dict(list(r.items())[: len(r) // 2]))
    yield row("probabilities of one for all", lambda r: {k: {"logprob": 0.0} for k in r})
    yield row("more tokens than asked for", lambda r: r | {str(i): {"logprob": -30.0} for i in range(45)}, True)
    yield row("further fields", lambda r: {k: v | {"rank": 1, "decoded_token": ESCAPES} for k, v in r.items()}, True)

    def rows(name: str, change: Any, harmless: bool = False) -> Lie:
        return Lie("rows", name, COMPLETE, with_rows(change), harmless)

    for value in (None, {}, "rows", True, 3, [], [None], [[]]):
        yield rows(f"rows that are {value!r}", lambda _, v=value: v)
    yield rows("a row too few", lambda r: r[:-1])
    yield rows("a row too many", lambda r: [*r, r[-1]])
    yield rows("twice as many rows", lambda r: r * 2)
    yield rows("a million rows", lambda r: [*r, *([{}] * 10**6)])
    yield rows("a first row that is none", lambda r: [{}, *r[1:]], True)
    for value in (None, {}, [], "choices", [None], [[]], [1]):
        yield Lie("rows", f"choices that are {value!r}", COMPLETE, changed(lambda _, v=value: {"choices": v}))


def _cards() -> Iterator[Lie]:
    for value in (..., None, 5, True, ["a"], {}, "", ESCAPES, "x" * 10**6, "\ud800", "a\0b"):
        yield Lie("cards", f"id {str(value)[:12]!r}", CARD, with_card(id=value, root=...))
    for value in (5, True, ["a"], {}, "/no/such/folder", ESCAPES, "\ud800", "a\0b", "x" * 5000, "~nobody", "..", "/"):
        yield Lie("cards", f"root {str(value)[:12]!r}", CARD, with_card(root=value))
    for value in ("256", True, -1, 0, 1, 2.5, 1e30, [], {}, "9" * 5000, "1e3"):
        yield Lie("cards", f"max_model_len {str(value)[:12]!r}", CARD, with_card(max_model_len=value))
    for value in (None, {}, "data", 3, [], [None], ["tiny"], [[]], [{}] * 3):
        yield Lie("cards", f"data {value!r}", CARD, changed(lambda _, v=value: {"data": v}))
    many = [{"id": f"{ESCAPES}{i}"} for i in range(10**4)]
    yield Lie("cards", "ten thousand models", CARD, changed(lambda _: {"data": many}))
    for value in (None, "ids", {}, [1.5], ["1"], [None], [[]], [True], [10**30], [-1], [0] * 10**5):
        tell = changed(lambda _, v=value: {"tokens": v})
        right_kind = isinstance(value, list) and all(type(i) is int and 0 <= i < 2**31 for i in value)
        yield Lie("cards", f"tokens {str(value)[:12]!r}", TOKENIZE, tell, harmless=not right_kind)


def _chosen() -> Iterator[Lie]:
    def array(name: str, change: Any, harmless: bool = True) -> Lie:
        # At the first request it is only a reason to ask in the other way.
        return Lie("chosen", name, CHOSEN, with_array(change), harmless)

    kinds = [int, bool, complex, "S8", "U8", object, "datetime64[s]", "timedelta64[s]", ">f4", "f8", "f2", "i1,f4"]
    for kind in kinds:
        yield array(f"numbers of {kind}", lambda a, k=kind: np.zeros(a.shape, dtype=k))
    for value in (np.nan, np.inf, 0.5):
        yield array(f"{value}", lambda a, v=value: np.full_like(a, v))
    yield array("another shape", lambda a: a[:1, :1] if a.size > 1 else np.zeros((2, 2)))
    yield array("turned", lambda a: np.asfortranarray(np.repeat(a, 2, axis=0)))
    yield array("too many", lambda a: np.zeros((1000, 1000)))
    for name, data in {
        "nothing": b"", "no array": b"hello",
        "half": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000, 1)}"),
        "a terabyte": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000)}"),
        "less than nothing": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 1)}"),
        "nested": npy("(" * 100), "code": npy("__import__('os').system('touch /tmp/escaped')"),
        "an archive": b"PK\x03\x04" + b"\0" * 100, "a pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    }.items():  # fmt: skip
        yield array(name, lambda _, d=data: d)
    for value in (5, [], {}, True, "!!!", "é", "A" * 10**7):
        tell = changed(lambda c, v=value: c | {"prompt_token_id_logprobs": v})
        yield Lie("chosen", f"text {str(value)[:12]!r}", CHOSEN, tell, harmless=True)
        yield Lie("chosen", f"text {str(value)[:12]!r} late", CHOSEN, tell, late=True)
    for value in (np.nan, np.inf, 0.5, 100.0):
        tell = with_array(lambda a, v=value: np.full_like(a, v))
        yield Lie("chosen", f"{value} late", CHOSEN, tell, late=True)
    for kind in kinds[:8]:
        tell = with_array(lambda a, k=kind: np.zeros(a.shape, dtype=k))
        yield Lie("chosen", f"numbers of {kind} late", CHOSEN, tell, late=True)


def _bodies(path: str) -> Iterator[Lie]:
    """What is no JSON, or not of the kind; nobody has to be able to ask for ids, nor for chosen log-probs."""
    free = path in (TOKENIZE, CHOSEN)
    for name, data in {
        "nothing": b"", "no JSON": b"hello", "HTML": b"<html>" + ESCAPES.encode() + b"</html>", "half": b'{"data": [',
        "a list": b"[]", "null": b"null", "true": b"true", "a number": b"3", "a text": b'"a"', "an object": b"{}",
        "nested": b"[" * DEEP + b"]" * DEEP, "nested objects": b'{"data":' * DEEP + b"1" + b"}" * DEEP,
        "digits": b"[" + b"9" * 5000 + b"]", "no UTF-8": b'{"data": "\xff\xfe"}',
        "UTF-16": json.dumps({"data": []}).encode("utf-16"), "zeros": b"\0" * 1000,
    }.items():  # fmt: skip
        yield Lie("bodies", name, path, honest(lambda _, d=data: d), harmless=free)
    yield Lie("bodies", "a mark before it", path, honest(lambda b: b"\xef\xbb\xbf" + b), harmless=True)
    for status in (400, 401, 403, 404, 418, 429, 500, 503):
        yield Lie("bodies", f"{status} with escapes", path, error(status, ESCAPES * 20), harmless=free)
    odd: list[Any] = [None, [], {}, {"error": None}, {"error": {"message": {}}}, {"error": [1]}, "x"]
    for value in odd:
        data = json.dumps(value).encode()
        yield Lie("bodies", f"400 that says {value!r}", path, refusal(data), harmless=free)
    deep = b"[" * DEEP
    yield Lie("bodies", "400, nested", path, refusal(deep), harmless=free)
    caps = f"logprobs of {'9' * 120}, which is greater than max allowed: {'9' * 120}"
    yield Lie("bodies", "400 with long numbers", path, error(400, caps), harmless=free)


def _protocol(path: str) -> Iterator[Lie]:
    def lie(name: str, tell: Any, harmless: bool = False) -> Lie:
        return Lie("protocol", name, path, tell, harmless)

    yield lie("a byte every fifth of a second", dripped(0.2))
    yield lie("headers that drip", dripped(0.2, OK, b"X"))
    yield lie("chunks that drip", dripped(0.2, OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"))
    yield lie("100 Continue without end", dripped(0.2, b"", b"HTTP/1.1 100 Continue\r\n\r\n"))
    yield lie("silence", silent(20))
    yield lie("silence after its headers", silent(20, OK + b"Content-Length: 10\r\n\r\n"))
    for how in ("gzip", "deflate", "gzip, gzip", "deflate, gzip"):
        yield lie(f"two gigabytes as {how}", endless(b"", OK, how))
    for how in ("br", "zstd", "gzip, br", "compress", "none such", "x" * 1000):
        yield lie(f"said to be {how[:12]}", packed(zlib.compress, how))
    yield lie("gzip", packed(zipped, "gzip"), harmless=True)
    yield lie("deflate", packed(zlib.compress, "deflate"), harmless=True)
    yield lie("identity", packed(lambda b: b, "identity"), harmless=True)
    yield lie("half of gzip", packed(lambda b: zipped(b)[:-20], "gzip"))
    yield lie("no gzip", packed(lambda b: b, "gzip"))
    yield lie("an endless body", endless(b" " * (1 << 20), OK))
    yield lie("endless headers", endless(b"X: " + b"y" * (1 << 16) + b"\r\n", OK))
    yield lie("an endless header", endless(b"x" * (1 << 20), OK + b"X: "))
    for status in (204, 206, 301, 302, 308, 304, 199, 999):
        to = {"Location": path if status == 301 else "http://127.0.0.1:1/"}
        yield lie(f"status {status}", refusal(b"", status, **to))
    for name, data in {
        "no HTTP": b"SSH-2.0-OpenSSH_9\r\n", "an end": b"", "TLS": b"\x16\x03\x01\x02\x00" + b"\1" * 100,
        "HTTP/0.9": b"{}", "HTTP/3": b"HTTP/3 200 OK\r\n\r\n{}", "no status": b"HTTP/1.1\r\n\r\n",
        "a status of letters": b"HTTP/1.1 abc OK\r\n\r\n", "zeros": b"\0" * 4096,
        "escapes for a reason": b"HTTP/1.1 400 \x1b[2J\x9b31m\r\nContent-Length: 0\r\n\r\n",
        "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\n{}",
        "a length below zero": OK + b"Content-Length: -2\r\n\r\n{}", 
        "a length of letters": OK + b"Content-Length: x\r\n\r\n",
        "a length of 5,000 digits": OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
        "more than it says": OK + b"Content-Length: 1\r\n\r\n{}", 
        "less than it says": OK + b"Content-Length: 50\r\n\r\n{}",
        "broken chunks": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        "a chunk without end": OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n{}",
        "a header without colon": OK + b"hello\r\n\r\n{}", "a header of zeros": OK + b"X: \0\0\r\n\r\n{}",
    }.items():  # fmt: skip
        yield lie(name, raw(data))
