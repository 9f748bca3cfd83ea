"""An engine whose model is on several devices writes, scores and takes weights as one that has it whole."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from opd.models.facts import read_facts
from opd.rollout.apart.fleet import Engines, Fleet
from opd.rollout.apart.kept import Kept, Reader, Shared
from opd.rollout.spread import push
from opd.rollout.vllm import Vllm
from opd.types import Pretrained
from tests.rollout.apart.test_faults import ends
from tests.rollout.apart.test_fleet import PROMPTS, SAMPLING, same
from tests.rollout.test_engines import MAX_LEN, TOLERANCE, gap

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
ENGINE = Vllm(dtype="float32", memory_gb=0.25, max_num_seqs=64)


def model(kind: str, seed: int) -> Any:
    """One whose heads two can share, and that the kernels of a processor know."""
    sizes: dict[str, Any] = {"vocab_size": 96, "hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    config = {"tied": transformers.LlamaConfig, "qwen3": transformers.Qwen3Config}[kind](
        **sizes, tie_word_embeddings=kind == "tied", head_dim=32, eos_token_id=1, bos_token_id=None
    )
    torch.manual_seed(seed)
    made = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.2)
    return made


@pytest.fixture(scope="module", params=["qwen3"])  # engines take their time to start
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def fleet(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp(kind)
    model(kind, 0).save_pretrained(folder)
    fleet = Engines(ENGINE, 1, timeout=300, tensor_parallel=2).start(str(folder), max_len=MAX_LEN, seed=0)
    yield fleet
    fleet.close()


def workers(fleet: Fleet) -> list[int]:
    """The processes that hold parts of the model."""
    (engine,) = fleet.pids
    children = Path(f"/proc/{engine}/task/{engine}/children").read_text().split()
    return [int(pid) for pid in children if "Worker" in Path(f"/proc/{pid}/cmdline").read_text()]


@pytest.mark.parametrize("kind", ["tied", "qwen3"], indirect=True, scope="module")
def test_it_writes_and_scores_with_the_learners_weights(fleet: Fleet, kind: str) -> None:
    for version in range(3):
        learner = model(kind, version)
        if version:
            fleet.load_weights(learner.state_dict().items(), version)
        drawn = fleet.sample(PROMPTS, SAMPLING)
        assert {r.version for r in drawn} == {version}
        assert len({r.tokens for r in drawn}) > 5
        assert gap(learner, [r for r in drawn if r.tokens]) < TOLERANCE
        scores = fleet.logprobs([(r.prompt.tokens, r.tokens) for r in drawn])
        for rollout, row in zip(drawn, scores, strict=True):
            assert row == pytest.approx(rollout.logprobs, abs=TOLERANCE)


class Asked(list[str]):
    """An engine that remembers what its workers are asked for."""

    def collective_rpc(self, method: str, args: tuple[Any, ...]) -> None:
        self.append(method)
        assert args[1]


def test_weights_that_are_too_few_are_refused_before_a_worker_takes_any(tmp_path: Path) -> None:
    learner, engine, kept = model("tied", 0), Asked(), Kept()
    learner.save_pretrained(tmp_path)
    facts = read_facts(Pretrained(str(tmp_path)))
    for few in (True, False):
        kept.fill(list(learner.state_dict().items())[: 3 if few else None], 1)
        with pytest.raises(ValueError, match="weights were pushed into a model of") if few else nullcontext():
            push(engine, Shared(Reader(), kept.places, kept.index), facts, devices=2)
        assert engine == ([] if few else ["opd_take"])


def test_signals_are_left_to_whoever_has_the_engine(fleet: Fleet) -> None:
    before, parts = fleet.sample(PROMPTS, SAMPLING), workers(fleet)
    assert len(parts) == 2
    for pid in (*fleet.pids, *parts):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
    assert same(fleet.sample(PROMPTS, SAMPLING), before)
    assert workers(fleet) == parts


def test_an_engine_that_loses_a_part_is_replaced_and_nothing_changes(fleet: Fleet) -> None:
    before, pids, parts = fleet.sample(PROMPTS, SAMPLING), fleet.pids, workers(fleet)
    told: list[str] = []
    fleet._watch._told = told.append
    os.kill(parts[1], signal.SIGKILL)
    assert same(fleet.sample(PROMPTS, SAMPLING), before)
    assert "it is started again" in "".join(told)
    assert fleet.pids != pids
    assert all(ends(pid) for pid in (*pids, *parts))


def test_no_part_outlives_an_engine_that_is_given_up_even_one_that_is_stopped(fleet: Fleet) -> None:
    engine, parts = fleet.pids, workers(fleet)
    for pid in (parts[0], *engine):
        os.kill(pid, signal.SIGSTOP)
    fleet._watch._engines[0].kill("it does not answer")
    assert all(ends(pid, 1) for pid in (*engine, *parts))
