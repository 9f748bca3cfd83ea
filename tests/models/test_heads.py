"""Taking architectures apart, and refusing those that would be read wrongly."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from opd.models.heads import score_sequences, split_model
from opd.models.loading import load_causal_lm
from opd.types import Pretrained, UserError
from tests.tiny import save_model

SEQUENCES = [([3, 4, 5], [6, 7, 8, 9]), ([10, 11], [12, 13]), ([2] * 20, [5, 6, 7])]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["qwen3", "qwen2", "llama", "gpt2"])
def test_packed_sequences_are_scored_as_if_each_were_alone(kind: str, tied: bool, tmp_path: Path) -> None:
    path = save_model(tmp_path, kind, seed=0, tied=tied)
    model = load_causal_lm(Pretrained(str(path)), torch.float32, "sdpa", torch.device("cpu")).eval()
    found = score_sequences(split_model(model), SEQUENCES)
    for (prompt, completion), logprobs in zip(SEQUENCES, found, strict=True):
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        own = logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(logprobs), own, atol=1e-5, rtol=1e-5)


APART = {
    "OPTConfig": {"ffn_dim": 64, "word_embed_proj_dim": 32},  # positions counted along the row
    "BloomConfig": {},  # ALiBi
    "Mamba2Config": {"num_heads": 4, "head_dim": 16, "state_size": 16, "n_groups": 1, "chunk_size": 8},
    "Qwen3_5TextConfig": {
        "head_dim": 16, "intermediate_size": 64, "num_key_value_heads": 1, "linear_num_key_heads": 2,
        "linear_num_value_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", APART)
def test_where_sequences_in_a_row_would_see_each_other_each_has_a_row_of_its_own(name: str) -> None:
    shape = {"vocab_size": 45, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = getattr(transformers, name)(**shape, **APART[name], pad_token_id=0, bos_token_id=None, eos_token_id=1)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    split = split_model(model)
    assert not split.shared
    found = score_sequences(split, SEQUENCES)
    for (prompt, completion), logprobs in zip(SEQUENCES, found, strict=True):
        logits = model(torch.tensor([prompt + completion]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        own = logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(logprobs), own, atol=1e-4, rtol=1e-4)


class Looking(torch.nn.Module):
    """A body whose tokens see all of their batch."""

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor, use_cache: bool) -> Any:
        state = self.embed(input_ids)
        return SimpleNamespace(last_hidden_state=state + state.sum())


def test_a_model_whose_tokens_see_what_is_not_their_own_is_refused(tmp_path: Path) -> None:
    path = save_model(tmp_path, "qwen3", seed=0, tied=True)
    model = load_causal_lm(Pretrained(str(path)), torch.float32)
    body = Looking()
    body.embed = model.get_input_embeddings()
    model.model = body
    head = model.lm_head
    model.get_decoder, model.get_output_embeddings = lambda: body, lambda: head
    model.forward = lambda input_ids, position_ids, use_cache: SimpleNamespace(
        logits=head(body(input_ids, position_ids, use_cache).last_hidden_state)
    )
    with pytest.raises(UserError, match="Qwen3ForCausalLM lets a sequence see what is not its own"):
        split_model(model)


def test_a_model_that_cannot_be_taken_apart_is_one_line(tmp_path: Path) -> None:
    path = save_model(tmp_path, "qwen3", seed=0, tied=True)
    model = load_causal_lm(Pretrained(str(path)), torch.float32)
    model.get_decoder = lambda: None
    with pytest.raises(UserError, match=r"Qwen3ForCausalLM cannot be taken into body and head .*TypeError"):
        split_model(model)
