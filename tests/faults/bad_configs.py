"""Configs, overrides and paths that nobody can mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial

from tests.faults.inputs import Bad, Place
from tests.faults.lies import ESCAPES

LAUGHS = "\n".join([f"a0: &a0 [{', '.join(['lol'] * 10)}]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]"
                                                              for i in range(1, 12))])  # fmt: skip
"""Ten to the twelve words, in aliases of aliases."""
MERGES = "\n".join(["m0: &m0 {x: 1}", *(f"m{i}: &m{i} {{a: *m{i - 1}, b: *m{i - 1}}}" for i in range(1, 40))])
TEXTS = "\n".join(["name: ${t40}", "t0: lol", *(f"t{i}: ${{t{i - 1}}}${{t{i - 1}}}" for i in range(1, 41))])
"""A text of two to the forty words, in references to other settings."""
NODES = "\n".join(["n0: {x: 1}", *(f"n{i}: {{a: '${{n{i - 1}}}', b: '${{n{i - 1}}}'}}" for i in range(1, 40))])
LONG, NUL, HALF = "x" * 300, "a\0b", "\ud800"
DIGITS = "9" * 5000
A_CLASS = "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass X:\n    "


def cases() -> Iterator[Bad]:
    """All of them."""
    yield from _yaml()
    yield from _defaults()
    yield from _modules()
    yield from _fields()


def whole(text: str | bytes) -> Callable[[Place], list[str]]:
    """A file that holds nothing else."""

    def make(place: Place) -> list[str]:
        file = place.folder / "bad.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        return ["train", f"conf={file}"]

    return make


def beside(text: str) -> Callable[[Place], list[str]]:
    """A file that is sound, and this behind it."""
    return lambda place: ["train", f"conf={place.config(text)}"]


def typed(*overrides: str) -> Callable[[Place], list[str]]:
    """A config that is sound, with overrides."""
    return lambda place: ["train", f"conf={place.config()}", *overrides]


def _yaml() -> Iterator[Bad]:
    texts = {
        "aliases of aliases": LAUGHS, "mappings of mappings": MERGES, "references of references": TEXTS,
        "references to mappings": NODES, "a list in itself": "eval: &a [*a]\n",
        "a mapping in itself": "data: &a {tasks: *a}\n",
        "merged with itself": "data: &a {<<: *a}\n", "refers to itself": "name: ${name}\n",
        "refer to each other": "name: ${runs}\nruns: ${name}\n", "an unknown function": "name: ${evil:1}\n",
        "no variable": "name: ${oc.env:NOT_THERE_AT_ALL}\n", "a half reference": "name: ${\n",
        "two names": "name: a\nname: b\n",
        "an alias of nothing": "name: *nothing\n", "a tab": "name:\n\t- a\n", "a number for a name": "1: 2\n",
        "null for a name": "null: 2\n",
        "a list for a name": "? [a]\n: b\n", "a mapping for a name": "? {a: b}\n: c\n",
        "two documents": "---\na: 1\n---\nb: 2\n",
        "Python's tags": "name: !!python/object/apply:os.system ['true']\n",
        "Python's names": "name: !!python/name:os.system\n",
        "an unknown tag": "name: !evil x\n", "bytes": "name: !!binary aGVsbG8=\n", "a set": "name: !!set {a, b}\n",
        "no bytes": "name: !!binary '!!!'\n", "no integer": "steps: !!int abc\n", "no date": "name: !!timestamp x\n",
        "no boolean": "seed: !!bool x\n", "no number": "seed: !!float x\n", "a month of 30": "name: 2020-02-30\n",
        "month 13": "name: 2020-13-01\n",
        "hour 99": "name: 2020-01-01 99:99:99\n", "year 0": "name: 0000-01-01\n",
        "a zone of years": "name: 2020-01-01 00:00:00 +99:99\n",
        "a date for a number": "seed: 2020-01-01\n", "sixties": "steps: 1:99:99:99\n",
        "5,000 digits": f"seed: {DIGITS}\n",
        "5,000 hex digits": f"seed: 0x{DIGITS}\n", "5,000 binary digits": f"seed: 0b{'1' * 5000}\n",
        "5,000 octal digits": f"seed: 0o{'7' * 5000}\n",
        "5,000 digits and a point": f"optim: {{lr: {DIGITS}.0}}\n",
        "5,000 digits behind it": f"optim: {{lr: 1e{DIGITS}}}\n", "a million signs": "a" * 10**6,
        "nested lists": "seed: " + "[" * 10_000 + "]" * 10_000,
        "nested mappings": "seed: " + "{a: " * 10_000 + "1" + "}" * 10_000,
        "nested blocks": "".join(f"{' ' * i}a:\n" for i in range(3000)),
        "nested dashes": "seed: \n" + "- " * 10_000 + "a",
        "deep lists": "seed: " + "[" * 150 + "]" * 150, "open lists": "seed: " + "[" * 10_000,
        "Hydra's own": "hydra: {run: {dir: /tmp/x}}\n",
        "a name of 300 signs": f"{LONG}: 1\n", "a name of a million": f"{'y' * 10**6}: 1\n",
        "a name that escapes": json.dumps(ESCAPES) + ": 1\n",
        "a name of half a character": '"\\ud800": 1\n', "a name with NUL": '"a\\0b": 1\n', "an empty name": '"": 1\n',
        "a name with dots": "a.b: 1\n",
        "a name with brackets": "'a[0]': 1\n", "missing": "name: ???\n",
    }  # fmt: skip
    for name, text in texts.items():
        yield Bad("YAML", name, beside(text))
    alone = {
        "nothing": "", "white space": " \n\n", "a comment": "# a\n", "a word": "word", "a list": "- a\n",
        "a number": "3", "null": "null",
        "NUL": b"name: a\0b\n", "no UTF-8": b"name: \xff\xfe\n", "latin-1": "name: é\n".encode("latin-1"),
        "UTF-16": "name: a\n".encode("utf-16"),
        "UTF-32": "name: a\n".encode("utf-32"), "half a character": b"name: \xed\xa0\x80\n",
        "an escape": "name: \x1b[2J\n", "zeros": b"\0" * 10**6,
        "a gzip": b"\x1f\x8b\x08" + b"\0" * 50, "an open quote": 'name: "a\n', "an open block": "name: [a, {b: c\n",
        "64 MB": "# " + "x" * (64 << 20),
        "32 MB of settings": "".join(f"k{i}: {i}\n" for i in range(2_500_000)), "a bell": "name: \x07\n",
    }  # fmt: skip
    for name, text in alone.items():
        yield Bad("YAML", f"alone, {name}", whole(text))
    yield Bad("YAML", "a bomb in a group's file", partial(_in_group, LAUGHS))
    yield Bad("YAML", "nesting in a group's file", partial(_in_group, "a: " + "[" * 10_000))
    yield Bad("YAML", "a bomb in another config", partial(_in_other, LAUGHS))


def _in_group(text: str, place: Place) -> list[str]:
    (place.folder / "optim").mkdir()
    (place.folder / "optim" / "bomb.yaml").write_text(text)
    return ["train", f"conf={place.config()}", "optim=bomb"]


def _in_other(text: str, place: Place) -> list[str]:
    (place.folder / "other.yaml").write_text(text)
    (place.folder / "bad.yaml").write_text("defaults: [other, _self_]\nname: a\n")
    return ["train", f"conf={place.folder / 'bad.yaml'}"]


def _defaults() -> Iterator[Bad]:
    lists = ["null", "{}", "x", "3", "[]", "[null]", "[[_self_]]", "[3, _self_]", "[_self_, _self_]", "[bad, _self_]",
        "[{a: b}, _self_]",
             "[{data: [a, b]}, _self_]", "[{data: null}, _self_]", "[{data: 3}, _self_]",
             "['../../../etc/passwd', _self_]", "[/etc/passwd, _self_]",
             "['', _self_]", "['${x}', _self_]", "[{'data@x.y': everyday}, _self_]",
             "[{'override data': nothing}, _self_]", "[{'optional none': a}, _self_]",
             "[{'override': a}, _self_]", f"['{LONG}', _self_]", f"[{{data: '{LONG}'}}, _self_]", '["\\ud800", _self_]',
             '["a\\0b", _self_]',
             '[{data: "a\\0b"}, _self_]', "[{data: ../data/everyday}, base]", "[&a base, *a, _self_]"]  # fmt: skip
    for text in lists:
        yield Bad("defaults", text[:40], whole(f"defaults: {text}\nname: a\n"))


def _modules() -> Iterator[Bad]:
    bodies = {
        "leaves": "import sys; sys.exit(0)", "leaves with a word": "raise SystemExit('bye')",
        "raises": "raise ValueError('no\\nway')",
        "raises nothing that is known": "class E(BaseException): pass\nraise E('x')",        "is no Python": "def (",
        "is binary": "\0\0", "needs another": "import not_there_at_all", "needs itself": "from evil import X",
        "has no class": "Y = 1", "has another": "X = 3", "has a function": "def X(): pass",
        "has a plain class": "class X: pass",
        "answers every name": "def __getattr__(name): raise RuntimeError(name)",
        "leaves by name": "def __getattr__(name): raise SystemExit(0)",
        "has a class of another kind": A_CLASS + "a: int = 1",
        "leaves in its check": A_CLASS + "def __post_init__(self): raise SystemExit(0)",
        "fails in its check": A_CLASS + "def __post_init__(self): raise KeyError('x')",
        "has a hint of nothing": "from __future__ import annotations\n" + A_CLASS + "a: Nothing = 1",
        "recurses": "def f(): f()\nf()",
    }  # fmt: skip
    for name, body in bodies.items():
        yield Bad("modules", name, partial(_module, body, "objective._target_=evil.X"))
        yield Bad("modules", f"{name}, as data", partial(_module, body, "+data.tasks.x._target_=evil.X"))
    names = ["os.system", "builtins.exec", "subprocess.Popen", "os", "", ".", "..", ".x", "x.", "a..b", "opd",
        "opd.types.Pretrained", LONG, f"{LONG}.X",
             "a.b" * 200, "os.path.join", "__main__.X", "sys.exit", "antigravity.X", "this.X",
             "opd.objectives.reverse_kl.ReverseKL.x"]  # fmt: skip
    for name in names:
        for at in ("objective._target_", "teacher._target_"):
            yield Bad("modules", f"{at}={name[:30]}", typed(f"{at}={name}"))
    for value in (
        "3",
        "null",
        "[a]",
        "{a: b}",
        "true",
        '"a\\0b.X"',
        '"\\ud800.X"',
        json.dumps(ESCAPES + ".X"),
        '"a b.X"',
        "ä.X",
    ):
        yield Bad("modules", f"_target_: {value[:30]}", beside(f"source: {{_target_: {value}}}\n"))
    for key in (
        "_args_: [1]",
        "_partial_: true",
        "_convert_: all",
        "_recursive_: false",
        "__class__: x",
        "__dict__: {}",
    ):
        yield Bad("modules", key, beside(f"source: {{_target_: opd.sources.student.StudentSource, {key}}}\n"))


def _module(body: str, override: str, place: Place) -> list[str]:
    (place.folder / "evil.py").write_bytes(body.encode())
    return ["train", f"conf={place.config()}", override]


def _fields() -> Iterator[Bad]:
    """Every kind of field with every kind of value, in a file: what a shell cannot type, a file can hold."""
    values = {
        "300 signs": LONG, "5,000 signs": LONG * 20, "NUL": NUL, "half a character": HALF,
        "nobody's home": "~nobodyhere/x", "escapes": ESCAPES,
        "white space": " ", "nothing": "", "dots": "..", "a device": "/dev/null", "a process": "/proc/self/mem",
        "lines": "a\n---\nb: c",
        "5,000 digits": DIGITS, "-1": -1, "2^70": 2**70, "true": True, "a list": [1, "a"], "a mapping": {"a": 1},
        "bidi": "a\u202eb",
        "a reference": "\\${", "1.5": 1.5, "folders": "a/" * 3000,
    }  # fmt: skip
    fields = ("student.model", "teacher.model", "student.dtype", "student.device", "student.attention", "rollout.dtype",
        "optim.lr",
              "steps", "seed", "threads", "sampling.max_tokens", "data.template", "data.tasks.arithmetic.operators",
              "name", "runs",
              "eval.size", "checkpoint.every", "teacher.prompt", "optim.schedule", "data.prompts_per_step")  # fmt: skip
    for field in fields:
        for name, value in values.items():
            said = DIGITS if value == DIGITS else json.dumps(value)
            own = field in ("name", "runs", "seed", "data.tasks.arithmetic.operators") or (field, name) in FINE
            yield Bad(f"fields: {field.split('.')[0]}", f"{field}: {name}", partial(_field, field, said), harmless=own)


FINE = {("optim.lr", "1.5")}
"""What can be done."""


def _field(field: str, said: str, place: Place) -> list[str]:
    place.config()
    file = place.folder / "bad.yaml"
    first, *rest = field.split(".")
    text = "".join(
        f"{'  ' * (i + 1)}{name}:{' ' + said if i == len(rest) - 1 else ''}\n" for i, name in enumerate(rest)
    )
    file.write_text(f"defaults: [tiny, _self_]\n{first}:{'' if rest else ' ' + said}\n{text}")
    return ["train", f"conf={file}"]
