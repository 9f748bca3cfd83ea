"""Operations of networks, against torch's own counter and numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    DeepseekV32Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MixtralConfig,
    OPTConfig,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    Qwen3NextConfig,
    RwkvConfig,
)  # fmt: skip
from transformers.pytorch_utils import Conv1D

from opd.batch import to_batch
from opd.learner.config import Lora, StudentConfig
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.objectives.sft import SFT
from opd.run.cost import Architecture, Flops, backward, contexts, forward
from opd.run.ledger import architecture, weights_of_adapters
from tests.tiny import rollouts, save_model, scored

SHAPES = [(20, 100), (20, 100), (20, 100)]
"""Sequences of one length: none is padded or packed, so that the counter sees what is counted."""
SIZES = {
    "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 24, "vocab_size": 45,
}  # fmt: skip


def known(config: object) -> Architecture:
    found = Architecture.of(config)
    assert found is not None
    return found


def whole_square(f: Flops) -> Flops:
    """What the counter sees: it does not know that the mask leaves half of attention out."""
    n = 119
    return Flops(f.linear, f.attention * n * n / contexts(n), f.head, f.adapters)


@pytest.mark.parametrize("cls", [LlamaConfig, Qwen3Config, GPT2Config, GPTNeoXConfig, OPTConfig])
@pytest.mark.parametrize("tied", [False, True])
def test_linear_weights_are_those_of_the_model(cls: type, tied: bool) -> None:
    config = cls(**SIZES, tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_config(config)
    own = [m.weight.numel() for m in model.get_decoder().modules() if isinstance(m, (torch.nn.Linear, Conv1D))]
    assert known(config).linear == sum(own)
    assert known(config).head == 64 * 45


def test_gpt2s_mlp_has_two_matrices_of_four_times_the_width() -> None:
    a = known(GPT2Config(n_embd=64, n_layer=3, n_head=4, vocab_size=45))
    assert a == Architecture(linear=3 * (4 + 2 * 4) * 64**2, attention=3 * 4 * 64, near=0, window=0, head=64 * 45)


EXPERTS = SIZES | {"num_experts_per_tok": 2, "moe_intermediate_size": 48}
ATTENTION, MLP = 2 * 64 * (4 + 2) * 24, 3 * 64 * 160


def test_a_token_is_multiplied_with_its_routers_and_chosen_experts() -> None:
    mixtral = known(MixtralConfig(**SIZES, num_local_experts=6, num_experts_per_tok=2))
    assert mixtral.linear == 3 * (ATTENTION + 64 * 6 + 2 * MLP)
    sparse = ATTENTION + 64 * 10 + 2 * 3 * 64 * 48
    every = known(Qwen3MoeConfig(**EXPERTS, num_experts=10))
    assert every.linear == 3 * sparse
    second = known(Qwen3MoeConfig(**EXPERTS, num_experts=10, decoder_sparse_step=2))
    assert second.linear == sparse + 2 * (ATTENTION + MLP)
    named = known(Qwen3MoeConfig(**EXPERTS, num_experts=10, mlp_only_layers=[2]))
    assert named.linear == 2 * sparse + ATTENTION + MLP


def test_shared_experts_are_every_tokens() -> None:
    sizes = {k: v for k, v in EXPERTS.items() if k != "head_dim"}
    a = known(Qwen2MoeConfig(**sizes, num_experts=10, shared_expert_intermediate_size=32))
    attention, shared, gate = 2 * 64 * (4 + 2) * 16, 3 * 64 * 32, 64
    assert a.linear == 3 * (attention + 64 * 10 + 2 * 3 * 64 * 48 + shared + gate)


def test_all_experts_chosen_are_all_their_weights() -> None:
    config = Qwen3MoeConfig(**(EXPERTS | {"num_experts_per_tok": 5}), num_experts=5)
    body = AutoModelForCausalLM.from_config(config).get_decoder()
    matrices = [p.numel() for name, p in body.named_parameters() if p.dim() > 1 and "embed" not in name]
    assert known(config).linear == sum(matrices)


UNKNOWN = {
    "recurrence": MambaConfig(hidden_size=64, num_hidden_layers=2, vocab_size=45),
    "without attention": RwkvConfig(hidden_size=64, attention_hidden_size=64, num_hidden_layers=2, vocab_size=45),
    "linear attention": Qwen3NextConfig(**EXPERTS, num_experts=4),
    "local attention": GPTNeoConfig(hidden_size=64, num_layers=2, attention_types=[[["global", "local"], 1]]),
    "sparse attention": DeepseekV32Config(hidden_size=64, num_hidden_layers=2, vocab_size=45),
}


@pytest.mark.parametrize("config", UNKNOWN.values(), ids=UNKNOWN)
def test_networks_that_do_other_things_are_not_counted(config: object) -> None:
    assert Architecture.of(config) is None


def test_counting_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    known(LlamaConfig(**SIZES, rms_norm_eps=1e-4))  # a config that no other test counts
    assert torch.equal(before, torch.get_rng_state())


def loaded(folder: Path, lora: Lora | None = None, checkpointing: bool = False) -> Student:
    """A learner whose experts multiply one after the other: torch's counter does not see grouped products."""
    config = StudentConfig(str(folder), "float32", lora, checkpointing, attention="eager", device="cpu")
    student = Student.load(config, Optim(lr=1e-3), 1.0)
    student.split.model.set_experts_implementation("eager")
    return student


