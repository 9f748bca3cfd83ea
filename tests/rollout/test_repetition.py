"""Completions that go round in circles are ended, by the same rule in both engines, and counted as cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from opd.config.compose import load
from opd.rollout.decoding import decode
from opd.rollout.repetition import looping, loops
from opd.types import Repetition, UserError
from tests.rollout.test_decoding import PROMPTS, SAMPLING
from tests.rollout.test_decoding import network as network
from tests.sources.test_runs import QUICK, learned
from tests.tiny import cli_code

RULES = [Repetition(4, times=3), Repetition(1, times=2), Repetition(5, 2, 2), Repetition(2, 2, 3), Repetition(20, 1, 2)]


@pytest.mark.parametrize(
    ("tokens", "rule", "ends"),
    [
        ([5, 5, 5], Repetition(1, times=3), True),
        ([5, 5], Repetition(1, times=3), False),
        ([5, 5, 5], Repetition(3, 2, times=3), False),
        ([1, 2, 1, 2, 1, 2], Repetition(2, times=3), True),
        ([9, 1, 2, 1, 2, 1, 2], Repetition(2, times=3), True),
        ([1, 2, 1, 2, 1, 2, 9], Repetition(2, times=3), False),
        ([1, 2, 3, 1, 2, 3], Repetition(2, times=2), False),
        ([1, 2, 3, 1, 2, 3], Repetition(3, times=2), True),
        ([], Repetition(3, times=2), False),
        ([5] * 100, Repetition(), False),
    ],
)
def test_a_loop_is_a_pattern_that_ends_the_tokens_so_many_times(
    tokens: list[int], rule: Repetition, ends: bool
) -> None:
    assert loops(tokens, rule) is ends


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_is_the_one_of_vllm(rule: Repetition) -> None:
    utils = pytest.importorskip("vllm.v1.core.sched.utils")
    theirs = SimpleNamespace(max_pattern_size=rule.longest, min_pattern_size=rule.shortest, min_count=rule.times)
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 2, rng.integers(0, 16)).tolist() for _ in range(400)]
    found = [loops(row, rule) for row in rows]
    assert found == [utils.check_sequence_repetition(row, theirs) for row in rows]
    assert 0 < sum(found) < len(rows)


def test_rows_of_torch_are_judged_as_those_of_numpy() -> None:
    rows = np.random.default_rng(1).integers(0, 2, (200, 9))
    for rule in RULES:
        assert looping(torch.from_numpy(rows), rule).tolist() == looping(rows, rule).tolist()


def test_an_engine_ends_each_completion_at_its_first_loop_and_all_else_is_as_it_was(network: Any) -> None:
    rule, seeds = Repetition(3, times=2), range(len(PROMPTS))
    plain = decode(network, PROMPTS, seeds, SAMPLING)
    ended = decode(network, PROMPTS, seeds, replace(SAMPLING, repetition=rule))
    cut = 0
    for (ids, logprobs, truncated), (own, own_logprobs, own_truncated) in zip(plain, ended, strict=True):
        first = next((n for n in range(1, len(ids) + 1) if loops(ids[:n], rule) and ids[n - 1] not in SAMPLING.stop), 0)
        assert own == (ids[:first] if first else ids)
        assert own_logprobs == pytest.approx(logprobs[: len(own)], abs=1e-4)
        assert own_truncated == (truncated or bool(first))
        cut += bool(first)
    assert 0 < cut < len(PROMPTS)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["longest=2", "shortest=3"], "longest=2: allowed is at least shortest=3"),
        (["times=1"], "times=1: allowed is a whole number from 2"),
        (["shortest=0"], "shortest=0: allowed is a whole number from 1"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(config: Path, given: list[str], says: str) -> None:
    with pytest.raises(UserError, match=r"sampling\.repetition") as error:
        load(str(config), [f"sampling.repetition.{setting}" for setting in given])
    assert says in str(error.value)


def test_a_run_counts_what_it_has_ended_as_cut_and_pays_for_less(config: Path, tmp_path: Path) -> None:
    plain, ended = tmp_path / "plain", tmp_path / "ended"
    rule = ["sampling.repetition.longest=2", "sampling.repetition.times=2"]
    common = ["train", f"conf={config}", "steps=1", "sampling.max_tokens=24", "data.prompts_per_step=16", *QUICK]
    assert cli_code([*common, f"run={plain}"]) == 0
    assert cli_code([*common, *rule, f"run={ended}"]) == 0
    (before,), (after,) = learned(plain), learned(ended)
    assert 0 < after["rollout/looped"] <= after["rollout/truncated"]
    assert "rollout/looped" not in before
    assert after["rollout/tokens"] < before["rollout/tokens"]
    assert after["cost/flops"] < before["cost/flops"]
