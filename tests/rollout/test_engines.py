"""Both engines keep the same promises."""

from __future__ import annotations

import _thread
import gc
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DeepseekV3Config, FalconH1Config, LlamaConfig, Qwen3Config

from opd.rollout.hf import Hf
from opd.rollout.repetition import loops
from opd.rollout.vllm import Vllm
from opd.types import Example, Prompt, Repetition, Rollout, Sampling, UserError
from opd.writing import Engine, Sampler

VOCAB, STOP, MAX_LEN = 48, 1, 64
TOLERANCE = 1e-4
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": MAX_LEN,
    "initializer_range": 0.3,  # so that distributions are far from uniform, and far from each other's
    "eos_token_id": STOP,
    "pad_token_id": STOP,
    "dtype": "float32",
}
MODELS = {
    "tied": Qwen3Config(tie_word_embeddings=True, **SHAPE),
    "untied": LlamaConfig(tie_word_embeddings=False, **SHAPE),
}
HEAVY = (pytest.mark.vllm, pytest.mark.slow)
KINDS = [pytest.param("hf", id="hf"), pytest.param("vllm", id="vllm", marks=HEAVY)]
CASES = [
    pytest.param((kind.values[0], name), id=f"{kind.id}-{name}", marks=kind.marks) for kind in KINDS for name in MODELS
]
PROMPTS = [Prompt(Example("a", ()), (3, 4, 5)), Prompt(Example("b", ()), (7, 8, 9, 10, 11, 12, 13))]


@dataclass(frozen=True)
class Running:
    """An engine with the models that it may hold."""

    sampler: Sampler
    model: Any
    """The one that it was started with."""
    other: Any
    """One of the same shape and other weights."""


def make_model(name: str, seed: int) -> Any:
    """Make a random model, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(MODELS[name]).float().eval()


def make_engine(kind: str) -> Engine:
    """Give the settings of an engine, or skip where it is not installed."""
    if kind == "hf":
        return Hf(dtype="float32", device="cpu", batch_size=4, score_tokens=64)
    pytest.importorskip("vllm")
    return Vllm(dtype="float32", memory_gb=0.25, max_num_seqs=64)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Save every model without a tokenizer: no engine may ask for one."""
    root = tmp_path_factory.mktemp("models")
    for name in MODELS:
        make_model(name, 0).save_pretrained(root / name)
    return {name: root / name for name in MODELS}


