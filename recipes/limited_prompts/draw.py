"""Prompts of the quickstart's task, and what its teacher answers, as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from opd.config.compose import load
from opd.models.loading import stop_ids, tokenizer_of
from opd.recipe import mean
from opd.seeds import derive
from opd.text.chat import decode
from opd.types import Prompt, Sampling


def write_all(conf: str, folder: Path, seeds: Sequence[int], count: int, held_out: int) -> dict[str, Any]:
    """Write `prompts-seedN.jsonl`, with one sample of the teacher's at temperature 1 for each, and `held_out.jsonl`.

    Returns:
        The teacher's accuracy on the held-out prompts, and the share of right answers in each file.
    """
    config = load(conf, [f"data.prompts_per_step={2 * count}"]).config
    model = config.teacher.checkpoint()
    assert model is not None
    tokenizer, right = tokenizer_of(model), []
    drawn = Sampling(config.sampling.max_tokens, stop=stop_ids(model, tokenizer))
    engine = config.rollout.start(model, max_len=64, seed=0)

    def answered(prompts: Sequence[Prompt], seed: int) -> list[dict[str, str]]:
        rollouts = engine.sample(prompts, replace(drawn, seed=derive(seed, "teacher")))
        return [row(r.prompt) | {"completion": decode(tokenizer, r.tokens)} for r in rollouts]

    for seed in seeds:
        stream = config.data.start(tokenizer, derive(seed, "prompts"))
        different = {row(p)["prompt"]: p for p in stream.take(0)}
        rows = answered(list(different.values())[:count], seed)
        write(folder / f"prompts-seed{seed}.jsonl", rows)
        right.append(share_right(rows))
    kept = answered(stream.eval_prompts(held_out), 0)
    write(folder / "held_out.jsonl", kept)
    engine.close()
    return {"teacher": share_right(kept), "samples": right}


def row(prompt: Prompt) -> dict[str, str]:
    """A prompt and its answer."""
    return {"prompt": prompt.example.messages[-1]["content"], "answer": prompt.example.answer}


def share_right(rows: Sequence[Mapping[str, str]]) -> float:
    """Share of the completions whose last number is the answer; wrong ones stay in the data, as they do in life."""
    return mean([float(r["completion"].rpartition("=")[2] == r["answer"]) for r in rows])


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
