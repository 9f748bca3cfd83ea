"""How long a sequence a model reads, and how wide its head is, by its config alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

from opd.models.facts import context, read_facts, undealt
from opd.types import Pretrained
from tests.tiny import cli_code, save_model

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "rope_theta": 1e6}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192, "rope_theta": 5e5,
          "low_freq_factor": 1.0, "high_freq_factor": 4.0}  # fmt: skip

LONG = {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [4.0] * 48}, "pad_token_id": 0}


@pytest.mark.parametrize(
    ("kind", "settings", "tokens"),
    [
        ("Qwen2Config", {"max_position_embeddings": 32768}, 32768),
        ("Qwen2Config", {"max_position_embeddings": 32768, "rope_parameters": YARN}, 131072),  # as Qwen says to do it
        ("Qwen2Config", {"max_position_embeddings": 131072, "rope_parameters": YARN}, 131072),  # scaled already
        ("LlamaConfig", {"max_position_embeddings": 131072, "rope_parameters": LLAMA3}, 131072),
        ("LlamaConfig", {"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2.0}}, 8192),
        ("LlamaConfig", {"max_position_embeddings": 4096, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, 4096),
        ("Phi3Config", LONG | {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096}, 4096),
        ("Gemma3TextConfig", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}, 131072),
        ("GptOssConfig", {}, 131072),
        ("GPT2Config", {"n_positions": 77}, 77),
        ("MptConfig", {"max_seq_len": 66}, 66),
        ("BloomConfig", {}, None),
        ("MambaConfig", {}, None),
    ],
)
def test_the_context_is_that_of_scaled_positions(kind: str, settings: dict[str, Any], tokens: int | None) -> None:
    assert context(getattr(transformers, kind)(**settings)) == tokens


def test_the_head_may_be_wider_than_the_tokenizer(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "llama", seed=0, tied=False, vocab=64)
    assert read_facts(Pretrained(str(folder))).vocabulary == 64


def test_a_model_that_trains_at_its_limit_is_evaluated_and_exported_at_it(config: Path, tmp_path: Path) -> None:
    student = save_model(tmp_path / "student", "llama", seed=0, tied=True)
    path = student / "config.json"
    path.write_text(path.read_text().replace('"max_position_embeddings": 512', '"max_position_embeddings": 24'))
    run = tmp_path / "run"
    limits = ["data.max_prompt_tokens=16", "sampling.max_tokens=8", "steps=1", "eval.every=0"]
    assert cli_code(["train", f"conf={config}", f"student.model={student}", f"run={run}", "-q", *limits]) == 0
    assert cli_code(["eval", f"run={run}", "-q"]) == 0
    assert cli_code(["export", f"run={run}", "-q", "--dtype", "float32"]) == 0


def test_a_teacher_that_reads_less_than_the_student_may_write_is_refused_before_anything_is_written(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = save_model(tmp_path / "teacher", "llama", seed=2, tied=False, vocab=48)
    path = teacher / "config.json"
    path.write_text(path.read_text().replace('"max_position_embeddings": 512', '"max_position_embeddings": 30'))
    run = tmp_path / "run"
    limits = ["data.max_prompt_tokens=16", "sampling.max_tokens=15", "eval.max_tokens=null", "-q"]
    assert cli_code(["train", f"conf={config}", f"teacher.model={teacher}", f"run={run}", *limits]) == 2
    said = capsys.readouterr().err
    assert "teacher.model: " in said
    assert "reads at most 30 tokens, and prompt and completion may have 31 together" in said
    assert not run.exists()


@pytest.mark.parametrize(
    ("kind", "settings", "allowed"),
    [
        ("Qwen2Config", (14, 2, 151936, 4864), [1, 2]),  # 7 share the heads, but not those of keys, nor the vocabulary
        ("Qwen2Config", (28, 4, 152064, 18944), [1, 2, 4]),
        ("LlamaConfig", (24, 8, 48 * 64, 960), [1, 2, 4, 8, 24]),  # of keys each has one then
        ("LlamaConfig", (4, 4, 45, 128), [1, 2, 4]),  # of 45 rows it makes 64
        ("LlamaConfig", (6, 6, 45, 128), [1, 2]),
        ("LlamaConfig", (6, 6, 192, 128), [1, 2]),
    ],
)
def test_the_devices_that_can_share_a_model_are_told_by_its_sizes(
    kind: str, settings: tuple[int, ...], allowed: list[int]
) -> None:
    names = ("num_attention_heads", "num_key_value_heads", "vocab_size", "intermediate_size")
    config = getattr(transformers, kind)(hidden_size=64 * settings[0], **dict(zip(names, settings, strict=True)))
    assert [n for n in range(1, 65) if not undealt(config, n)] == allowed


def test_devices_can_share_what_has_no_heads_and_what_is_kept_of_keys_as_one_piece() -> None:
    assert not undealt(transformers.Mamba2Config(vocab_size=64), 2)
    latent = transformers.DeepseekV3Config(num_attention_heads=8, num_key_value_heads=3, kv_lora_rank=16)
    assert not undealt(latent, 2)
    assert undealt(latent, 3) == "8 attention heads"
