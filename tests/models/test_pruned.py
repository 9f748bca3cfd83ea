"""Models with layers left out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig

from opd.models.pruned import Pruned, drop
from opd.types import UserError
from tests.tiny import save_model

IDS = torch.tensor([[5, 6, 7, 8, 9, 3, 4]])


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the checkpoints of a test in its own folder."""
    monkeypatch.setenv("OPD_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=[("qwen3", True), ("llama", False)], ids=["qwen3-tied", "llama-untied"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    kind, tied = request.param
    folder = tmp_path / "base"
    folder.mkdir()
    return save_model(folder, kind, seed=3, tied=tied, layers=5)


class Skip(nn.Module):
    """A layer that does nothing."""

    def forward(self, hidden: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        return hidden


@torch.no_grad()
def test_outputs_are_those_of_the_base_when_it_skips_the_layers(base: Path) -> None:
    whole = AutoModelForCausalLM.from_pretrained(base)
    small = AutoModelForCausalLM.from_pretrained(Pruned(str(base), (1, 3)).path())
    before = whole(IDS).logits
    for i in (1, 3):
        whole.model.layers[i] = Skip()
    torch.testing.assert_close(small(IDS).logits, whole(IDS, use_cache=False).logits, rtol=0, atol=1e-6)
    assert (small(IDS).logits - before).abs().max() > 1e-2


def test_the_written_model_has_fewer_layers_and_generates_with_its_cache(base: Path) -> None:
    path = Path(Pruned(str(base), (0, 4)).path())
    assert json.loads((path / "config.json").read_text())["num_hidden_layers"] == 3
    small = AutoModelForCausalLM.from_pretrained(path)
    assert [layer.self_attn.layer_idx for layer in small.model.layers] == [0, 1, 2]
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with_cache, without = (small.generate(IDS, use_cache=cached, **settings) for cached in (True, False))
    assert torch.equal(with_cache, without)


def test_the_tokenizer_comes_along(base: Path) -> None:
    there = AutoTokenizer.from_pretrained(Pruned(str(base), (2,)).path())
    here = AutoTokenizer.from_pretrained(base)
    assert there.get_vocab() == here.get_vocab()
    assert there.chat_template == here.chat_template
    assert there.eos_token_id == here.eos_token_id


def test_kinds_of_the_kept_layers_stay_with_them() -> None:
    config = Gemma3TextConfig(
        vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=4, num_attention_heads=1,
        num_key_value_heads=1, head_dim=32,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
    )  # fmt: skip
    model = Gemma3ForCausalLM(config)
    drop(model, (0,))
    assert model.config.layer_types == ["sliding_attention", "full_attention", "sliding_attention"]
    assert model.config.num_hidden_layers == 3
    assert model(IDS).logits.shape == (1, IDS.shape[1], 32)


@pytest.mark.parametrize("layers", [(5,), (-1,), (1, 1), (0, 1, 2, 3, 4)])
def test_wrong_layers_are_refused_in_one_line_and_nothing_is_kept(base: Path, tmp_path: Path, layers: tuple) -> None:
    with pytest.raises(UserError, match="drop_layers: ") as error:
        Pruned(str(base), layers).path()
    assert "\n" not in str(error.value)
    assert [f for f in (tmp_path / "cache").iterdir() if f.is_dir()] == []


def test_a_base_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        Pruned(str(tmp_path / "nowhere"), (0,)).path()


def test_a_changed_base_is_not_answered_from_the_cache(base: Path) -> None:
    source = Pruned(str(base), (0,))
    before = source.path()
    assert source.path() == before
    (base / "extra.json").write_text("{}")
    assert source.path() != before


@dataclass(frozen=True)
class Given:
    """A source that is there already."""

    folder: str

    def path(self) -> str:
        return self.folder


def test_the_base_may_be_a_source(base: Path) -> None:
    small = AutoModelForCausalLM.from_pretrained(Pruned(Given(str(base)), (1,)).path())
    assert small.config.num_hidden_layers == 4
