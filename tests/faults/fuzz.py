"""Whole files of every kind that a run reads, with a few bytes of each changed: they are read, or refused in words.

What hypothesis makes up is refused at its first byte; what is nearly right gets to the bottom of a reader.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from opd.types import UserError
from tests.faults.specimens import Reader, readers

LONG = 10
"""Seconds of a core that a reader may take for a few hundred bytes."""
WORD = re.compile(r"""\s+|"(?:[^"\\]|\\.)*"|[\w.+-]+|.""", re.DOTALL)
VALUES = (
    "NaN", "-Infinity", "1e999", "-1", "0", "-0.0", "1.50", "9" * 400, "9" * 5000, "1e-400", "null", "true", "[]", "{}",
    '""', '"x"', '{"a": 1}', '["x", 1]', "[" * 2000 + "]" * 2000,
    '"\\ud800"', '"\\u0000"', '"\\u001b[2J\\u202e"', '"a b"',
    '"' + "x" * 3000 + '"', "2020-13-01", "2020-01-31", "1:30", "0o17", "0x1F", "1_000", "yes", "~", "${a}", "*x", "*m",
    "${student}", "${oc.env:X}", "${oc.decode:x}", "&x ", "<<: ", "!!int ", "!!python/name:os.system ", "? ", "- ", "|",
    "=", "\ufeff", "\x85", "\u2028",
)  # fmt: skip
"""What stands in the place of a word."""
SCRAPS = (b'"', b"[", b"{", b"}", b",", b":", b"\n", b"\r", b"\t", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80")
"""What is put into the middle of files."""


def changed(random: random.Random, reader: Reader) -> bytes:
    """One of its files with one to three changes."""
    data = random.choice(reader.whole)
    inner = reader.pack is None or random.random() < 0.8
    if reader.pack is not None and not inner:
        data = reader.pack(data)
    for _ in range(random.choice((1, 1, 2, 3))):
        way = _word if inner and random.random() < 0.7 else _bytes
        data = way(random, data, random.choice(reader.whole))
    return reader.pack(data) if reader.pack is not None and inner else data


def _word(random: random.Random, data: bytes, other: bytes) -> bytes:
    """A text stays what it is but for a word, a number or a sign of it, so that it is read to its end."""
    try:
        words, others = (WORD.findall(text.decode()) for text in (data, other))
    except UnicodeDecodeError:
        return _bytes(random, data, other)
    told = [i for i, word in enumerate(words) if word.strip() and (len(word) > 1 or word.isalnum())]
    a = random.choice(told) if told and random.random() < 0.8 else random.randrange(len(words) + 1)
    b = random.randrange(len(words) + 1)
    value = (
        random.choice((*VALUES, *others)) if random.random() < 0.7 else repr(random.getrandbits(random.randint(1, 70)))
    )
    words[a : a + random.choice((0, 1, 1, 1, 1))] = random.choice(([value], [value], [value], words[a:b], []))
    return "".join(words).encode("utf-8", "surrogatepass")


def _bytes(random: random.Random, data: bytes, other: bytes) -> bytes:
    a = random.randrange(len(data) + 1)
    b = min(len(data), a + random.choice((1, 2, 4, 8, 50, 1000)))
    c = random.randrange(len(other) + 1)
    return random.choice(
        (
            lambda: data[:a],
            lambda: data[:a] + data[b:],
            lambda: data[:b] + data[a:],
            lambda: data[:a] + random.choice(SCRAPS) + data[a:],
            lambda: data[:a] + random.choice(SCRAPS) + data[b:],
            lambda: data[:a] + bytes(x ^ 1 << random.randrange(8) for x in data[a : a + 1]) + data[a + 1 :],
            lambda: data[:a] + random.randbytes(b - a) + data[b:],
            lambda: data[:a] + other[c : c + (b - a)] + data[b:],
        )
    )()


def escaped(reader: Reader, file: Path, data: bytes) -> str:
    """What else has come out of a reader than what it reads or a mistake told in words; empty where nothing has."""
    file.write_bytes(data)
    try:
        with _in_time(LONG):
            reader.read(file)
    except UserError as error:
        return "" if str(error).strip() else "a mistake without a word"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # that is what is looked for
        frames = traceback.extract_tb(error.__traceback__)
        at = next((f for f in reversed(frames) if "opd" in Path(f.filename).parts), frames[-1])
        return f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}: {str(error)[:80]}"
    return ""


@contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def main(arguments: Sequence[str]) -> int:
    """Change files of every kind for so long; print how many were read or refused."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1, help="of a core, for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="of the readers whose name begins with this")
    given = parser.parse_args(arguments)
    first: dict[str, bytes] = {}
    print(f"{'group':18} {'tried':>9} {'passed':>9}")
    with suppress(KeyboardInterrupt):
        for name, reader in readers().items():
            if name.startswith(given.only):
                tried: list[str] = []
                try:
                    fuzz(name, reader, given, tried, first)
                finally:
                    print(f"{name:18} {len(tried):9} {tried.count(''):9}", flush=True)
    return int(bool(first))


def fuzz(name: str, reader: Reader, given: argparse.Namespace, tried: list[str], first: dict[str, bytes]) -> None:
    """Change one's files; `tried` gets what was wrong with each, `first` the first file of each kind of fault."""
    generator = random.Random(f"{name} {given.seed}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / reader.file
        print(f"{name}: {file}", file=sys.stderr, flush=True)  # what ends this process lies there
        until = time.process_time() + given.minutes * 60
        while time.process_time() < until:
            data = changed(generator, reader)
            tried.append(wrong := escaped(reader, file, data))
            if wrong and wrong not in first:
                first[wrong] = data
                print(f"{name}: {wrong}: {data[:2000]!r}", file=sys.stderr, flush=True)
