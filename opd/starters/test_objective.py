"""The objective on numbers that can be worked out by hand."""

from pathlib import Path

import torch

import opd
from opd.starters.objective import Starter
from opd.tensors import Completions, Tokens

YAML = Path(__file__).with_name("objective.yaml")


def completions(student: list[float], teacher: list[float]) -> Completions:
    """One completion, whose last token is not trained."""
    log_mu, log_q = torch.tensor([student]), torch.tensor([teacher])
    mask = torch.ones_like(log_mu, dtype=torch.bool)
    mask[:, -1] = False
    return Completions(
        behavior_logprobs=log_mu,
        policy_logprobs=log_mu,
        teacher_logprobs=log_q,
        reference_logprobs=torch.full_like(log_mu, float("nan")),
        spans=torch.full_like(log_mu, -1, dtype=torch.int64),
        mask=mask,
        rewards=torch.zeros(1),
        groups=torch.zeros(1, dtype=torch.int64),
        seeds=torch.zeros(1, dtype=torch.int64),
        origins=("student",),
    )


def test_advantages_are_cut_off_at_the_limit_and_0_where_masked() -> None:
    found = Starter(limit=2.0).advantages(completions([-1.0, -9.0, -1.0], [-1.5, -1.0, -0.5]))
    assert found.tolist() == [[-0.5, 2.0, 0.0]]


def test_a_token_that_the_teacher_likes_becomes_likelier() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    log_pi = logits.log_softmax(-1)[:, 1]
    mu = log_pi.detach()
    tokens = Tokens(
        behavior_logprobs=mu,
        policy_logprobs=mu,
        teacher_logprobs=mu + 1,
        logits=logits,
        tokens=torch.tensor([1]),
        logprobs=log_pi,
        advantages=torch.tensor([1.0]),
    )
    Starter().loss(tokens).sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] < 0 < logits.grad[0, 0]  # downhill is up for this token, and down for others


def test_the_yaml_is_a_config_of_it() -> None:
    assert opd.compose("quickstart", f'objective="{YAML}"').config.objective == Starter()
