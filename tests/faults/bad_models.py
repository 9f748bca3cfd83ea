"""Model folders that are damaged, half there or made up, and chat templates that are somebody's program."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.faults.inputs import Bad, Place
from tests.faults.lies import ESCAPES

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n"
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
DEEP = 50_000


def cases() -> Iterator[Bad]:
    """All of them."""
    for who in ("student", "teacher"):
        for name, damage in _damages():
            yield Bad(
                f"{who}'s folder", name, partial(_damaged, who, damage), harmless=name in FINE or name.startswith(CODE)
            )
        for name, template in _templates().items():
            tell = partial(_damaged, who, partial(_template, template))
            yield Bad(f"{who}'s template", name, tell, harmless=name in FINE)


FINE = {"no generation config", "an empty template", "undefined names", "lorem ipsum", "max_position_embeddings is 1"}
"""What can be done."""
FINE |= {
    "rms_norm_eps is inf",
    "torch_dtype is nothing",
    "torch_dtype is 3",
    "rope_theta is a",
    "rope_theta is 0",
    "sliding_window is -5",
}
CODE = ("auto_map is {'AutoModelForCausalLM': 'evil", 'tokenizer_config.json is \'{"tokenizer_class": "os.s')
"""Beginnings of what names code that is not run."""
FINE |= {
    "a tensor too many",
    "architectures is a",
    "architectures is ['Nothing']",
    "architectures is [3]",
    "attention_dropout is 2.0",
}
"""What need not be read, or is the model's own."""


def _damaged(who: str, damage: Callable[[Path], Any], place: Place) -> list[str]:
    """A run whose student or teacher is a damaged copy."""
    copy = place.folder / who
    shutil.copytree(getattr(place, who), copy)
    damage(copy)
    teacher = ["teacher.prompt=auto"] if who == "teacher" else []
    return ["train", f"conf={place.config()}", f"{who}.model={copy}", "data.template=auto", *teacher]


def _put(name: str, data: bytes | str) -> Callable[[Path], Any]:
    return lambda at: (at / name).write_bytes(
        data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    )


def _cut(name: str, share: float) -> Callable[[Path], Any]:
    return lambda at: (at / name).write_bytes((d := (at / name).read_bytes())[: int(len(d) * share)])


def _without(*names: str) -> Callable[[Path], Any]:
    return lambda at: [(at / name).unlink() for name in names]


def _set(**values: Any) -> Callable[[Path], Any]:
    """Other values in config.json; what is `...` is left out."""

    def change(at: Path) -> None:
        known = json.loads((at / CONFIG).read_text()) | values
        (at / CONFIG).write_text(json.dumps({k: v for k, v in known.items() if v is not ...}))

    return change


def _tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], Any]:
    def rewrite(at: Path) -> None:
        tensors = load_file(at / WEIGHTS)
        change(tensors)
        save_file(tensors, at / WEIGHTS, metadata={"format": "pt"})

    return rewrite


class _Evil:
    def __reduce__(self) -> Any:
        return (print, ("opd: internal error: it ran",))


def _pickled(at: Path) -> None:
    (at / WEIGHTS).unlink()
    (at / "pytorch_model.bin").write_bytes(pickle.dumps(_Evil()))


def _torch_saved(at: Path) -> None:
    (at / WEIGHTS).unlink()
    torch.save({"a": _Evil()}, at / "pytorch_model.bin")


def _in_shards(*there: int) -> Callable[[Path], Any]:
    def split(at: Path) -> None:
        tensors = load_file(at / WEIGHTS)
        names = sorted(tensors)
        files = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
        (at / WEIGHTS).unlink()
        for i, file in enumerate(files):
            if i in there:
                save_file({n: tensors[n] for n in names[i::2]}, at / file, metadata={"format": "pt"})
        index = {"metadata": {}, "weight_map": {n: files[i % 2] for i, n in enumerate(names)}}
        (at / "model.safetensors.index.json").write_text(json.dumps(index))

    return split


