"""Distillation across tokenizers: what is learned from spans and from two vocabularies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from opd.needs import Needs, Provides
from opd.objectives import gold
from opd.objectives.gkd import jsd
from opd.objectives.gold import Gold, hybrid, span_advantages, uld
from opd.objectives.reverse_kl import ReverseKL, reverse_kl_advantages
from opd.tensors import Completions, Tokens

SPANS = torch.tensor([[0, 0, 1, -1, 2], [-1, 0, 1, 1, 1]])
MASK = torch.tensor([[True, True, True, True, True], [True, True, True, True, False]])


def logprobs(seed: int) -> Tensor:
    return -torch.rand(2, 5, generator=torch.Generator().manual_seed(seed)) * 3


def test_each_token_of_a_span_gets_the_log_ratio_of_the_whole_span() -> None:
    q, pi = logprobs(0), logprobs(1)
    got = span_advantages(q, pi, SPANS, MASK, coef=0.5)
    r = q - pi
    first, last = r[0, 0] + r[0, 1], r[1, 2] + r[1, 3]
    want = [[first, first, r[0, 2], 0, r[0, 4]], [0, r[1, 1], last, last, 0]]
    torch.testing.assert_close(got, 0.5 * torch.tensor(want))


def test_how_a_spans_log_prob_is_shared_out_does_not_matter_and_tokens_without_one_may_be_nan() -> None:
    q, pi = logprobs(0), logprobs(1)
    want = span_advantages(q, pi, SPANS, MASK)
    moved = q.clone()
    moved[0, 0] += 1.0
    moved[0, 1] -= 1.0
    moved[0, 3] = moved[1, 0] = float("nan")
    torch.testing.assert_close(span_advantages(moved, pi, SPANS, MASK), want)


def test_spans_of_one_token_give_the_advantages_of_reverse_kl() -> None:
    q, pi = logprobs(0), logprobs(1)
    singles = torch.arange(5).expand(2, 5)
    torch.testing.assert_close(span_advantages(q, pi, singles, MASK, 0.7), reverse_kl_advantages(q, pi, MASK, 0.7))


def completions(q: Tensor, pi: Tensor, spans: Tensor, mask: Tensor) -> Completions:
    nothing = torch.full((len(q),), float("nan"))
    names, numbers = ("student",) * len(q), torch.arange(len(q))
    return Completions(pi, pi, q, q * float("nan"), spans, mask, nothing, numbers * 0.0, names, numbers)


def test_the_config_gives_them_cut_to_a_range() -> None:
    table = completions(logprobs(0), logprobs(1), SPANS, MASK)
    whole, cut = Gold().advantages(table), Gold(clip=0.5).advantages(table)
    assert whole.abs().max() > 0.5
    assert torch.equal(cut, whole.clamp(-0.5, 0.5))
    assert not Gold(method="uld").advantages(table).any()


def test_the_expected_gradient_is_that_of_the_reverse_kl_of_spans() -> None:
    """By enumeration: the student writes two letters, which are one token of the teacher's."""
    generator = torch.Generator().manual_seed(3)
    first = torch.randn(2, generator=generator, dtype=torch.float64, requires_grad=True)
    second = torch.randn(2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    log_q = torch.randn(4, generator=generator, dtype=torch.float64).log_softmax(-1)

    def log_pi(a: int, b: int) -> Tensor:
        return torch.stack([first.log_softmax(-1)[a], second[a].log_softmax(-1)[b]])

    expected, exact = torch.zeros(()), torch.zeros(())
    for k, (a, b) in enumerate(product(range(2), repeat=2)):
        pi = log_pi(a, b)
        mu = pi.detach()[None]
        shared_out = (log_q[k] / 2).expand(1, 2)
        adv = Gold().advantages(completions(shared_out, mu, torch.zeros(1, 2).long(), torch.ones(1, 2).bool()))
        tokens = Tokens(mu[0], mu[0], shared_out[0], logits=pi, tokens=pi, logprobs=pi, advantages=adv[0])
        expected = expected + mu.sum().exp() * Gold().loss(tokens).sum()
        exact = exact + pi.sum().exp() * (pi.sum() - log_q[k])
    got, want = (torch.autograd.grad(loss, (first, second), retain_graph=True) for loss in (expected, exact))
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, atol=1e-12, rtol=0)


def letters_gradient(config: Gold, first: Tensor, second: Tensor, log_q: Mapping[str, Tensor]) -> Tensor:
    """Expected gradient of the second letter's logits, by enumeration; `log_q`: of each string's spans.

    The student writes two letters; the teacher has a token for `ab`, and reads two tokens else.
    """
    expected = torch.zeros((), dtype=torch.float64)
    for text, spans in log_q.items():
        a, b = ("ab".index(letter) for letter in text)
        pi = torch.stack([first.log_softmax(-1)[a], second[a].log_softmax(-1)[b]])
        numbers = torch.tensor([[0, len(spans) - 1]])
        mu, shared_out = pi.detach(), spans if len(spans) == 2 else spans.repeat(2) / 2
        adv = config.advantages(completions(shared_out[None], mu[None], numbers, torch.ones(1, 2).bool()))[0]
        tokens = Tokens(mu, mu, shared_out, logits=pi, tokens=pi, logprobs=pi, advantages=adv)
        expected = expected + mu.sum().exp() * config.loss(tokens).sum()
    return torch.autograd.grad(expected, second)[0]


