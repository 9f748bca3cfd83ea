"""A judge that is elsewhere begins with what is finished while the rest is still being written."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from opd.needs import Needs
from opd.teaching import Scorer
from opd.types import Judgement, Rollout

Key = tuple[tuple[int, ...], tuple[int, ...]]


def key(rollout: Rollout) -> Key:
    """What tells most judgements apart; all do the whole prompts, of which a teacher may be shown more."""
    return tuple(rollout.prompt.tokens), tuple(rollout.tokens)


class Early:
    """Sends a scorer what it is told of, as much at once as has come together, in a thread of its own."""

    def __init__(self, scorer: Scorer, needs: Needs) -> None:
        """Nothing is asked for yet; `needs` is what will most often be."""
        self._scorer, self._needs = scorer, needs
        self._begun: dict[Key, list[tuple[Rollout, Future[Judgement]]]] = {}
        self._table = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[Rollout, Future[Judgement]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="opd early", daemon=True).start()

    def finished(self, rollout: Rollout) -> None:
        """Begin to judge a rollout that will be asked for; the same tokens after the same prompt are judged once."""
        with self._table:
            if self._of(rollout) is None:
                entry = rollout, Future[Judgement]()
                self._begun.setdefault(key(rollout), []).append(entry)
                self._queue.put(entry)

    def begun(self, rollouts: Sequence[Rollout], needs: Needs) -> dict[int, Future[Judgement]]:
        """Which of these were begun with, by their places; none where something else is asked for."""
        with self._table:
            found = {place: entry for place, r in enumerate(rollouts) if (entry := self._of(r)) is not None}
            for rollout, future in {id(entry): entry for entry in found.values()}.values():
                self._begun[key(rollout)] = [e for e in self._begun[key(rollout)] if e[1] is not future]
                if not self._begun[key(rollout)]:
                    del self._begun[key(rollout)]
        if needs != self._needs:
            for _, future in found.values():
                future.cancel()
            return {}
        return {place: future for place, (_, future) in found.items()}

    def close(self) -> None:
        """Begin nothing more."""
        with self._table:
            for entries in self._begun.values():
                for _, future in entries:
                    future.cancel()
        self._queue.put(None)

    def _of(self, rollout: Rollout) -> tuple[Rollout, Future[Judgement]] | None:
        same = (e for e in self._begun.get(key(rollout), ()) if e[0].prompt == rollout.prompt)
        return next(same, None)

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