def _damages() -> Iterator[tuple[str, Callable[[Path], Any]]]:
    yield "nothing", lambda at: [f.unlink() for f in at.iterdir()]
    for name in (WEIGHTS, CONFIG, TOKENIZER):
        yield f"no {name}", _without(name)
        for share in (0, 0.001, 0.5, 0.98):
            yield f"{share:g} of {name}", _cut(name, share)
        yield f"a pointer for {name}", _put(name, POINTER)
        yield f"zeros for {name}", _put(name, b"\0" * 5000)
        yield f"HTML for {name}", _put(name, b"<html>404</html>")
        yield f"a folder for {name}", lambda at, n=name: [(at / n).unlink(), (at / n).mkdir()]
        yield f"a circle for {name}", lambda at, n=name: [(at / n).unlink(), (at / n).symlink_to(at / n)]
    for name in (CONFIG, TOKENIZER):
        for text in (
            "[]",
            "null",
            "3",
            '"a"',
            "{}",
            "[" * DEEP,
            '{"a":' * DEEP,
            "\ud800",
            '{"model_type": 3}',
            '{"model_type": "nothing"}',
        ):
            yield f"{name} is {text[:24]!r}", _put(name, text)
    for at in (8, 100, 2000):
        yield (
            f"a header that begins with {at} bytes of junk",
            lambda p, n=at: (p / WEIGHTS).write_bytes(b"\xff" * n + (p / WEIGHTS).read_bytes()[n:]),
        )
    yield "a header of exabytes", _put(WEIGHTS, b"\xff" * 7 + b"\x7f" + b"{}")
    yield "a header that is nested", _put(WEIGHTS, (DEEP + 2).to_bytes(8, "little") + b"[" * (DEEP + 2))
    yield (
        "offsets beyond the end",
        _put(WEIGHTS, _header({"a": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}})),
    )
    yield "no tokenizer's config", _without("tokenizer_config.json")
    yield "no tokenizer at all", _without(TOKENIZER, "tokenizer_config.json")
    for text in ("[]", "null", "{", '{"tokenizer_class": 3}', '{"tokenizer_class": "os.system"}',
        '{"chat_template": 3}', '{"chat_template": [1]}', '{"auto_map": {"AutoTokenizer": ["evil.X", null]}}',
                 '{"eos_token": 3}', '{"eos_token": "<nowhere>"}', '{"added_tokens_decoder": {"a": {}}}',
                 '{"model_max_length": "x"}'):  # fmt: skip
        yield f"tokenizer_config.json is {text[:40]!r}", _put("tokenizer_config.json", text)
    for text in (
        "[]",
        "null",
        "{",
        '{"eos_token_id": "a"}',
        '{"eos_token_id": -1}',
        '{"eos_token_id": [[1]]}',
        '{"eos_token_id": true}',
        '{"eos_token_id": 1e30}',
        "[" * DEEP,
    ):
        yield f"generation_config.json is {text[:30]!r}", _put("generation_config.json", text)
    yield "no generation config", _without("generation_config.json")
    numbers = (
        "hidden_size",
        "num_attention_heads",
        "num_hidden_layers",
        "vocab_size",
        "intermediate_size",
        "num_key_value_heads",
        "head_dim",
    )
    for name in numbers:
        for value in (0, -1, 10**12, 2**70, "a", None, [], True, 1.5, 3):
            yield f"{name} is {str(value)[:8]}", _set(**{name: value})
    for name, values in {
        "max_position_embeddings": (0, -1, "a", None, [], 1), "rms_norm_eps": ("a", -1, None, 1e400),
        "hidden_act": ("nothing", 3, None), "torch_dtype": ("nothing", 3), "dtype": ("nothing", "int8"),
        "rope_theta": ("a", 0), "rope_parameters": ("a", 3, [], {"rope_type": "nothing"}, {"rope_type": "linear",
        "factor": 0}), "tie_word_embeddings": ("a", 3), "architectures": ("a", 3, ["Nothing"], [3]),
        "model_type": ("bert", "nothing", "../x", "llava", "t5"), "eos_token_id": ("a", [[]]),
        "initializer_range": ("a", -1), "layer_types": (["nothing"], 3, []), "attention_bias": ("a",),
        "quantization_config": ({}, {"quant_method": "nothing"}, 3, {"quant_method": "gptq", "bits": 4}),
        "auto_map": ({"AutoModelForCausalLM": "evil.X"}, 3), "sliding_window": ("a", -5),
        "attention_dropout": ("a", 2.0), "pad_token_id": (10**9, "a"),
    }.items():  # fmt: skip
        for value in values:
            yield f"{name} is {str(value)[:30]}", _set(**{name: value})
    yield "a tensor too few", _tensors(lambda t: t.pop(sorted(t)[0]))
    yield "a layer too few", _tensors(lambda t: [t.pop(n) for n in list(t) if "layers.1." in n])
    yield "a tensor too many", _tensors(lambda t: t.update(evil=torch.zeros(3)))
    yield "a tensor of another shape", _tensors(lambda t: t.update({sorted(t)[0]: torch.zeros(3, 3)}))
    yield "no tensors", _tensors(lambda t: t.clear())
    yield "NaN", _tensors(lambda t: t[sorted(t)[0]].fill_(float("nan")))
    yield "infinity", _tensors(lambda t: t[sorted(t)[0]].fill_(float("inf")))
    yield "a tensor called by an escape", _tensors(lambda t: t.update({ESCAPES: t.pop(sorted(t)[0])}))
    yield "a pickle", _pickled
    yield "a torch file with code", _torch_saved
    yield (
        "a torch file that is none",
        lambda at: [(at / WEIGHTS).unlink(), (at / "pytorch_model.bin").write_bytes(b"hello")],
    )
    yield "the second shard is missing", _in_shards(0)
    yield "both shards are missing", _in_shards()
    for text in (
        "[]",
        "{",
        '{"weight_map": 3}',
        '{"weight_map": {}}',
        '{"weight_map": {"a": "../../../etc/passwd"}}',
        '{"weight_map": {"a": 3}}',
        "[" * DEEP,
    ):
        yield (
            f"the shards' index is {text[:30]!r}",
            lambda at, t=text: [_in_shards(0, 1)(at), (at / "model.safetensors.index.json").write_text(t)],
        )
    yield "an adapter", lambda at: [(at / "adapter_config.json").write_text("{}"), (at / WEIGHTS).unlink()]
    yield "a run", lambda at: [(at / "config.yaml").write_text("a: 1"), (at / CONFIG).unlink()]


