"""One place reads models, and everything that it is told of them reaches every loader."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch

from opd.models.loading import load_causal_lm, tokenizer_of
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
    assert cli_code(["eval", f"run={run}", "-q"]) == 0
    assert cli_code(["sample", f"run={run}", "-p", "1+1"]) == 0
    assert cli_code(["export", f"run={run}", "-q", "--dtype", "float32"]) == 0
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
