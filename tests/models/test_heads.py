"""Taking architectures apart, and refusing those that would be read wrongly."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from opd.models.heads import apart, split_model
from opd.models.loading import load_causal_lm
from opd.models.scoring import score_sequences
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


ALONG = {
    "chunks": {"attention_chunk_size": 24, "attn_temperature_tuning": False},
    "temperatures": {
        "attn_temperature_tuning": True, "floor_scale": 16, "attn_scale": 1.0, "no_rope_layers": [0, 0],
        "layer_types": ["full_attention"] * 2,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ALONG)
def test_what_begins_at_lengths_that_no_check_reaches_is_told_by_the_config(name: str) -> None:
    torch.manual_seed(0)
    config = transformers.Llama4TextConfig(
        vocab_size=45, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        intermediate_size=64, intermediate_size_mlp=64, num_local_experts=2, pad_token_id=0, initializer_range=0.1,
        **ALONG[name],
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    draw = torch.Generator().manual_seed(1)
    lengths = [60, 20, 18, 30, 9]
    sequences = [([3], torch.randint(2, 45, (n,), generator=draw).tolist()) for n in lengths]
    together = score_sequences(split := split_model(model), sequences)
    for one, found in zip(sequences, together, strict=True):
        assert found == pytest.approx(score_sequences(split, [one])[0], abs=1e-4)


MOVING = {
    "longrope": {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "original_max_position_embeddings": 24},
    "dynamic": {"factor": 4.0, "original_max_position_embeddings": 24},
}


@pytest.mark.parametrize("kind", MOVING)
def test_what_a_token_is_judged_by_does_not_depend_on_the_longest_sequence_beside_it(kind: str) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=45, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        intermediate_size=64, max_position_embeddings=96, rope_scaling={"rope_type": kind} | MOVING[kind],
    )  # fmt: skip
    split = split_model(transformers.AutoModelForCausalLM.from_config(config).float().eval())
    short, limit, long = ([3], [5] * 8), ([3], [6] * 23), ([3], [6] * 40)
    together, alone = score_sequences(split, [short, limit])[0], score_sequences(split, [short])[0]
    assert together == pytest.approx(alone, abs=1e-5)
    with pytest.raises(
        UserError, match=f"reads at most 24 tokens .with its {kind} positions, longer ones would change"
    ):
        score_sequences(split, [short, long])


def test_an_id_that_the_model_has_no_place_for_is_named_before_a_gpu_could_choke_on_it(tmp_path: Path) -> None:
    path = save_model(tmp_path, "llama", seed=0, tied=True)
    split = split_model(load_causal_lm(Pretrained(str(path)), torch.float32).eval())
    with pytest.raises(UserError, match="writes the id 999: tokens were added without resizing its embedding"):
        score_sequences(split, [([3], [4]), ([999], [4, 5])])


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


def test_single_tokens_that_bfloat16_rounds_to_others_make_no_neighbour_seen_and_all_of_them_do() -> None:
    own = torch.randn(8, 45, generator=torch.Generator().manual_seed(0))
    rounded, moved = own.clone(), own.roll(1, 0)  # as positions are that are counted along the row
    rounded[[2, 5, 6]] = own[[5, 6, 2]]
    assert apart(own, [rounded, rounded], 3.0)
    assert not apart(own, [moved, moved], 3.0)
    assert not apart(own, [rounded, own], 3.0)  # one neighbour makes another of it than the other does


def test_a_model_of_zeros_is_refused(tmp_path: Path) -> None:
    model = load_causal_lm(Pretrained(str(save_model(tmp_path, "qwen3", seed=0, tied=False))), torch.float32)
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    with pytest.raises(UserError, match="finds every token as likely as any: its weights are zeros"):
        split_model(model)


def test_a_model_that_cannot_be_taken_apart_is_one_line(tmp_path: Path) -> None:
    path = save_model(tmp_path, "qwen3", seed=0, tied=True)
    model = load_causal_lm(Pretrained(str(path)), torch.float32)
    model.get_decoder = lambda: None
    with pytest.raises(UserError, match=r"Qwen3ForCausalLM cannot be taken into body and head .*TypeError"):
        split_model(model)