def _header(tensors: dict[str, Any]) -> bytes:
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text


def _template(text: str, at: Path) -> None:
    config = json.loads((at / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (at / "tokenizer_config.json").write_text(json.dumps(config))
    (at / "chat_template.jinja").write_text(text)


def _templates() -> dict[str, str]:
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    double = (
        "{% set n = namespace(x='ab' * 500) %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}"
    )
    return {
        "raises": "{{ raise_exception('no\\n' ~ messages[0].role) }}",
        "raises with escapes": "{{ raise_exception('\x1b[2J') }}", "loops": loop,
        "loops for an answer": "{% if not add_generation_prompt %}" + loop + "{% endif %}a",
        "writes without end": loop.replace("{% endfor %}", "aaaaaaaaaaaaaaaaaaaaaaa{% endfor %}", 1),
        "doubles": double, "ten billion letters": "{{ 'a' * 10000000000 }}",
        "a hundred million letters": "{{ 'ab' * 100000000 }}", "a wide text": "{{ '%0999999999d' % 1 }}",
        "a centred text": "{{ 'a'|center(9999999999) }}", "a long list": "{{ [0] * 9999999999 }}",
        "a large power": "{{ 9 ** 9 ** 9 }}", "a larger power": "{{ (10 ** 10 ** 7) % 7 }}",
        "replaces": double.replace("n.x ~ n.x", "n.x.replace('a', 'aaa')"),
        "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "an open block": "{% for m in messages %}",
        "no Jinja": "{% evil %}", "a class": "{{ messages.__class__.__mro__ }}",
        "a subclass": "{{ ''.__class__.__base__.__subclasses__() }}", "a file": "{% include '/etc/passwd' %}",
        "an import": "{% import 'os' as os %}{{ os.system('true') }}", "divides by zero": "{{ 1 / 0 }}",
        "nests": "{% if true %}" * 3000 + "a" + "{% endif %}" * 3000,
        "nests in brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "an empty template": "",
        "undefined names": "{{ nothing }}{{ messages[0].content }}:",
        "lorem ipsum": "{{ lipsum(n=1) }}{{ messages[0].content }}", "undefined fields": "{{ nothing.at.all }}",
        "half a character": "{{ '\\ud800' }}{{ messages[0].content }}", "leaves all out": "hello",
        "sorts": "{{ range(99999)|sort(reverse=true)|join(',') }}" * 300,
    }  # fmt: skip
