"""The processed distribution and draws from it."""

from __future__ import annotations

import pytest
import torch

from opd.rollout.distribution import draw, log_mu
from opd.types import Sampling

PROBS = torch.tensor([[0.4, 0.1, 0.3, 0.2]])


def probabilities(**settings: float) -> list[float]:
    return log_mu(PROBS.log(), Sampling(max_tokens=1, **settings)).exp()[0].tolist()


def test_temperature_raises_probabilities_to_its_inverse() -> None:
    powers = PROBS[0] ** 2
    assert probabilities(temperature=0.5) == pytest.approx((powers / powers.sum()).tolist())


def test_temperature_zero_reports_the_plain_distribution() -> None:
    assert probabilities(temperature=0.0, top_k=1, top_p=0.1) == pytest.approx(PROBS[0].tolist())


def test_top_k_keeps_the_k_likeliest() -> None:
    assert probabilities(top_k=2) == pytest.approx([4 / 7, 0, 3 / 7, 0])
    assert probabilities(top_k=9) == pytest.approx(PROBS[0].tolist())


def test_top_p_keeps_the_fewest_tokens_that_reach_p() -> None:
    assert probabilities(top_p=0.6) == pytest.approx([4 / 7, 0, 3 / 7, 0])
    assert probabilities(top_p=0.75) == pytest.approx([4 / 9, 0, 3 / 9, 2 / 9])
    assert probabilities(top_p=0.01) == pytest.approx([1, 0, 0, 0])


def test_min_p_keeps_tokens_within_a_share_of_the_likeliest() -> None:
    assert probabilities(min_p=0.45) == pytest.approx([4 / 9, 0, 3 / 9, 2 / 9])


def test_top_p_counts_what_top_k_left() -> None:
    assert probabilities(top_k=2, top_p=0.55) == pytest.approx([1, 0, 0, 0])


def test_draw_inverts_the_distribution_function() -> None:
    uniforms = torch.tensor([0.0, 0.39, 0.41, 0.49, 0.51, 0.79, 0.81, 0.999], dtype=torch.float64)
    assert draw(PROBS.log().expand(8, 4), uniforms).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_draw_never_gives_a_token_of_probability_zero() -> None:
    logprobs = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]).log().expand(4, 5)
    edges = torch.tensor([0.0, 0.5 - 2**-54, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert draw(logprobs, edges).tolist() == [1, 1, 3, 3]
