"""Folders of rows that are damaged, made up or without end, and paths that lead nowhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults.bad_data import DEEP, ROWS, lines, of
from tests.faults.inputs import Bad, Place
from tests.faults.lies import ESCAPES


def cases() -> Iterator[Bad]:
    """All of them."""

    def folder(name: str, make: Callable[[Path], Any], harmless: bool = False, **settings: Any) -> Bad:
        def whole(place: Place) -> list[str]:
            at = place.folder / "rows"
            at.mkdir()
            return of(place, str(found if isinstance(found := make(at), Path) else at), **settings)

        return Bad("folders", name, whole, harmless)

    def saved(at: Path, damage: Callable[[Path], Any]) -> None:
        import datasets

        datasets.disable_progress_bars()
        datasets.Dataset.from_list(ROWS).save_to_disk(str(at))
        damage(at)

    yield folder("empty", lambda at: None)
    yield folder("of no rows", lambda at: (at / "a.txt").write_text("x"))
    yield folder("of no split", lambda at: (at / "test.jsonl").write_bytes(lines()))
    yield folder(
        "of other columns",
        lambda at: [(at / "a.jsonl").write_bytes(lines()), (at / "b.jsonl").write_text('{"x": 1}')],
    )
    yield folder("with a folder called like a file", lambda at: (at / "a.jsonl").mkdir())
    yield folder("with a link in a circle", lambda at: os.symlink(at / "a.jsonl", at / "a.jsonl"))
    yield folder("with a link to itself", lambda at: os.symlink(at, at / "again"))
    yield folder("a pipe", lambda at: os.mkfifo(at / "a.jsonl") or at / "a.jsonl")
    yield folder("with a pipe", lambda at: os.mkfifo(at / "a.jsonl"))
    yield folder("zeros without end", lambda at: os.symlink("/dev/zero", at / "a.jsonl") or at / "a.jsonl")
    yield folder("nothing, linked", lambda at: os.symlink("/dev/null", at / "a.jsonl") or at / "a.jsonl")
    yield folder(
        "a card that is none",
        lambda at: (
            [(at / "README.md").write_text("---\nconfigs: [a, {b: c}\n---\n"), (at / "a.jsonl").write_bytes(lines())]
        ),
    )
    yield folder(
        "a card of nothing",
        lambda at: (
            [(at / "README.md").write_text("---\nconfigs:\n- config_name: x\n  data_files: nothing.csv\n---\n")]
        ),
    )
    yield folder(
        "a card that leaves it",
        lambda at: (
            [(at / "README.md").write_text("---\nconfigs:\n- config_name: x\n  data_files: ../../../etc/passwd\n---\n")]
        ),
    )
    yield folder("a card with a bomb", lambda at: [(at / "README.md").write_text(f"---\nconfigs: {'[' * 5000}\n---\n")])
    for name in ("state.json", "dataset_info.json"):
        for text in (
            "",
            "{",
            "[]",
            "null",
            '{"_data_files": 3}',
            '{"_data_files": [{"filename": "../../../etc/passwd"}]}',
            "[" * DEEP,
            '{"features": {"a": {"_type": "Evil"}}}',
        ):
            yield folder(
                f"saved, {name} is {text[:40]!r}",
                lambda at, n=name, t=text: saved(at, lambda p: (p / n).write_text(t)),
                harmless=name == "dataset_info.json" and "_data_files" in text,
            )
    for part in (0, 10, 200, 700):
        yield folder(
            f"saved, {part} bytes of its table",
            lambda at, n=part: saved(at, lambda p: [f.write_bytes(f.read_bytes()[:n]) for f in p.glob("*.arrow")]),
        )
    yield folder(
        "saved, its table is another's",
        lambda at: saved(at, lambda p: [f.write_bytes(b"\xff" * 900) for f in p.glob("*.arrow")]),
    )
    yield folder("saved, no table", lambda at: saved(at, lambda p: [f.unlink() for f in p.glob("*.arrow")]))
    yield folder("a dictionary of nothing", lambda at: (at / "dataset_dict.json").write_text("{}"))
    yield folder(
        "a dictionary that leaves it",
        lambda at: (at / "dataset_dict.json").write_text('{"splits": ["../../x"]}'),
    )
    yield folder("a dictionary that is none", lambda at: (at / "dataset_dict.json").write_text("["))
    for path in ("x" * 300, "x" * 5000 + ".jsonl", "a\0b.jsonl", "\ud800.jsonl", "~nobodyhere/a.jsonl", "/dev/null",
        "/proc/self/mem", "", " ", ".", "/", "a/" * 3000 + "b.csv",
                 "pkg://", "pkg:///a.jsonl", "pkg://os/a.jsonl", "pkg://nothing.at.all/a.jsonl", "pkg://../a.jsonl",
                 "pkg://opd.data/../../../etc/passwd", f"pkg://{'x' * 300}/a.jsonl",
                 "pkg://a b/c.jsonl", "s3://a/b.jsonl", "http://127.0.0.1:1/a.jsonl", "file:///etc/passwd",
                 "hf://datasets/x/y", "no/such", ESCAPES, "a.jsonl::b", "zip://a.jsonl::b.zip"):  # fmt: skip
        yield Bad("folders", f"path={path[:40]!r}", lambda place, p=path: of(place, p))