def test_a_token_that_decides_where_the_span_before_it_ends_must_answer_for_that_too() -> None:
    g = torch.Generator().manual_seed(4)
    first = torch.randn(2, generator=g, dtype=torch.float64)
    second = torch.randn(2, 2, generator=g, dtype=torch.float64, requires_grad=True)
    head, after = torch.randn(3, generator=g).log_softmax(-1), torch.randn(2, 2, generator=g).log_softmax(-1)
    log_q = {
        "aa": torch.stack([head[0], after[0, 0]]), "ab": head[2:], "ba": torch.stack([head[1], after[1, 0]]),
        "bb": torch.stack([head[1], after[1, 1]]),
    }  # fmt: skip
    log_q = {text: spans.double() for text, spans in log_q.items()}
    exact = torch.zeros((), dtype=torch.float64)
    for text, spans in log_q.items():
        a, b = ("ab".index(letter) for letter in text)
        log_pi = first.log_softmax(-1)[a] + second[a].log_softmax(-1)[b]
        exact = exact + log_pi.exp() * (log_pi - spans.sum())
    want = torch.autograd.grad(exact, second)[0]
    torch.testing.assert_close(letters_gradient(Gold(boundary=True), first, second, log_q), want)
    assert (letters_gradient(Gold(), first, second, log_q) - want).abs().max() > 0.01


@st.composite
def rows(draw: st.DrawFn) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Logits over 3 to 9 columns on each side, and a matching of some of them."""
    v, w, seed = draw(st.integers(3, 9)), draw(st.integers(3, 9)), draw(st.integers(0, 10**6))
    scale = draw(st.sampled_from([0.1, 1.0, 30.0]))
    g = torch.Generator().manual_seed(seed)
    n = draw(st.integers(1, min(v, w)))
    pairs = torch.randperm(v, generator=g)[:n], torch.randperm(w, generator=g)[:n]
    return torch.randn(4, v, generator=g) * scale, torch.randn(4, w, generator=g) * scale, pairs


@given(rows(), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_the_hybrid_divergence_is_never_negative(
    case: tuple[Tensor, Tensor, tuple[Tensor, Tensor]], beta: float
) -> None:
    values = hybrid(*case, beta)
    assert values.isfinite().all()
    assert (values > -1e-6).all()


def test_with_one_vocabulary_the_hybrid_is_the_generalised_jsd() -> None:
    g = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(4, 7, generator=g), torch.randn(4, 7, generator=g)
    columns = torch.randperm(7, generator=g)
    want = jsd(ours.log_softmax(-1), theirs[:, columns.argsort()].log_softmax(-1), 0.3)
    torch.testing.assert_close(hybrid(ours, theirs, (columns.argsort().argsort(), torch.arange(7)), 0.3), want)
    assert hybrid(ours, ours, (columns, columns), 0.5).abs().max() < 1e-6


def test_mass_outside_the_shared_tokens_counts() -> None:
    same = (torch.tensor([0, 1]), torch.tensor([0, 1]))
    ours = torch.tensor([[1.0, 0.0, -30.0]])
    theirs = torch.tensor([[1.0, 0.0, 3.0]])
    assert hybrid(ours, theirs, same, 1.0, rest_weight=0.0).abs() < 1e-6
    assert hybrid(ours, theirs, same, 1.0) > 0.5


def chunk(n: int = 11, v: int = 6, w: int = 9) -> tuple[Tokens, Tensor]:
    """Tokens of which every second one begins a span."""
    g = torch.Generator().manual_seed(5)
    logits = torch.randn(n, v, generator=g, requires_grad=True)
    same = (torch.tensor([0, 2, 3]), torch.tensor([8, 1, 4]))
    zeros = torch.zeros(n)
    tokens = Tokens(
        zeros, zeros, zeros, span_starts=torch.arange(n) % 2 == 0, logits=logits, tokens=zeros.long(), logprobs=zeros,
        advantages=zeros, teacher_logits=torch.randn(n, w, generator=g), shared=same,
    )  # fmt: skip
    return tokens, logits


@pytest.mark.parametrize("method", ["uld", "hybrid"])
def test_only_where_a_span_starts_is_there_a_loss_and_a_gradient(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, logits = chunk()
    losses = Gold(method=method).loss(tokens)
    losses.sum().backward()
    assert tokens.span_starts is not None
    assert (losses[tokens.span_starts] > 0).all()
    assert not losses[~tokens.span_starts].any()
    assert logits.grad is not None
    assert logits.grad[tokens.span_starts].abs().sum(-1).min() > 0
    assert not logits.grad[~tokens.span_starts].any()
    monkeypatch.setattr(gold, "ROWS", 2)
    torch.testing.assert_close(Gold(method=method).loss(tokens), losses)


def test_a_chunk_in_which_no_span_starts_has_a_gradient_of_zero() -> None:
    tokens, logits = chunk()
    few = tokens.select(slice(1, 2))
    few = replace(few, logprobs=logits[1:2].log_softmax(-1)[:, 0])
    Gold(method="hybrid").loss(few).sum().backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_uld_of_a_chunk_is_the_plain_function_row_by_row() -> None:
    tokens, _ = chunk()
    assert tokens.teacher_logits is not None
    losses = Gold(method="uld", coef=2.0).loss(tokens)
    want = uld([tokens.logits[4].softmax(-1)], [tokens.teacher_logits[4].softmax(-1)])
    torch.testing.assert_close(losses[4], 2.0 * want)


def test_what_each_method_needs() -> None:
    assert Gold().needs == Needs(spans=True, policy=True)
    assert Gold(method="uld").needs == Gold(method="hybrid").needs == Needs(spans=True, distribution=True)
    assert "log-probs" in ReverseKL().needs.lacking(Provides(spans=True, distribution=True, policy=True))


def test_a_setting_that_the_method_does_not_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"clip=3: method=uld has no advantages; allowed is method=span"):
        Gold(method="uld", clip=3.0)
    with pytest.raises(ValueError, match=r"boundary=true: method=hybrid has no advantages; allowed is method=span"):
        Gold(method="hybrid", boundary=True)
