"""Values and gradients against numbers that were computed elsewhere, in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from opd.objectives import policy_gradient_loss, reverse_kl_advantages

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