KINDS = ["llama", "qwen3", "gpt2", "gpt_neox", "mixtral", "qwen2_moe", "qwen3_moe"]
LORA = Lora(rank=8)
STEPS = [(k, None, again) for k in KINDS for again in (False, True)] + [
    (k, LORA, False) for k in [*KINDS[:3], KINDS[5]]
]


@pytest.mark.parametrize(("kind", "lora", "checkpointing"), STEPS)
def test_a_step_of_the_learner_has_the_operations_that_torch_counts(
    kind: str, lora: Lora | None, checkpointing: bool, tmp_path: Path
) -> None:
    student = loaded(save_model(tmp_path, kind, seed=0, tied=False, hidden=128, layers=4), lora, checkpointing)
    batch = to_batch(scored(rollouts(SHAPES)), 0, 256)
    assert batch.padding == 0
    with FlopCounterMode(display=False) as counter:
        student.update(batch, SFT(), 1e-3)
    shape = architecture(student.split)
    assert shape is not None
    there = whole_square(forward(shape, SHAPES, batch.trained, weights_of_adapters(student.model)))
    expected = there.total + backward(there, frozen=lora is not None, checkpointing=checkpointing)
    # On its second way forward torch leaves out the last product of every layer; a frozen first layer hands no gradient
    # on.
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.08 if checkpointing else 0.04 if lora else 0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_reading_has_the_operations_that_torch_counts(kind: str, tmp_path: Path) -> None:
    student = loaded(save_model(tmp_path, kind, seed=0, tied=True, hidden=96, layers=3))
    pairs = [(r.prompt.tokens, r.tokens) for r in rollouts(SHAPES)]
    with FlopCounterMode(display=False) as counter:
        student.logprobs(pairs)
    shape = architecture(student.split)
    assert shape is not None
    there = whole_square(forward(shape, SHAPES, sum(c for _, c in SHAPES)))
    assert counter.get_total_flops() == pytest.approx(there.total, rel=0.01)


def test_adapters_beside_the_experts_of_a_mixture_are_counted(tmp_path: Path) -> None:
    student = loaded(save_model(tmp_path, "mixtral", seed=0, tied=False), Lora(rank=8, targets=("q_proj", "o_proj")))
    weights = sum(p.numel() for p in student.model.parameters() if p.requires_grad)
    assert weights_of_adapters(student.model) == weights > 0
    assert architecture(student.split) is not None


def test_contexts_are_those_of_a_causal_mask_and_end_at_the_window() -> None:
    assert contexts(5) == 1 + 2 + 3 + 4 + 5
    assert contexts(5, 2) == 1 + 2 + 2 + 2 + 2
    assert contexts(2, 8) == contexts(2)
    assert contexts(0) == 0


def test_layers_with_a_window_look_no_further() -> None:
    sizes = SIZES | {"sliding_window": 8, "layer_types": ["sliding_attention"] * 2 + ["full_attention"]}
    a = known(Gemma3TextConfig(**sizes))
    assert (a.window, a.attention, a.near) == (8, 4 * 4 * 24, 2 * 4 * 4 * 24)
    seen = 2 * contexts(119, 8) + contexts(119)
    assert forward(a, [(20, 100)], 0).attention == 4 * 4 * 24 * seen


def test_costs_add_up_over_sequences_and_empty_completions_cost_nothing() -> None:
    a = known(LlamaConfig(**SIZES))
    parts = [forward(a, [pair], 7).total for pair in [(3, 9), (4, 2)]]
    assert forward(a, [(3, 9), (4, 2), (5, 0)], 14).total == pytest.approx(sum(parts))


def test_the_way_back_is_twice_the_way_there_and_less_over_a_frozen_base() -> None:
    f = Flops(linear=100.0, attention=10.0, head=20.0)
    assert backward(f) == 260.0
    assert backward(f, checkpointing=True) == 370.0
    assert backward(f, frozen=True) == 140.0
