"""Writes the rollouts of later steps while earlier ones are learned from; which weights write what is fixed.

With `ahead` = K, step s is written with the weights that `max(first, s - K)` steps have made, whoever is faster: one
thread does what the engines are asked for in the order in which it was asked for. An engine in this process does it
at once, while the learner waits: the same rollouts, and no time won.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from opd.rollout.apart.pending import from_state, to_state
from opd.rollout.drafts import AHEAD, Plan
from opd.rollout.sleep import rest
from opd.teaching import Stateful
from opd.types import Rollout, RunError, UserError, Weights
from opd.writing import Sampler, Writer


@runtime_checkable
class Staging(Protocol):
    """An engine that takes weights now and uses them later."""

    def stage(self, weights: Weights, version: int) -> Callable[[], None]:
        """Copy the weights; what is returned replaces the engine's."""
        ...


class Ahead:
    """Rollouts of some steps, counted from 0; each is taken in its turn, and weights are pushed after it."""

    def __init__(self, source: Writer, engine: Sampler, plan: Plan, steps: range, ahead: int) -> None:
        """Nothing is written yet: the first `take` begins. Whoever else uses the engine settles first."""
        self.ahead = ahead
        self._source, self._engine, self._plan, self._steps = source, engine, plan, steps
        self._written: dict[int, Future[list[Rollout]]] = {}
        self._ages: list[int] = []
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="opd ahead", daemon=True)
        if isinstance(engine, Staging):
            self._thread.start()

    @property
    def stale(self) -> bool:
        """Whether any of the rollouts that were taken last was written with older weights than the learner has now."""
        return any(self._ages)

    @property
    def kept(self) -> Mapping[str, Stateful]:
        """Itself."""
        return {AHEAD: self}

    def take(self, step: int) -> list[Rollout]:
        """Have the steps up to `step` + K written; give that one's rollouts.

        Raises:
            RunError: Its weights lack more than K steps.
            Exception: What writing them has raised.
        """
        for later in range(step, min(step + self.ahead + 1, self._steps.stop)):
            if later not in self._written:
                # The plan is made here: tokenizer and data belong to this thread.
                self._written[later] = self._put(partial(self._source.sample, *self._plan(later)))
        rest(self._engine, keep=False)  # where it shares a GPU; it is handed weights before it is asked again
        rollouts = self._written.pop(step).result()
        self._ages = ages(rollouts, step)
        if not all(0 <= age <= self.ahead for age in self._ages):
            raise RunError(
                f"step {step + 1}: its rollouts were written {max(self._ages)} steps ago; allowed are {self.ahead} "
                "(devices.ahead)"
            )
        return rollouts

    def push(self, weights: Weights, version: int) -> None:
        """Copy the weights; the engines take them when they have written what they were asked for before."""
        if isinstance(self._engine, Staging):
            self._put(self._engine.stage(weights, version))
        else:
            self._engine.load_weights(weights, version)

    def settle(self) -> None:
        """Wait until everything is written and pushed that was asked for; raises what has failed."""
        self._put(lambda: None).result()

    def state(self) -> dict[str, Any]:
        """The rollouts that are written, or being written, for later steps: tensors, for a run's checkpoints.

        The weights that wrote them are gone: without them a run that goes on would be another one.
        """
        return to_state({step: future.result() for step, future in self._written.items()}, self._plan)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on with rollouts that `state` has given, as far as they are of use: drawn as now, and not too old."""
        for step, rollouts in from_state(state, self._plan).items():
            if step in self._steps and max(ages(rollouts, step), default=0) <= self.ahead:
                self._written[step] = Future()
                self._written[step].set_result(rollouts)

    def restore(self, checkpoint: Path) -> str:
        """Go on with the rollouts in a checkpoint's folder; returns what there is to say of it, if anything."""
        from safetensors.torch import load_file

        wanted = self._steps[: self.ahead]
        if (file := checkpoint / f"{AHEAD}.safetensors").is_file():
            try:
                self.load_state(load_file(file))
            except Exception as error:  # whatever is not there that the rollouts are put together from
                why = (str(error) or type(error).__name__).splitlines()[0]
                raise UserError(f"{file}: these are no rollouts ({why}); take another checkpoint") from error
        lacking = [str(step + 1) for step in wanted if step not in self._written]
        which = f"ahead: the rollouts of step {', '.join(lacking)} are not in the checkpoint, or of no use"
        why = f"other prompts, drawn otherwise, or older than devices.ahead={self.ahead} allows"
        return f"{which} ({why}), and are written with the weights of now" if lacking else ""

    def close(self) -> None:
        """Begin nothing more; what an engine is at is ended by closing the engine."""
        for future in self._written.values():
            future.cancel()
        self._jobs.put(None)

    def _put(self, job: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        if isinstance(self._engine, Staging):
            self._jobs.put((future, job))
        else:
            future.set_result(job())
        return future

    def _work(self) -> None:
        """Do the jobs; one that fails fails all that follow, which would be done with the wrong weights."""
        failed: BaseException | None = None
        for future, job in iter(self._jobs.get, None):
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if failed is not None:
                    raise failed
                future.set_result(job())
            except BaseException as error:
                failed = error
                future.set_exception(error)


def ages(rollouts: Sequence[Rollout], step: int) -> list[int]:
    """How many steps the weights lacked that wrote a step's rollouts, of those that the student alone has written."""
    return [step - rollout.version for rollout in rollouts if rollout.writers == ("student",)]
