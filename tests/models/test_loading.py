"""One place reads models, and everything that it is told of them reaches every loader."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from opd.models.files import weights_of
from opd.models.loading import load_causal_lm, stop_ids, tokenizer_of
from opd.types import Pretrained, UserError
from tests.tiny import cli_code, save_model

ROOT = Path(__file__).parents[2]
CODE = """from transformers import Qwen3Config, Qwen3ForCausalLM


class MineConfig(Qwen3Config):
    model_type = "mine"


class MineForCausalLM(Qwen3ForCausalLM):
    config_class = MineConfig
"""
ELSEWHERE = {
    "opd/models/loading.py": 99,  # here
    "opd/models/naming.py": 1,  # weights that are in memory already
    "opd/models/gguf.py": 2,  # a file that is none of transformers' own
    "opd/learner/lora.py": 1, "opd/commands/subject.py": 1,  # adapters, which hold no code
}  # fmt: skip


@pytest.fixture
def mine(student_dir: Path, tmp_path: Path) -> Path:
    """A model whose architecture comes with it, as Python code."""
    folder = shutil.copytree(student_dir, tmp_path / "mine")
    (folder / "modeling_mine.py").write_text(CODE)
    own = json.loads((folder / "config.json").read_text())
    where = {"AutoConfig": "modeling_mine.MineConfig", "AutoModelForCausalLM": "modeling_mine.MineForCausalLM"}
    own |= {"model_type": "mine", "architectures": ["MineForCausalLM"], "auto_map": where}
    (folder / "config.json").write_text(json.dumps(own))
    return folder


def test_only_one_file_loads_models_so_that_no_setting_is_forgotten() -> None:
    for path in (ROOT / "opd").rglob("*.py"):
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute) and node.attr == "from_pretrained"
        ]
        assert len(calls) <= ELSEWHERE.get(path.relative_to(ROOT).as_posix(), 0), f"{path}: use opd.models.loading"


@pytest.mark.parametrize("part", ["student", "teacher"])
def test_code_that_comes_with_a_model_runs_nowhere_unless_it_is_trusted(
    config: Path, mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    run = tmp_path / "run"
    given = [f"conf={config}", f"run={run}", f"{part}.model={mine}", "-q", "steps=1", "eval.every=0"]
    assert cli_code(["train", *given]) == 2
    assert "set trust_remote_code=true beside it" in capsys.readouterr().err
    assert not run.exists()
    assert cli_code(["train", *given, f"{part}.trust_remote_code=true"]) == 0
    assert cli_code(["eval", f"run={run}", "-q"]) == 2  # a run's folder may be anybody's
    assert "asks for code that comes with a model to be run" in capsys.readouterr().err
    trusted = [f"run={run}", f"{part}.trust_remote_code=true"]
    assert cli_code(["eval", *trusted, "-q"]) == 0
    assert cli_code(["sample", *trusted, "-p", "1+1"]) == 0
    assert cli_code(["export", *trusted, "-q", "--dtype", "float32"]) == 0
    if part == "student":
        (exported,) = (run / "export").iterdir()
        assert (exported / "modeling_mine.py").read_text() == CODE
        assert tokenizer_of(Pretrained(str(exported))).eos_token == "<eos>"


def test_a_head_of_its_own_under_a_config_that_says_tied_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "llama", seed=0, tied=False)
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'))
    with pytest.raises(UserError, match="hold two that differ; set tie_word_embeddings to false"):
        load_causal_lm(Pretrained(str(folder)), torch.float32)


def test_whatever_a_library_raises_while_it_reads_a_model_is_one_line(student_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(student_dir, tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(UserError, match=r"no causal language model could be loaded from .*broken'") as error:
        load_causal_lm(Pretrained(str(folder)), torch.float32)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["student", "teacher"])
@pytest.mark.parametrize("lost", ["lm_head.weight", "model.layers.1.mlp.up_proj.weight", ""])
def test_a_model_that_lacks_weights_is_refused_instead_of_drawn(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str, lost: str
) -> None:
    folder = save_model(tmp_path / "holed", "llama", seed=0, tied=False)
    weights = load_file(folder / "model.safetensors")
    named = {f"{'' if lost else 'foo.'}{name}": tensor for name, tensor in weights.items() if name != lost}
    save_file(named, folder / "model.safetensors", {"format": "pt"})
    run = tmp_path / "run"
    assert cli_code(["train", f"conf={config}", f"run={run}", f"{part}.model={folder}", "-q", "steps=1"]) == 2
    assert f"its weights lack {lost or 'lm_head.weight and'}" in capsys.readouterr().err
    assert not run.exists()


@pytest.mark.parametrize("kind", [torch.int32, torch.int8, torch.uint8, torch.bool])
def test_weights_of_whole_numbers_are_refused_where_no_quantization_is_said(tmp_path: Path, kind: torch.dtype) -> None:
    folder, name = save_model(tmp_path, "llama", seed=0, tied=False), "model.layers.1.mlp.up_proj.weight"
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {name: (weights[name] * 9).to(kind)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=f"{name} is of whole numbers"):
        load_causal_lm(Pretrained(str(folder)), torch.float32)
    with pytest.raises(UserError, match=f"{name} is of whole numbers"):
        dict(weights_of(Pretrained(str(folder))))


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_weights_of_fewer_or_more_bits_are_taken(tmp_path: Path, kind: torch.dtype) -> None:
    folder = save_model(tmp_path, "llama", seed=0, tied=False)
    weights = {name: tensor.to(kind) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    read = load_causal_lm(Pretrained(str(folder)), torch.float32).state_dict()
    assert all(torch.equal(read[name], tensor.float()) for name, tensor in weights.items())


def test_a_weight_that_is_in_two_files_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "llama", seed=0, tied=False)
    weights, names = load_file(folder / "model.safetensors"), ("a.safetensors", "b.safetensors")
    first, *others = sorted(weights)
    (folder / "model.safetensors").unlink()
    save_file({first: weights[first]}, folder / names[0], {"format": "pt"})
    save_file({n: weights[n] for n in others} | {first: weights[first] + 1}, folder / names[1], {"format": "pt"})
    said = {"metadata": {}, "weight_map": dict.fromkeys(others, names[1]) | {first: names[0]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(said))
    with pytest.raises(UserError, match=f"{first} is in a.safetensors and in b.safetensors"):
        load_causal_lm(Pretrained(str(folder)), torch.float32)
    with pytest.raises(UserError, match=f"{first} is in a.safetensors and in b.safetensors"):
        dict(weights_of(Pretrained(str(folder))))


def test_weights_of_another_shape_than_the_config_says_are_named(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "llama", seed=0, tied=False)
    edit(folder / "config.json", vocab_size=99)
    with pytest.raises(
        UserError, match=r"have lm_head.weight as \[\d+, \d+\], and its config asks for \[99, \d+\] and 1 more"
    ):
        load_causal_lm(Pretrained(str(folder)), torch.float32)


@pytest.mark.parametrize(
    ("generation", "eos", "ids"),
    [
        ({"eos_token_id": [7, 8]}, 9, (7, 8, 1)),
        ({"eos_token_id": 7}, 9, (7, 1)),
        ({}, 9, (1,)),
        (None, 9, (9, 1)),  # older models say it in their config alone
        (None, [1, 9], (1, 9)),
        (None, None, (1,)),
        ({"eos_token_id": "<eos>"}, 9, "has '<eos>' as eos_token_id"),
        ({"eos_token_id": [1, None]}, 9, "has None as eos_token_id"),
        ({"eos_token_id": True}, 9, "has True as eos_token_id"),
        ('{"eos_token_id": [1, 7],', 9, "no generation config could be loaded .* is not a valid JSON file"),
    ],
)
def test_whatever_says_which_tokens_end_a_completion_is_heard(
    generation: Any, eos: Any, ids: Any, student_dir: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(student_dir, tmp_path / "student")
    edit(folder / "config.json", eos_token_id=eos)
    path = folder / "generation_config.json"
    path.unlink(missing_ok=True)
    if generation is not None:
        path.write_text(generation if isinstance(generation, str) else json.dumps(generation))
    model = Pretrained(str(folder))
    if isinstance(ids, tuple):
        assert stop_ids(model, tokenizer_of(model)) == ids
    else:
        with pytest.raises(UserError, match=ids):
            stop_ids(model, tokenizer_of(model))


def test_a_model_that_says_in_its_config_alone_what_ends_it_is_trained_and_saved(
    config: Path, student_dir: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(student_dir, tmp_path / "student")
    (folder / "generation_config.json").unlink()
    edit(folder / "config.json", eos_token_id=[1, 7])
    given = [f"conf={config}", f"student.model={folder}", f"run={tmp_path / 'run'}", "-q", "steps=1", "eval.every=0"]
    assert cli_code(["train", *given]) == 0


def test_a_student_whose_weights_are_packed_is_refused_by_name(
    config: Path, student_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(student_dir, tmp_path / "packed")
    edit(folder / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    assert cli_code(["train", f"conf={config}", f"student.model={folder}", f"run={tmp_path / 'run'}", "-q"]) == 2
    assert "are quantised (bitsandbytes), and cannot be trained" in capsys.readouterr().err


def test_an_adapter_is_no_student_and_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="it is an adapter: name the model that it was made from"):
        tokenizer_of(Pretrained(str(tmp_path)))


def test_a_checkpoint_is_no_model_and_the_one_in_it_is_named(student_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(student_dir, tmp_path / "step_000002" / "model")
    with pytest.raises(UserError, match=r"; a model is in it: .*step_000002/model$"):
        tokenizer_of(Pretrained(str(tmp_path / "step_000002")))


def test_a_folder_without_a_tokenizer_has_none_that_transformers_makes_of_nothing(
    student_dir: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(student_dir, tmp_path / "bare")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match=r"has no tokenizer.json, or none with a vocabulary; copy that of its base"):
        tokenizer_of(Pretrained(str(folder)))


def test_an_attention_that_is_not_there_is_no_fault_of_the_model(student_dir: Path) -> None:
    for attention in ("nonsense", "flash_attention_2"):
        with pytest.raises(UserError, match="the setting is `attention`: auto lets transformers choose"):
            load_causal_lm(Pretrained(str(student_dir)), torch.float32, attention)


def edit(path: Path, **settings: Any) -> None:
    """Change settings of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
