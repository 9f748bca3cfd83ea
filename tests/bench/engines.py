"""Rollouts of the same prompts: our two engines, and transformers' `generate` without log-probs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from opd.rollout.hf import Hf
from opd.rollout.vllm import Vllm
from opd.types import Pretrained, Prompt, Sampling
from tests.bench import cases, meter

Measure = Callable[[], dict[str, float]]


def measure_rollouts(spec: dict[str, Any]) -> tuple[Measure, Callable[[], None]]:
    """Seconds of sampling, and of a push of the learner's float32 weights where the engine takes one."""
    prompts = [s.rollout.prompt for s in cases.scored(cases.even(spec["prompts"], 32, 1))]
    if spec["variant"] == "generate":
        return _generate(spec, prompts), lambda: None
    settings = {"vllm": Vllm, "hf": Hf}[spec["variant"]](dtype=spec["dtype"])
    engine = settings.start(Pretrained(spec["model"]), max_len=32 + spec["tokens"], seed=0)
    learner = _load(spec["model"], torch.float32)
    calls = 0

    def measure() -> dict[str, float]:
        nonlocal calls
        calls += 1
        push = meter.timed(lambda: engine.load_weights(learner.state_dict().items(), calls))
        sampling = Sampling(max_tokens=spec["tokens"], seed=calls)
        seconds = meter.timed(lambda: engine.sample(prompts, sampling))
        return {"seconds": seconds, "push": push, "tokens": spec["prompts"] * spec["tokens"]}

    return measure, engine.close


def _generate(spec: dict[str, Any], prompts: list[Prompt]) -> Measure:
    model = _load(spec["model"], getattr(torch, spec["dtype"]))
    ids = torch.tensor([p.tokens for p in prompts], device=model.device)
    fixed = {"min_new_tokens": spec["tokens"], "max_new_tokens": spec["tokens"]}

    @torch.inference_mode()
    def call() -> None:
        model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, **fixed)

    return lambda: {"seconds": meter.timed(call), "tokens": spec["prompts"] * spec["tokens"]}


def _load(model: str, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return AutoModelForCausalLM.from_pretrained(model, dtype=dtype).to(device).eval()
