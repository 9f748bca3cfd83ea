"""What is said where memory was short: which setting to lower, and to what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from opd.config.compose import load
from opd.config.settings import Config
from opd.devices.shortage import Shortage
from opd.learner.halving import ONE
from opd.plan.cards import Card
from opd.plan.crew import crew_of
from opd.plan.layout import Layout
from opd.plan.memory import memory
from opd.plan.remedy import advised, remedy
from opd.rollout.vllm import Vllm
from opd.types import RunError

ON_CPU = "Available memory on node 0 (18.32/23.54 GiB) on kv cache allocation is less than requested memory for kv"
ON_GPU = (
    "Free memory on device cuda:0 (30.5/79.1 GiB) on startup is less than desired GPU memory utilization (0.9, 71 GiB)"
)
SMALL = "To serve at least one request (2.01 GiB KV cache is needed, which is larger than the available (1.0 GiB)"


@pytest.fixture
def cfg(config: Path) -> Config:
    return load(str(config), ()).config


@pytest.mark.parametrize(
    ("phases", "said"),
    [
        (("generate",), "lower rollout.batch_size=256 to 8"),
        (("preflight", "generate"), "lower rollout.batch_size=256 to 8"),
        (("eval", "score"), r"lower teacher.micro_tokens=8192 to \d+, or set teacher.quantization=int8"),
        (("update", "gradients"), r"lower optim.micro_tokens=4096 to \d+"),
        (("update", "gradients", ONE), "lower sampling.max_tokens=8 to 4, or set student.gradient_checkpointing=true"),
        (("setup", "teacher"), "set teacher.quantization=int8"),
        (("setup", "learner"), "set student=lora"),
        (("setup", "engine"), "set rollout.dtype=bfloat16 with student.dtype=bfloat16|take a smaller model"),
        (("models",), "take a smaller model, or more memory"),
        ((), "take a smaller model, or more memory"),
    ],
)
def test_each_phase_has_its_setting(cfg: Config, phases: tuple[str, ...], said: str) -> None:
    with pytest.raises(RunError, match=said), advised(cfg):
        raise Shortage("20 GiB", phases)


def test_what_is_lowered_is_what_a_run_makes_use_of(cfg: Config) -> None:
    whole = cfg.data.max_prompt_tokens + cfg.sampling.max_tokens
    used = min(cfg.optim.micro_tokens, 16 * whole)
    assert remedy(cfg, Shortage("", ("gradients",))) == f"lower optim.micro_tokens=4096 to {max(used // 2, whole)}"
    narrow = replace(cfg, optim=replace(cfg.optim, micro_tokens=whole))
    assert "optim.micro_tokens" not in remedy(narrow, Shortage("", ("gradients",)))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (ON_CPU, "lower rollout.memory_gb=4000 to 16.4"),
        (ON_GPU, "set rollout.gpu_memory_utilization=0.38"),
        (SMALL, "set rollout.memory_gb=2.02, which one sequence of the greatest length takes"),
        ("No available memory for the cache blocks", "raise rollout.gpu_memory_utilization=0.4"),
        ("tried to allocate 20 GiB", "lower rollout.memory_gb=4000 to 2000"),
    ],
)
def test_vllm_is_given_what_its_own_figures_come_to(cfg: Config, asked: str, said: str) -> None:
    engine = replace(cfg, rollout=Vllm(memory_gb=4000))
    assert remedy(engine, Shortage(asked, ("setup", "engine"))).startswith(said)


def test_a_value_that_the_plan_finds_room_for_is_named_before_half(
    cfg: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = replace(cfg, data=replace(cfg.data, prompts_per_step=256), optim=replace(cfg.optim, micro_tokens=16384))

    def needed(micro_tokens: int) -> int:
        config = replace(large, optim=replace(large.optim, micro_tokens=micro_tokens))
        card = Card("cpu", 2**60, 0.0, 0.0, 0.0, 0.0)
        return sum(memory(crew_of(config, None), card, Layout())[0].phases["update"].values())

    assert needed(2048) < needed(4096) < needed(16384)
    short = Card("cpu", (needed(2048) + needed(4096)) // 2, 0.0, 0.0, 0.0, 0.0)
    monkeypatch.setattr("opd.plan.here.machine", lambda: short)
    assert remedy(large, Shortage("", ("update", "gradients"))) == "lower optim.micro_tokens=16384 to 2048"
    less = Card("cpu", needed(2048) // 2, 0.0, 0.0, 0.0, 0.0)
    monkeypatch.setattr("opd.plan.here.machine", lambda: less)
    assert remedy(large, Shortage("", ("models",))).startswith(("set ", "take a smaller model"))
