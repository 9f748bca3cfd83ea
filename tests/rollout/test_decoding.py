"""The decoding loop of the transformers engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, DeepseekV32Config, Gemma3TextConfig, MambaConfig, Qwen3Config

from opd.rollout.decoding import Anew, Cached, decode, decode_mixed, mixture, way_to_read
from opd.types import Sampling

SHAPE: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
# Gemma 3 mixes layers that see everything with ones that see a window of 8 tokens.
CONFIGS = [Qwen3Config(**SHAPE), Gemma3TextConfig(**SHAPE, sliding_window=8)]
PROMPTS = [(5,), (3, 4), (7, 8, 9, 10, 11, 12, 13, 14, 15, 16), *[(place % 40, 2) for place in range(30)]]
SAMPLING = Sampling(max_tokens=24, stop=(1, 2, 3))


@pytest.fixture(params=CONFIGS, ids=["full", "window"])
def network(request: pytest.FixtureRequest) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(request.param).float().eval()


def test_a_completion_does_not_depend_on_its_batch(network: Any) -> None:
    together = decode(network, PROMPTS, range(len(PROMPTS)), SAMPLING)
    alone = [decode(network, [prompt], [seed], SAMPLING)[0] for seed, prompt in enumerate(PROMPTS)]
    lengths = {len(ids) for ids, _, _ in together}
    assert len(lengths) > 3  # so that rows were dropped on the way
    for (ids, logprobs, truncated), (own_ids, own_logprobs, own_truncated) in zip(together, alone, strict=True):
        assert (ids, truncated) == (own_ids, own_truncated)
        assert logprobs == pytest.approx(own_logprobs, abs=1e-4)


def test_all_read_anew_gives_what_the_cache_gives(network: Any) -> None:
    assert way_to_read(network) is Cached
    cached = decode(network, PROMPTS, range(len(PROMPTS)), SAMPLING)
    for (ids, logprobs, cut), other in zip(
        cached, decode(network, PROMPTS, range(len(PROMPTS)), SAMPLING, Anew), strict=True
    ):
        assert (ids, cut) == (other[0], other[2])
        assert logprobs == pytest.approx(other[1], abs=1e-4)


def test_a_model_without_a_cache_that_rows_can_be_taken_from_reads_anew() -> None:
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=40, hidden_size=32, num_hidden_layers=2, state_size=8, initializer_range=0.3)
    network = AutoModelForCausalLM.from_config(config).float().eval()
    assert way_to_read(network) is Anew
    together = decode(network, PROMPTS, range(len(PROMPTS)), SAMPLING, Anew)
    alone = [decode(network, [prompt], [seed], SAMPLING, Anew)[0] for seed, prompt in enumerate(PROMPTS)]
    assert [t[0] for t in together] == [t[0] for t in alone]


def test_every_completion_ends_at_its_first_stop_token(network: Any) -> None:
    for ids, logprobs, truncated in decode(network, PROMPTS, range(len(PROMPTS)), SAMPLING):
        assert not {1, 2, 3} & set(ids[:-1])
        assert truncated == (ids[-1] not in (1, 2, 3))
        assert len(ids) == len(logprobs)
        assert not truncated or len(ids) == SAMPLING.max_tokens


def other_network(vocab: int = 40) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return AutoModelForCausalLM.from_config(Qwen3Config(**SHAPE | {"vocab_size": vocab})).float().eval()


def forced(network: Any, prompt: tuple[int, ...], completion: tuple[int, ...]) -> torch.Tensor:
    """Log-probs [T, V] that a network gives to every next token of a completion."""
    with torch.no_grad():
        logits = network(input_ids=torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1)


def test_mixed_completions_carry_the_mixtures_log_probs_and_the_first_networks_own(network: Any) -> None:
    other = other_network()
    shown = [(6, 6, *prompt) for prompt in PROMPTS]
    drawn = decode_mixed(network, other, PROMPTS, shown, 0.3, range(len(PROMPTS)), SAMPLING)
    for prompt, theirs, ((ids, logprobs, _), own) in zip(PROMPTS, shown, drawn, strict=True):
        log_pi, log_q = forced(network, prompt, ids), forced(other, theirs, ids)
        chosen = torch.tensor(ids)[:, None]
        assert own == pytest.approx(log_pi.gather(1, chosen)[:, 0].tolist(), abs=1e-4)
        mixed = (0.3 * log_q.exp() + 0.7 * log_pi.exp()).log().gather(1, chosen)[:, 0]
        assert logprobs == pytest.approx(mixed.tolist(), abs=1e-4)


def test_a_share_of_nothing_is_the_network_alone_and_a_share_of_all_the_other_one(network: Any) -> None:
    other, seeds = other_network(), range(len(PROMPTS))
    for alpha, alone in ((0.0, network), (1.0, other)):
        drawn = decode_mixed(network, other, PROMPTS, PROMPTS, alpha, seeds, SAMPLING)
        expected = decode(alone, PROMPTS, seeds, SAMPLING)
        assert [ids for (ids, _, _), _ in drawn] == [ids for ids, _, _ in expected]


@pytest.mark.parametrize("vocab", [36, 44])
def test_an_output_head_of_another_size_writes_only_what_both_have(network: Any, vocab: int) -> None:
    other = other_network(vocab)
    drawn = decode_mixed(network, other, PROMPTS, PROMPTS, 1.0, range(len(PROMPTS)), SAMPLING)
    assert all(token < min(40, vocab) for (ids, _, _), _ in drawn for token in ids)


def test_a_mixture_is_a_distribution() -> None:
    log_pi, log_q = torch.randn(5, 9).log_softmax(-1), torch.randn(5, 7).log_softmax(-1)
    for alpha in (0.0, 0.2, 1.0):
        assert mixture(log_pi, log_q, alpha).exp().sum(-1) == pytest.approx(torch.ones(5))


def test_a_model_that_counts_along_the_row_is_not_shown_padding() -> None:
    torch.manual_seed(0)
    config = DeepseekV32Config(
        **SHAPE | {"num_key_value_heads": 2}, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=16,
        v_head_dim=16, index_topk=8, index_head_dim=32, index_n_heads=32, n_routed_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=32, n_group=1, topk_group=1, pad_token_id=0,
    )  # fmt: skip
    network = AutoModelForCausalLM.from_config(config).float().eval()
    assert way_to_read(network) is Anew
    prompts = PROMPTS[1:4]  # of which none gives two tokens the same score, between which torch picks by their number
    together = decode(network, prompts, range(1, 4), SAMPLING, Anew)
    for prompt, (ids, logprobs, _) in zip(prompts, together, strict=True):
        read = network(torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        own = read.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0].tolist()
        assert logprobs == pytest.approx(own, abs=1e-4)


def test_the_head_meets_rows_that_lie_together_in_bfloat16() -> None:
    # Of rows with others between them torch makes a matrix each, and oneDNN copies the whole head to every one of them.
    torch.manual_seed(0)
    network: Any = AutoModelForCausalLM.from_config(CONFIGS[0]).bfloat16().eval()
    met: list[bool] = []
    network.lm_head.register_forward_pre_hook(lambda _, given: met.append(given[0].is_contiguous()))
    decode(network, PROMPTS, range(len(PROMPTS)), SAMPLING)
    assert len(met) > 2
    assert all(met)
