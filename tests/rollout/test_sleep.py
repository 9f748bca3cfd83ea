"""An engine that sleeps between its turns: what is asked of vLLM, in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from opd.config.compose import load
from opd.devices.idle import idle
from opd.devices.team import Solo
from opd.models.facts import read_facts
from opd.rollout.dealt import Dealt
from opd.rollout.sleep import Resting, Sleeper, rest
from opd.rollout.vllm import Vllm, VllmSampler
from opd.types import Example, Pretrained, Prompt, Sampling
from tests.tenants import SleepyHf

PROMPT = Prompt(Example("a", ({"role": "user", "content": "1+1"},)), (3, 4, 5))
SAMPLING = Sampling(max_tokens=2, n=1, temperature=1.0, stop=(1,), seed=0)


@dataclass
class Llm:
    """Notes what vLLM's `LLM` is asked."""

    calls: list[Any] = field(default_factory=list)

    def sleep(self, level: int) -> None:
        self.calls.append(f"sleep {level}")

    def wake_up(self, tags: list[str]) -> None:
        self.calls.append(f"wake {tags}")

    def collective_rpc(self, method: Any, kwargs: Mapping[str, Any] | None = None) -> None:
        if method == "reload_weights":
            assert kwargs is not None
            self.calls.append(len(dict(kwargs["weights_iterator"])))

    def reset_prefix_cache(self) -> None:
        self.calls.append("reset")


def test_vllm_wakes_weights_takes_new_ones_and_then_its_cache(teacher_dir: Path) -> None:
    llm = Llm()
    engine = Sleeper(VllmSampler(llm, read_facts(Pretrained(str(teacher_dir))), 64, None))
    state = AutoModelForCausalLM.from_pretrained(teacher_dir).state_dict()
    assert llm.calls == ["sleep 1"]  # it has the weights that it began with when it is asked before a push
    engine.load_weights(state.items(), version=1)
    assert llm.calls[1:] == ["wake ['weights']", len(state), "reset", "wake ['kv_cache']"]
    del llm.calls[:]
    engine.load_weights(state.items(), version=2)  # awake
    assert llm.calls == [len(state), "reset"]
    del llm.calls[:]
    rest(engine, keep=False)
    rest(engine, keep=True)  # asleep already
    assert llm.calls == ["sleep 2"]
    with pytest.raises(AssertionError, match="before a push"):
        engine.sample([PROMPT], SAMPLING)
    assert llm.calls == ["sleep 2"]


def test_what_was_kept_is_there_again(student_dir: Path) -> None:
    engine = SleepyHf(dtype="float32").start(str(student_dir), max_len=16, seed=0)
    before = engine.sample([PROMPT], SAMPLING)
    rest(Dealt(engine, Solo()), keep=True)  # each rank's own
    assert engine.logprobs([((3, 4), (5,))])[0][0] < 0
    assert engine.sample([PROMPT], SAMPLING) == before
    engine.close()


def test_engines_that_cannot_sleep_stay_as_they_are() -> None:
    plain = SimpleNamespace()
    rest(plain, keep=False)
    rest(Dealt(plain, Solo()), keep=False)
    assert not isinstance(plain, Resting)
    assert not Vllm().sleep


def test_settings_that_make_no_room_here_are_said(config: Path) -> None:
    asked = ["rollout=vllm", "rollout.sleep=true", "student.offload=true", "optim.offload=true"]
    assert list(idle(load(str(config), asked).config, Solo())) == [
        "rollout.sleep does nothing: the engine computes on the CPU",
        "student.offload does nothing: the student computes on the CPU",
        "optim.offload does nothing: the student computes on the CPU",
    ]
    assert list(idle(load(str(config), ["rollout=vllm"]).config, Solo())) == []
    (apart,) = idle(load(str(config), [*asked[:2], "devices=apart"]).config, Solo())
    assert "process of its own" in apart


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_vllm_gives_the_gpu_back_and_writes_the_same_afterwards(student_dir: Path) -> None:
    engine = Vllm(dtype="float32", sleep=True, eager=True, gpu_memory_utilization=0.5).start(
        str(student_dir), max_len=16, seed=0
    )
    before, awake = engine.sample([PROMPT], SAMPLING), torch.cuda.mem_get_info()[0]
    rest(engine, keep=True)
    assert torch.cuda.mem_get_info()[0] > awake + 0.4 * torch.cuda.mem_get_info()[1]
    assert engine.sample([PROMPT], SAMPLING) == before
    rest(engine, keep=False)
    engine.load_weights(AutoModelForCausalLM.from_pretrained(student_dir).state_dict().items(), version=0)
    assert engine.sample([PROMPT], SAMPLING) == before
    engine.close()


def test_a_run_whose_every_step_is_written_before_the_first_is_learned_from_says_so(config: Path) -> None:
    (said,) = idle(load(str(config), ["devices.ahead=6"]).config, Solo())
    assert said == "devices.ahead=6: all of steps=6 are written with the weights that the run begins with"
    assert list(idle(load(str(config), ["devices.ahead=5"]).config, Solo())) == []
