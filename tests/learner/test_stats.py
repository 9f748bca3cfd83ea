"""Sums over tokens whose distributions are there, against those worked out by hand."""

from __future__ import annotations

import pytest
import torch

from opd.learner.stats import distribution_sums
from opd.tensors import Tokens


def test_a_model_is_unsure_above_half_a_nat_and_two_agree_on_what_both_find_likeliest() -> None:
    pi = torch.tensor([[0.5, 0.4, 0.1], [0.98, 0.01, 0.01], [0.2, 0.7, 0.1]])
    q = torch.tensor([[0.3, 0.6, 0.1], [0.9, 0.05, 0.05], [0.01, 0.98, 0.01]])
    some = torch.zeros(3)
    tokens = Tokens(
        some, some, some, logits=pi.log(), tokens=some.long(), logprobs=some, advantages=some, teacher_logits=q.log()
    )
    sums = {name: value.item() for name, value in distribution_sums(tokens, pi.log().logsumexp(-1)).items()}
    assert (sums["unsure"], sums["teacher_unsure"], sums["agreement"]) == (2, 1, 2)
    assert sums["entropy"] == pytest.approx(-(pi * pi.log()).sum().item(), abs=1e-6)
    assert sums["exact"] == pytest.approx((pi * (pi.log() - q.log())).sum().item(), abs=1e-6)
