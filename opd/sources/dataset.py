"""The dataset writes: its own completions, off-policy, as in supervised fine-tuning and supervised distillation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from opd.text.chat import completion_ids
from opd.types import Prompt, Rollout, Sampling, UserError
from opd.writing import Desk, Writer

NAN = float("nan")


@dataclass(frozen=True)
class DatasetSource:
    """Every completion is the one that the data gives (`Example.completion`).

    There is one per prompt. With `sampling.n` above 1 it is repeated, which keeps the shares of a mixture of sources;
    alone it would cost n times the work and leave the gradient as it is, so a run then takes one sample of each prompt.
    """

    policy = False
    origins = frozenset({"dataset"})
    repeats = True

    def start(self, desk: Desk) -> Writer:
        """Nothing to load."""
        return DatasetWriter(desk)


@dataclass(frozen=True)
class DatasetWriter:
    """Tokenises what the data answers."""

    desk: Desk

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Give the completion of each prompt `n` times, cut at `max_tokens`; draws nothing.

        Raises:
            UserError: a prompt has no completion.
        """
        return [rollout for one in self.given(prompts, sampling) for rollout in [one] * sampling.n]

    def given(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Rollout]:
        """The completion of each prompt, once; see `opd.writing.Giving`."""
        return (self._rollout(prompt, sampling) for prompt in prompts)

    def _rollout(self, prompt: Prompt, sampling: Sampling) -> Rollout:
        example = prompt.example
        if not (example.completion or example.closing):
            key = f"data.tasks.{example.task}"
            raise UserError(
                f"{key}: {example.name} has no completion to train on; name the column that holds it with "
                f"{key}.completion_column, or choose a task that brings its own, such as data=arithmetic"
            )
        desk, stop = self.desk, sampling.stop
        try:
            ids = completion_ids(
                desk.tokenizer, example.messages, example.completion, prompt.tokens, stop,
                closing=example.closing, tools=example.tools, **desk.rendering,
            )  # fmt: skip
        except UserError as error:
            raise UserError(f"data.tasks.{example.task}: {example.name}: {error}") from error
        tokens = tuple(ids[: sampling.max_tokens])
        cut = len(ids) > sampling.max_tokens
        return Rollout(prompt, tokens, (NAN,) * len(tokens), truncated=cut, origin="dataset", writers=())
