"""Values and gradients against numbers that were computed elsewhere, in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from opd.objectives import (
    align_spans,
    generalized_jsd,
    minillm_advantages,
    policy_gradient_loss,
    reverse_kl_advantages,
    top_k_student,
    top_k_teacher,
    uld,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "objectives.json").read_text())
MASK = torch.tensor(GOLDEN["mask"]).bool()


def cases(name: str) -> list[dict[str, Any]]:
    """All cases of one function."""
    found = [c for c in GOLDEN["cases"] if c["name"] == name]
    assert found
    return found


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    "case", cases("reverse_kl_advantages"), ids=lambda c: f"coef={c['coef']},discount={c['discount']}"
)
def test_reverse_kl_advantages_are_those_of_the_policy_that_sampled(case: dict[str, Any]) -> None:
    # The golden numbers take log mu for log pi: the advantage judges the policy that wrote the tokens.
    got = reverse_kl_advantages(
        tensor(GOLDEN["teacher_logprobs"]), tensor(GOLDEN["behavior_logprobs"]), MASK, case["coef"], case["discount"]
    )
    torch.testing.assert_close(got, tensor(case["value"]), atol=1e-9, rtol=0)


@pytest.mark.parametrize("case", cases("policy_gradient_loss"), ids=lambda c: c["kind"])
def test_policy_gradient_value_and_gradient(case: dict[str, Any]) -> None:
    logprobs = tensor(GOLDEN["student_logprobs"]).requires_grad_()
    loss = policy_gradient_loss(
        logprobs, tensor(GOLDEN["behavior_logprobs"]), tensor(case["advantages"]), MASK,
        case["kind"], case["clip_low"], case["clip_high"], case["ratio_cap"],
    )  # fmt: skip
    loss.backward()
    assert loss.item() == pytest.approx(case["value"], abs=1e-9)
    torch.testing.assert_close(logprobs.grad, tensor(case["grad"]), atol=1e-9, rtol=0)


def assert_value_and_gradient(loss: Tensor, logits: Tensor, case: dict[str, Any]) -> None:
    loss.backward()
    assert loss.item() == pytest.approx(case["value"], abs=1e-9)
    torch.testing.assert_close(logits.grad, tensor(case["grad"]), atol=1e-9, rtol=0)


@pytest.mark.parametrize("case", cases("generalized_jsd"), ids=lambda c: f"beta={c['beta']},T={c['temperature']}")
def test_generalized_jsd_value_and_gradient(case: dict[str, Any]) -> None:
    logits = tensor(GOLDEN["student_logits"]).requires_grad_()
    loss = generalized_jsd(logits, tensor(GOLDEN["teacher_logits"]), MASK, case["beta"], case["temperature"])
    assert_value_and_gradient(loss, logits, case)


@pytest.mark.parametrize("case", cases("top_k_teacher"), ids=lambda c: f"k={c['k']},beta={c['beta']}")
def test_top_k_of_the_teacher_value_and_gradient(case: dict[str, Any]) -> None:
    logits = tensor(GOLDEN["student_logits"]).requires_grad_()
    loss = top_k_teacher(logits, tensor(GOLDEN["teacher_logits"]), MASK, case["k"], case["beta"])
    assert_value_and_gradient(loss, logits, case)


@pytest.mark.parametrize("case", cases("top_k_student"), ids=lambda c: f"k={c['k']}")
def test_top_k_of_the_student(case: dict[str, Any]) -> None:
    student, teacher = tensor(GOLDEN["student_logits"]), tensor(GOLDEN["teacher_logits"])
    got = top_k_student(student, teacher, torch.tensor(GOLDEN["tokens"]), MASK, case["k"])
    torch.testing.assert_close(got, tensor(case["value"]), atol=1e-9, rtol=0)


@pytest.mark.parametrize("case", cases("minillm_advantages"), ids=lambda c: f"gamma={c['gamma']}")
def test_minillm_advantages(case: dict[str, Any]) -> None:
    got = minillm_advantages(
        tensor(GOLDEN["teacher_logprobs"]), tensor(GOLDEN["student_logprobs"]), MASK, case["gamma"]
    )
    torch.testing.assert_close(got, tensor(case["value"]), atol=1e-9, rtol=0)


@pytest.mark.parametrize("case", cases("uld"), ids=["rows of 11 and 14"])
def test_uld(case: dict[str, Any]) -> None:
    got = uld(tensor(case["student_probs"]), tensor(case["teacher_probs"]))
    assert got.item() == pytest.approx(case["value"], abs=1e-9)


@pytest.mark.parametrize("case", cases("align_spans"), ids=lambda c: c["text"] or "nothing")
def test_align_spans(case: dict[str, Any]) -> None:
    student, teacher = ([bytes.fromhex(piece) for piece in case[side]] for side in ("student_hex", "teacher_hex"))
    assert align_spans(student, teacher) == [(left, right) for left, right in case["value"]]
