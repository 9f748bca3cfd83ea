"""Steps of TRL's DistillationTrainer on the models, prompts and divergence of a config, whenever they are asked for."""

from __future__ import annotations

import queue
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback

from opd.api import compose
from opd.console import make_console
from opd.devices.team import Solo
from opd.models.loading import tokenizer_of
from opd.parts import make_models

Measure = Callable[[], dict[str, float]]
MICRO = 16
"""Sequences that go through the models at once: about the tokens that ours go through them with."""


class Turns(TrainerCallback):
    """Lets a step begin when it is asked for, and tells when it has ended."""

    def __init__(self) -> None:
        self.asked, self.ended = queue.SimpleQueue[bool](), queue.SimpleQueue[float | Exception]()
        self.begun = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Wait; with False it is the last one."""
        control.should_training_stop = not self.asked.get()
        self.begun = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Tell its seconds."""
        self.ended.put(time.perf_counter() - self.begun)


def measure_peer(spec: dict[str, Any]) -> tuple[Measure, Callable[[], None]]:
    """What takes a step of `conf` with `overrides` as TRL does, in float32, with one thread; and what ends it."""
    from trl import DistillationConfig, DistillationTrainer

    cfg = compose(spec["conf"], "threads=1", *spec["overrides"]).config
    with make_console(quiet=True) as console:
        make_models(cfg, console, Solo())
    torch.set_num_threads(1)
    tokenizer = tokenizer_of(cfg.student.pretrained)
    samples = cfg.data.prompts_per_step * cfg.sampling.n
    prompts = cfg.data.start(tokenizer, cfg.seed)
    rows = [{"prompt": list(p.example.messages)} for step in range(spec["steps"]) for p in prompts.take(step)]
    data = Dataset.from_list([row for row in rows for _ in range(cfg.sampling.n)])
    trained = 0

    class Counted(DistillationTrainer):
        def compute_loss(self, model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
            nonlocal trained
            trained += int(inputs["completion_mask"].sum())
            return super().compute_loss(model, inputs, *more, **named)

    turns = Turns()
    with tempfile.TemporaryDirectory() as folder:
        arguments = DistillationConfig(
            folder, use_cpu=True, bf16=False, gradient_checkpointing=False, learning_rate=cfg.optim.lr,
            per_device_train_batch_size=min(MICRO, samples), gradient_accumulation_steps=-(-samples // MICRO),
            max_steps=spec["steps"], max_completion_length=cfg.sampling.max_tokens, shuffle_dataset=False,
            beta=cfg.objective.beta, temperature=cfg.sampling.temperature, report_to="none", save_strategy="no",
            logging_strategy="no", disable_tqdm=True, model_init_kwargs={"dtype": "float32"},
            teacher_model_init_kwargs={"dtype": "float32"},
        )  # fmt: skip
        trainer = Counted(
            str(cfg.student.pretrained.path), str(cfg.teacher.checkpoint().path), arguments, data,
            processing_class=tokenizer, callbacks=[turns],
        )  # fmt: skip

    def train() -> None:
        try:
            trainer.train()
        except Exception as error:  # whatever it was: who waits for the step is to raise it
            turns.ended.put(error)

    threading.Thread(target=train, daemon=True).start()

    def measure() -> dict[str, float]:
        before = trained
        turns.asked.put(True)
        if isinstance(seconds := turns.ended.get(), Exception):
            raise seconds
        return {"seconds": seconds, "tokens": trained - before}

    return measure, lambda: turns.asked.put(False)
