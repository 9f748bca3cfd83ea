"""A running server as a teacher: requests out, judgements back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from opd.needs import Needs
from opd.protocols import Scorer
from opd.teachers.answers import COMPLETIONS, ask, judgement, rows_of
from opd.teachers.client import Client, Gone, Refusal
from opd.teachers.reading import Reading, rendering_notes
from opd.types import Judgement, Prompt, Rollout, RunError, TokenPair, UserError

PROBE = "Probe 1234567890: naïve façade, 漢字かな, Привет, 🙂!\n\tdef f(x): return x ** 2\n"
"""A text that tokenizers of different models cut differently."""
PROBE_TOKENS = 32


@dataclass(frozen=True)
class ServerScorer(Scorer):
    """A model on a server."""

    reading: Reading
    tokenizer: Any
    client: Client
    url: str
    """As a person knows the server."""
    top_k: int
    """Likeliest tokens that it is asked for at most."""
    refused: Callable[[Refusal], UserError]
    """A request that it did not take, as a mistake that a person can mend."""
    model: str
    max_len: int | None
    """Positions that the server takes, the one that it writes included; None: it does not say."""
    vocabulary: int
    """Ids from here on are none of its tokens."""
    size: int
    """Columns of the student's head."""
    differences: tuple[str, ...] = ()
    """Between the two vocabularies, harmless ones."""

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        """Judge every completion token after the teacher's own rendering of the prompt.

        Raises:
            RunError: the server went away and did not come back within `patience` seconds.
            UserError: it does not take a request; the message says what to change.
        """
        k = min(needs.top_k, self.top_k)
        prompts = self.read([r.prompt for r in rollouts])
        pairs = [(ids, r.tokens) for ids, r in zip(prompts, rollouts, strict=True) if r.tokens]
        judged = iter(self._judge(pairs, k))
        return [next(judged) if r.tokens else _nothing(k) for r in rollouts]

    def read(self, prompts: Sequence[Prompt]) -> list[Sequence[int]]:
        """The ids of each prompt in its own template."""
        return self.reading.read(self.tokenizer, prompts)

    def notes(self, prompts: Sequence[Prompt]) -> list[str]:
        """Harmless differences of vocabulary, and whether it reads the prompts through another template."""
        return [*self.differences, *rendering_notes(self.read(prompts), prompts)]

    def check(self) -> None:
        """Send a short text: are its ids the tokenizer's, and do log-probs come back? UserError where not."""
        ids = self.tokenizer(PROBE, add_special_tokens=False)["input_ids"]
        self._check_ids(ids)
        few = ids[: min(PROBE_TOKENS, (self.max_len or PROBE_TOKENS) - 1)]
        (found,) = self._judge([(few[:1], few[1:])], self.top_k)
        mass = found.logprobs.exp() if found.top_logprobs is None else found.top_logprobs.exp().sum(-1)
        if mass.max() > 1.01:
            raise UserError(
                f"teacher.url={self.url}: it gives logits, not log-probs; start it with "
                "--logprobs-mode raw_logprobs, as opd serve-teacher does"
            )

    def _check_ids(self, ids: Sequence[int]) -> None:
        """Compare with the server's own tokenizer, where it lets itself be asked."""
        body = {"model": self.model, "prompt": PROBE, "add_special_tokens": False}
        try:
            (theirs,) = self.client.post("/tokenize", [body], lambda _, answer: answer["tokens"])
        except (Refusal, KeyError, TypeError):
            return
        if theirs != ids:
            raise UserError(
                f"teacher.tokenizer={self.tokenizer.name_or_path}: the server reads a text as other ids than this "
                f"tokenizer does; give the folder or hub name of {self.model}'s tokenizer"
            )

    def _judge(self, pairs: Sequence[TokenPair], k: int) -> list[Judgement]:
        last = self.vocabulary - 1
        sequences = [[*prompt, *(min(t, last) for t in completion)] for prompt, completion in pairs]
        self.check_length(max(map(len, sequences), default=0))

        def parse(i: int, answer: Any) -> Judgement:
            prompt, completion = pairs[i]
            rows = rows_of(answer, len(sequences[i]))[len(prompt) :]
            return judgement(rows, completion, self.vocabulary, self.size, k)

        try:
            return self.client.post(COMPLETIONS, [ask(self.model, ids, k) for ids in sequences], parse)
        except Refusal as e:
            raise self.refused(e) from e
        except Gone as e:
            raise RunError(
                f"the teacher's server at {self.url} did not answer within teacher.patience={self.client.patience:g} s "
                f"({e}); start it again and go on with:  opd train --resume run=DIR"
            ) from e

    def check_length(self, longest: int) -> None:
        """Raise UserError where prompt and completion of so many tokens together are more than the server takes."""
        if self.max_len is not None and longest >= self.max_len:
            raise UserError(
                f"teacher.url={self.url}: prompt and completion are {longest} tokens, and the server takes "
                f"{self.max_len - 1}; start it with --max-model-len {longest + 1} or more (opd serve-teacher MODEL "
                f"--max-len {longest + 1}), or lower sampling.max_tokens"
            )


def _nothing(k: int) -> Judgement:
    """Of an empty completion."""
    return Judgement(torch.zeros(0), None, *((torch.zeros(0, k).long(), torch.zeros(0, k)) if k else ()))