@pytest.fixture(scope="module", params=CASES)
def running(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Iterator[Running]:
    """Start an engine of each kind on each model, one after the other in one process."""
    kind, name = request.param
    sampler = make_engine(kind).start(str(folders[name]), max_len=MAX_LEN, seed=0)
    yield Running(sampler, make_model(name, 0), make_model(name, 1))
    sampler.close()


def logits(model: Any, prompt: tuple[int, ...], completion: tuple[int, ...]) -> Tensor:
    """Give the logits [T, V] that a model predicts a completion's tokens with."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1].float()


def gap(model: Any, rollouts: list[Rollout], temperature: float = 1.0) -> float:
    """Give the largest difference between the returned and the teacher-forced log-probs."""
    gaps = []
    for rollout in rollouts:
        all_TV = (logits(model, rollout.prompt.tokens, rollout.tokens) / temperature).log_softmax(-1)
        own_T = all_TV.gather(-1, torch.tensor(rollout.tokens)[:, None])[:, 0]
        gaps.append((own_T - torch.tensor(rollout.logprobs)).abs().max())
    return float(max(gaps))


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_works_again_on_another_architecture_after_closing(kind: str, folders: dict[str, Path]) -> None:
    # First in this file, so that no other engine runs meanwhile.
    threads = torch.get_num_threads()
    for name in ("tied", "untied", "tied"):
        sampler = make_engine(kind).start(str(folders[name]), max_len=MAX_LEN, seed=0)
        rollouts = sampler.sample(PROMPTS, Sampling(max_tokens=8))
        sampler.close()
        sampler.close()
        assert gap(make_model(name, 0), rollouts) < TOLERANCE
    assert not torch.distributed.is_initialized()
    assert torch.get_num_threads() == threads
    torch.set_num_threads(threads + 1)
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", KINDS)
def test_two_engines_in_one_process_do_not_disturb_each_other(kind: str, folders: dict[str, Path]) -> None:
    one = make_engine(kind).start(str(folders["tied"]), max_len=MAX_LEN, seed=0)
    other = make_engine(kind).start(str(folders["untied"]), max_len=MAX_LEN, seed=0)
    one.load_weights(make_model("tied", 1).state_dict().items(), 1)
    assert gap(make_model("tied", 1), one.sample(PROMPTS, Sampling(max_tokens=8))) < TOLERANCE
    assert gap(make_model("untied", 0), other.sample(PROMPTS, Sampling(max_tokens=8))) < TOLERANCE
    one.close()
    assert gap(make_model("untied", 0), other.sample(PROMPTS, Sampling(max_tokens=8))) < TOLERANCE
    other.close()


LATE: dict[str, Any] = {
    "experts": DeepseekV3Config(
        **SHAPE | {"num_key_value_heads": 2, "head_dim": 64}, q_lora_rank=None, kv_lora_rank=512, qk_nope_head_dim=32,
        qk_rope_head_dim=64, v_head_dim=32, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
        n_shared_experts=1, n_group=1, topk_group=1, first_k_dense_replace=1, topk_method="noaux_tc",
        scoring_func="sigmoid", tie_word_embeddings=False,
    ),
    "states": FalconH1Config(
        **SHAPE, mamba_n_heads=4, mamba_d_head=32, mamba_d_state=16, mamba_chunk_size=16, mamba_d_ssm=128,
        mamba_n_groups=1, tie_word_embeddings=False,
    ),
}  # fmt: skip
"""Heads that are turned apart from their rest, a group of experts, and states beside the cache."""


@pytest.mark.vllm
@pytest.mark.slow
def test_experts_latent_heads_and_states_are_computed_rightly_beside_a_dense_engine(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    dense = make_engine("vllm").start(str(folders["untied"]), max_len=MAX_LEN, seed=0)
    for name, config in LATE.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config).float().eval()
        model.save_pretrained(tmp_path / name)
        late = make_engine("vllm").start(str(tmp_path / name), max_len=MAX_LEN, seed=0)
        assert gap(model, late.sample(PROMPTS, Sampling(max_tokens=8))) < TOLERANCE, name
        late.close()
    assert gap(make_model("untied", 0), dense.sample(PROMPTS, Sampling(max_tokens=8))) < TOLERANCE
    dense.close()


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_works_in_silence_and_leaves_the_process_as_it_was(
    folders: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    state = torch.get_rng_state()
    foreign = {key: value for key, value in os.environ.items() if not key.startswith("VLLM_")}
    sampler = make_engine("vllm").start(str(folders["tied"]), max_len=MAX_LEN, seed=0)
    sampler.sample(PROMPTS, Sampling(max_tokens=8))
    sampler.load_weights(make_model("tied", 1).state_dict().items(), 1)
    sampler.close()
    assert capfd.readouterr() == ("", "")
    assert torch.equal(state, torch.get_rng_state())
    assert foreign == {key: value for key, value in os.environ.items() if not key.startswith("VLLM_")}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_cannot_be_loaded_is_one_line(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no causal language model could be loaded"):
        make_engine(kind).start(str(tmp_path), max_len=MAX_LEN, seed=0)
    with pytest.raises(UserError, match=f"reads at most {MAX_LEN} tokens; lower data.max_prompt_tokens"):
        make_engine(kind).start(str(folders["tied"]), max_len=MAX_LEN + 1, seed=0)


def test_a_completion_that_could_outgrow_the_engine_is_refused(running: Running) -> None:
    running.sampler.sample(PROMPTS, Sampling(max_tokens=MAX_LEN - 7))
    with pytest.raises(UserError, match="a prompt of 7 tokens and max_tokens=58 are more than the 64"):
        running.sampler.sample(PROMPTS, Sampling(max_tokens=MAX_LEN - 6))


def test_greedy_tokens_are_those_of_transformers(running: Running) -> None:
    rollouts = running.sampler.sample(PROMPTS, Sampling(max_tokens=16, temperature=0))
    for prompt, rollout in zip(PROMPTS, rollouts, strict=True):
        ids = torch.tensor([prompt.tokens])
        expected = running.model.generate(ids, max_new_tokens=16, do_sample=False, eos_token_id=None)
        assert rollout.tokens == tuple(expected[0, ids.shape[1] :].tolist())
    assert gap(running.model, rollouts) < TOLERANCE


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.5])
def test_logprobs_are_those_of_the_sampling_temperature(running: Running, temperature: float) -> None:
    rollouts = running.sampler.sample(PROMPTS, Sampling(max_tokens=16, n=4, temperature=temperature, stop=(STOP,)))
    assert gap(running.model, rollouts, temperature) < TOLERANCE


def test_top_p_logprobs_are_those_of_the_renormalised_nucleus(running: Running) -> None:
    rollouts = running.sampler.sample(PROMPTS, Sampling(max_tokens=16, n=4, top_p=0.6, temperature=0.9))
    for rollout in rollouts:
        probs_TV = (logits(running.model, rollout.prompt.tokens, rollout.tokens) / 0.9).softmax(-1)
        for probs_V, token, logprob in zip(probs_TV, rollout.tokens, rollout.logprobs, strict=True):
            nucleus = []
            for candidate in probs_V.argsort(descending=True).tolist():
                nucleus.append(candidate)
                if probs_V[nucleus].sum() >= 0.6:
                    break
            assert token in nucleus
            assert logprob == pytest.approx(float((probs_V[token] / probs_V[nucleus].sum()).log()), abs=TOLERANCE)


def test_top_k_of_one_is_greedy_and_certain(running: Running) -> None:
    greedy = running.sampler.sample(PROMPTS, Sampling(max_tokens=8, temperature=0))
    rollouts = running.sampler.sample(PROMPTS, Sampling(max_tokens=8, top_k=1))
    assert [rollout.tokens for rollout in rollouts] == [rollout.tokens for rollout in greedy]
    assert all(logprob == pytest.approx(0, abs=TOLERANCE) for rollout in rollouts for logprob in rollout.logprobs)


def test_same_seed_gives_same_samples_and_another_seed_others(running: Running) -> None:
    def draw(seed: int) -> list[tuple[int, ...]]:
        rollouts = running.sampler.sample(PROMPTS, Sampling(max_tokens=16, n=3, seed=seed))
        return [rollout.tokens for rollout in rollouts]

    assert draw(5) == draw(5)
    assert all(one != other for one, other in zip(draw(5), draw(6), strict=True))


def test_a_request_draws_the_same_whatever_else_is_asked_for(running: Running) -> None:
    alone = running.sampler.sample(PROMPTS[:1], Sampling(max_tokens=16, n=2, seed=3))
    among = running.sampler.sample([PROMPTS[0], *PROMPTS[1:] * 3], Sampling(max_tokens=16, n=2, seed=3))
    assert [rollout.tokens for rollout in alone] == [rollout.tokens for rollout in among[:2]]


def test_sampling_leaves_torchs_random_state_alone(running: Running) -> None:
    before = torch.get_rng_state()
    running.sampler.sample(PROMPTS, Sampling(max_tokens=4, n=2))
    assert torch.equal(before, torch.get_rng_state())


def test_samples_of_a_prompt_differ_and_stay_together_in_prompt_order(running: Running) -> None:
    rollouts = running.sampler.sample(PROMPTS, Sampling(max_tokens=16, n=4))
    assert [rollout.prompt for rollout in rollouts] == [prompt for prompt in PROMPTS for _ in range(4)]
    assert len({rollout.tokens for rollout in rollouts}) == len(rollouts)


def test_the_stop_token_ends_a_completion_and_is_kept(running: Running) -> None:
    free = running.sampler.sample(PROMPTS, Sampling(max_tokens=16, n=16, seed=2))
    rollouts = running.sampler.sample(PROMPTS, Sampling(max_tokens=16, n=16, seed=2, stop=(STOP, 2)))
    stopped = [rollout for rollout in rollouts if not rollout.truncated]
    assert stopped
    assert len(stopped) < len(rollouts)
    for before, rollout in zip(free, rollouts, strict=True):
        ends = [place for place, token in enumerate(before.tokens) if token in (STOP, 2)]
        assert rollout.tokens == before.tokens[: ends[0] + 1 if ends else None]
        assert rollout.truncated == (not ends)
        assert len(rollout.tokens) == len(rollout.logprobs)


def test_a_completion_that_repeats_itself_is_cut_where_it_first_does(running: Running) -> None:
    rule, n = Repetition(longest=3, times=2), 16
    plain = running.sampler.sample(PROMPTS, Sampling(max_tokens=20, n=n, seed=3))
    ended = running.sampler.sample(PROMPTS, Sampling(max_tokens=20, n=n, seed=3, repetition=rule))
    for whole, cut in zip(plain, ended, strict=True):
        first = next((k for k in range(1, 21) if loops(whole.tokens[:k], rule)), 20)
        assert cut.tokens == whole.tokens[:first]
        assert len(cut.logprobs) == first
        assert cut.truncated
    assert sum(len(r.tokens) < 20 for r in ended) > 0
    assert gap(running.model, ended) < TOLERANCE


def test_nothing_stops_a_completion_that_was_not_told_to(running: Running) -> None:
    rollouts = running.sampler.sample(PROMPTS, Sampling(max_tokens=16, n=16, seed=2))
    assert any(STOP in rollout.tokens for rollout in rollouts)
    assert all(len(rollout.tokens) == 16 and rollout.truncated for rollout in rollouts)


def test_scores_agree_with_a_forward_pass(running: Running) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCAB, (6, MAX_LEN), generator=generator).tolist()
    sequences = [(row[:5], row[5 : 5 + length]) for row, length in zip(tokens, (1, 30, 0, 7, 58, 59), strict=True)]
    for _ in range(2):  # the second time every prefix is in the cache
        scores = running.sampler.logprobs(sequences)
        assert [len(row) for row in scores] == [len(completion) for _, completion in sequences]
        for (prompt, completion), row in zip(sequences, scores, strict=True):
            all_TV = logits(running.model, tuple(prompt), tuple(completion)).log_softmax(-1)
            own_T = all_TV.gather(-1, torch.tensor(completion, dtype=torch.long)[:, None])[:, 0]
            assert torch.allclose(own_T, torch.tensor(row), atol=TOLERANCE)


@pytest.mark.parametrize("naming", ["state_dict", "parameters"])
def test_samples_and_scores_come_from_pushed_weights(running: Running, naming: str) -> None:
    sampler, sampling = running.sampler, Sampling(max_tokens=16, n=4, stop=(STOP,))

    def push(model: Any, version: int) -> None:
        sampler.load_weights(
            model.state_dict().items() if naming == "state_dict" else model.named_parameters(), version
        )

    assert sampler.sample(PROMPTS, sampling)[0].version == 0
    push(running.other, 3)
    try:
        rollouts = sampler.sample(PROMPTS, sampling)
        scores = sampler.logprobs([(rollout.prompt.tokens, rollout.tokens) for rollout in rollouts])
    finally:
        push(running.model, 0)
    assert gap(running.other, rollouts) < TOLERANCE
    assert gap(running.model, rollouts) > 1
    assert all(rollout.version == 3 for rollout in rollouts)
    for rollout, row in zip(rollouts, scores, strict=True):
        assert row == pytest.approx(rollout.logprobs, abs=TOLERANCE)
    assert gap(running.model, sampler.sample(PROMPTS, sampling)) < TOLERANCE


def test_pushed_weights_are_copied(running: Running) -> None:
    mine = {name: tensor.clone() for name, tensor in running.model.state_dict().items()}
    running.sampler.load_weights(mine.items(), 0)
    for tensor in mine.values():
        tensor.zero_()
    assert gap(running.model, running.sampler.sample(PROMPTS, Sampling(max_tokens=16, n=4))) < TOLERANCE


@pytest.fixture
def plain_gc() -> Iterator[None]:
    """No callbacks in the garbage collector: an interrupt that falls into one (hypothesis leaves one) is swallowed."""
    callbacks, gc.callbacks[:] = gc.callbacks[:], []
    yield
    gc.callbacks[:] = callbacks


@pytest.mark.usefixtures("plain_gc")
def test_an_interrupted_call_leaves_the_engine_usable(running: Running) -> None:
    sampling = Sampling(max_tokens=32, n=4, seed=9)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert handlers[0] is signal.default_int_handler
    expected = running.sampler.sample(PROMPTS, sampling)
    threading.Timer(0.05, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        running.sampler.sample(PROMPTS * 500, sampling)
    assert running.sampler.sample(PROMPTS, sampling) == expected
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_more_prompts_than_one_scheduling_step_holds(running: Running) -> None:
    # Together they are longer than what an engine reads at once: none of them may be read in parts.
    many = [replace(PROMPTS[0], tokens=tuple(2 + (i * 7 + j) % 40 for j in range(20))) for i in range(400)]
    drawn = running.sampler.sample(many, Sampling(max_tokens=3, seed=5))
    assert [r.prompt for r in drawn] == many
    assert gap(running.model, drawn) < 1e-3
