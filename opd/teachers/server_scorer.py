"""A running server as a teacher: requests out, judgements back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from opd.devices.team import Solo, Team, first_rank
from opd.needs import Needs
from opd.teachers.answers import COMPLETIONS, ask, judgement, rows_of
from opd.teachers.chosen import CHOSEN, ask_chosen, chosen, most_chosen
from opd.teachers.client import Client, Gone, Refusal
from opd.teachers.local import FLOOR, score_sequences
from opd.teachers.mark import SAME, apart
from opd.teachers.reading import Reading, rendering_notes
from opd.teachers.said import ENVELOPE, Tokenized, most_bytes, read
from opd.teaching import Mark, Scorer
from opd.types import Judgement, Prompt, Rollout, RunError, TokenPair, UserError

PROBE = "Probe 1234567890: naïve façade, 漢字かな, Привет, 🙂!\n\tdef f(x): return x ** 2\n"
"""A text that tokenizers of different models cut differently."""
PROBE_TOKENS = 32
MIN_VLLM = "0.32"
"""The version since which log-probs of chosen tokens can be had."""


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
    learner: Any = None
    """The live `opd.learner.student.Student`, asked for its likeliest tokens; None where none is being trained."""
    probe: tuple[TokenPair, torch.Tensor] | None = None
    """A short text, and the log-probs that it had at the start."""
    unable: str = "it was not asked"
    """Why it gives no log-probs of chosen tokens; empty where it does."""

    @property
    def place(self) -> str:
        """The server's address."""
        return self.url

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        """Judge every completion token after the teacher's own rendering of the prompt.

        Raises:
            RunError: the server went away and did not come back within `patience` seconds, or has another model now.
            UserError: it does not take a request; the message says what to change.
        """
        k = min(needs.top_k, self.top_k)
        written = [r for r in rollouts if r.tokens]
        prompts = self.read([r.prompt for r in written])
        pairs = [(ids, r.tokens) for ids, r in zip(prompts, written, strict=True)]
        asked = self._likeliest_of_student(written, needs.student_top_k) if needs.student_top_k else None
        if not written:
            judged = []
        elif asked is None and (k or self.unable):
            judged = self._judge_same(pairs, k)
        else:
            judged = self._judge_chosen(pairs, asked)
            tops = self._judge_same(pairs if k else [], k)  # what was chosen comes without likeliest tokens
            if k:
                judged = [
                    replace(j, top_ids=t.top_ids, top_logprobs=t.top_logprobs)
                    for j, t in zip(judged, tops, strict=True)
                ]
        found = iter(judged)
        return [next(found) if r.tokens else _nothing(k, needs.student_top_k) for r in rollouts]

    def read(self, prompts: Sequence[Prompt]) -> list[Sequence[int]]:
        """The ids of each prompt in its own template."""
        return self.reading.read(self.tokenizer, prompts)

    def notes(self, prompts: Sequence[Prompt]) -> list[str]:
        """Harmless differences of vocabulary, and whether it reads the prompts through another template."""
        return [*self.differences, *rendering_notes(self.read(prompts), prompts)]

    def marks(self) -> Mapping[str, Mark]:
        """What it said of the short text at the start."""
        return {"": [round(value, 4) for value in self.probe[1].tolist()]} if self.probe else {}

    def check(self, team: Team | None = None) -> ServerScorer:
        """Send a short text: are its ids the tokenizer's, and do log-probs come back? UserError where not.

        Returns:
            The same, which knows whether the server gives log-probs of chosen tokens: what rank 0 finds holds for all.
        """
        ids = self.tokenizer(PROBE, add_special_tokens=False)["input_ids"]
        self._check_ids(ids)
        few = ids[: min(PROBE_TOKENS, (self.max_len or PROBE_TOKENS) - 1)]
        self._judge([(few[:1], few[1:])], [self.top_k])
        pair = few[:1], few[1:]
        (plain,) = self._judge([pair], [0])
        unable = first_rank(team or Solo(), lambda: self._unable(pair, plain))
        return replace(self, unable=unable, probe=(pair, plain.logprobs))

    def _judge_same(self, pairs: Sequence[TokenPair], k: int) -> list[Judgement]:
        """Judge, beside the text of the start: RunError where another model does so now."""
        if self.probe is None:
            return self._judge(pairs, [k] * len(pairs))
        pair, begun = self.probe
        *judged, now = self._judge([*pairs, pair], [*([k] * len(pairs)), 0])
        if (gap := apart(begun.tolist(), now.logprobs.tolist())) > SAME:
            raise RunError(
                f"the teacher's server at {self.url} judges otherwise than when this process began: the same text by "
                f"{gap:.2g} nats a token on average, where rounding is under {SAME:g}; is another model served as "
                f"{self.model}? Serve the first one again, and go on with --resume"
            )
        return judged

    def _unable(self, pair: TokenPair, plain: Judgement) -> str:
        """Why log-probs of chosen tokens cannot be had, or are not those that it gives otherwise; empty if they are."""
        try:
            (found,) = self._ask_chosen([pair], [[[t] for t in pair[1]]], cached=False, patience=0.0)
        except (Refusal, Gone, UserError) as e:
            return f"the server says: {e}"
        if found is None:
            return "it leaves them out of its answer"
        gap = float((found[:, 0] - plain.logprobs).abs().max())
        return f"they are {gap:.2g} nats from its prompt_logprobs" if gap > SAME else ""

    def _check_ids(self, ids: Sequence[int]) -> None:
        """Compare with the server's own tokenizer, where it lets itself be asked."""
        body = {"model": self.model, "prompt": PROBE, "add_special_tokens": False}
        try:
            (theirs,) = self.client.post(
                "/tokenize", [body], lambda _, answer: read(Tokenized, answer).tokens, ENVELOPE
            )
        except (Refusal, UserError):
            return
        if theirs != ids:
            raise UserError(
                f"teacher.tokenizer={self.tokenizer.name_or_path}: the server reads a text as other ids than this "
                f"tokenizer does; give the folder or hub name of {self.model}'s tokenizer"
            )

    def _judge(self, pairs: Sequence[TokenPair], likeliest: Sequence[int]) -> list[Judgement]:
        """Judge, with so many likeliest tokens of each."""
        last = self.vocabulary - 1
        sequences = [[*prompt, *(min(t, last) for t in completion)] for prompt, completion in pairs]
        self.check_length(max(map(len, sequences), default=0))

        def parse(i: int, answer: bytes) -> Judgement:
            prompt, completion = pairs[i]
            rows = rows_of(answer, len(sequences[i]))[len(prompt) :]
            return judgement(rows, completion, self.vocabulary, self.size, likeliest[i])

        most = most_bytes(max(map(len, sequences), default=0), max(likeliest, default=0) + 1)
        asked = [ask(self.model, ids, k) for ids, k in zip(sequences, likeliest, strict=True)]
        try:
            return self.client.post(COMPLETIONS, asked, parse, most)
        except Refusal as e:
            raise self.refused(e) from e
        except Gone as e:
            raise self._gone(e) from e

    def _likeliest_of_student(self, rollouts: Sequence[Rollout], k: int) -> list[torch.Tensor]:
        """Ids [T, k] of the likeliest tokens of the learner as it is, at each token of non-empty completions."""
        if self.unable:
            raise UserError(
                f"objective.of=student: the teacher at {self.url} gives no log-probs of the student's likeliest tokens "
                f"({self.unable}); start vLLM {MIN_VLLM} or later on a GPU with  opd serve-teacher MODEL , or use "
                "objective.of=teacher, or teacher=local"
            )
        assert self.learner is not None, "an objective without a learner"
        prompts, completions = [r.prompt.tokens for r in rollouts], [r.tokens for r in rollouts]
        with self.learner.read() as split:
            judged = score_sequences(
                split, prompts, completions, Needs(top_k=k), self.learner.optim.micro_tokens, 1.0, self.size
            )
        return [j.top_ids for j in judged if j.top_ids is not None]

    def _judge_chosen(self, pairs: Sequence[TokenPair], ids: Sequence[torch.Tensor] | None) -> list[Judgement]:
        """Judge by the sampled tokens alone, or with the tokens `ids` [T, k] of each completion."""
        self.check_length(max((len(p) + len(c) for p, c in pairs), default=0))
        sampled = [torch.tensor(c)[:, None] for _, c in pairs]
        wanted = sampled if ids is None else [torch.cat(both, dim=1) for both in zip(sampled, ids, strict=True)]
        columns = [w.clamp(max=self.vocabulary - 1).tolist() for w in wanted]
        try:
            found = self._ask_chosen(pairs, columns)
            # Completions that begin alike: what the server had read of another one's it did not score.
            rest = [i for i, values in enumerate(found) if values is None]
            again = self._ask_chosen([pairs[i] for i in rest], [columns[i] for i in rest], cached=False)
        except Refusal as e:
            raise self.refused(e) from e
        except Gone as e:
            raise self._gone(e) from e
        late = iter(again)
        out = []
        for values, asked in zip(found, wanted, strict=True):
            values = next(late) if values is None else values
            if values is None:
                raise UserError(f"teacher.url={self.url}: it left log-probs out that were asked for; restart it")
            values = values.masked_fill(asked >= self.vocabulary, FLOOR)
            both = (None, None) if ids is None else (asked[:, 1:], values[:, 1:])
            out.append(Judgement(values[:, 0], asked_ids=both[0], asked_logprobs=both[1]))
        return out

    def _ask_chosen(
        self,
        pairs: Sequence[TokenPair],
        columns: Sequence[Sequence[Sequence[int]]],
        cached: bool = True,
        patience: float | None = None,
    ) -> list[torch.Tensor | None]:
        """Log-probs [T, n] of the ids in `columns`, T rows of n for each completion; None: left out."""
        last = self.vocabulary - 1
        bodies = [
            ask_chosen(self.model, prompt, [min(t, last) for t in completion], rows, cached)
            for (prompt, completion), rows in zip(pairs, columns, strict=True)
        ]

        def parse(i: int, answer: bytes) -> torch.Tensor | None:
            return chosen(answer, len(columns[i]), len(columns[i][0]))

        most = most_chosen(max((len(rows) * len(rows[0]) for rows in columns), default=0))
        return self.client.post(CHOSEN, bodies, parse, most, patience)

    def _gone(self, error: Gone) -> RunError:
        return RunError(
            f"the teacher's server at {self.url} did not answer within teacher.patience={self.client.patience:g} s "
            f"({error}); start it again, and go on with --resume"
        )

    def close(self) -> None:
        """Hang up."""
        self.client.close()

    def check_length(self, longest: int) -> None:
        """Raise UserError where prompt and completion of so many tokens together are more than the server takes."""
        if self.max_len is not None and longest >= self.max_len:
            raise UserError(
                f"teacher.url={self.url}: prompt and completion are {longest} tokens, and the server takes "
                f"{self.max_len - 1}; start it with --max-model-len {longest + 1} or more (opd serve-teacher MODEL "
                f"--max-len {longest + 1}), or lower sampling.max_tokens"
            )


def _nothing(k: int, asked: int) -> Judgement:
    """Of an empty completion."""

    def none(width: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        return (torch.zeros(0, width).long(), torch.zeros(0, width)) if width else (None, None)

    return Judgement(torch.zeros(0), None, *none(k), *none(asked))
