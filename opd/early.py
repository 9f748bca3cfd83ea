"""A judge that is elsewhere begins with what is finished while the rest is still being written."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from opd.needs import Needs
from opd.teaching import Scorer
from opd.types import Judgement, Rollout

Key = tuple[int, tuple[int, ...]]


def key(rollout: Rollout) -> Key:
    """What a judgement depends on. Whoever keeps the rollout keeps its prompt: no other gets the number."""
    return id(rollout.prompt), tuple(rollout.tokens)


class Early:
    """Sends a scorer what it is told of, as much at once as has come together, in a thread of its own."""

    def __init__(self, scorer: Scorer, needs: Needs) -> None:
        """Nothing is asked for yet; `needs` is what will most often be."""
        self._scorer, self._needs = scorer, needs
        self._begun: dict[Key, tuple[Rollout, Future[Judgement]]] = {}
        self._queue: queue.SimpleQueue[tuple[Rollout, Future[Judgement]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="opd early", daemon=True).start()

    def finished(self, rollout: Rollout) -> None:
        """Begin to judge a rollout that will be asked for; the same tokens after the same prompt are judged once."""
        if key(rollout) not in self._begun:
            self._begun[key(rollout)] = rollout, Future()
            self._queue.put(self._begun[key(rollout)])

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        """What the scorer says; it is asked only where it was not begun with, or for something else."""
        begun = {k: self._begun.pop(k)[1] for k in dict.fromkeys(map(key, rollouts)) if k in self._begun}
        if needs != self._needs:
            for future in begun.values():
                future.cancel()
            return self._scorer.score(rollouts, needs)
        rest = [r for r in rollouts if key(r) not in begun]
        late = iter(self._scorer.score(rest, needs) if rest else ())
        return [begun[key(r)].result() if key(r) in begun else next(late) for r in rollouts]

    def close(self) -> None:
        """Begin nothing more."""
        for _, future in self._begun.values():
            future.cancel()
        self._queue.put(None)

    def _work(self) -> None:
        while True:
            come = [self._queue.get()]
            while not self._queue.empty():
                come.append(self._queue.get())
            judged = [(r, f) for r, f in filter(None, come) if f.set_running_or_notify_cancel()]
            try:
                answers = self._scorer.score([r for r, _ in judged], self._needs) if judged else []
                pairs = list(zip(judged, answers, strict=True))  # as many as were asked for, before any is handed over
                for (_, future), answer in pairs:
                    future.set_result(answer)
            except BaseException as error:  # whoever asks is told
                for _, future in judged:
                    future.set_exception(error)
            if None in come:
                return
