"""A teacher whose log-probs are written down once and read back: offline distillation without the teacher in memory."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from opd.called import called
from opd.devices.team import Team
from opd.models.fingerprint import fingerprint
from opd.needs import Needs, Provides
from opd.teachers.between import BetweenTeacher
from opd.teachers.mark import marks_of
from opd.teachers.own import SelfTeacher
from opd.teachers.reading import Reading, rendering_notes
from opd.teachers.several import Several
from opd.teachers.shelf import Entry, Shelf
from opd.teaching import Composed, Mark, Pupil, Scorer, Teacher
from opd.text.vocabulary import check_shared
from opd.types import Judgement, Pretrained, Prompt, Reads, Rollout, UserError

HARMLESS = {"micro_tokens", "attention", "device", "trust_remote_code", "offload", "url", "timeout", "patience",
            "concurrency", "api_key_env", "top_k"}  # fmt: skip
"""Settings of teachers on which no log-prob depends; how they read a prompt is in the ids that an entry is found by."""


@dataclass(frozen=True, kw_only=True)
class CachedTeacher:
    """Settings of a cache. It pays where the same completions are scored again, as with source=dataset."""

    teacher: Teacher
    """Asked for what is missing, and only then loaded where it is a local one."""
    path: str
    """Folder of parquet files; made on first use, read into memory as a whole."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Likeliest tokens that are kept of every token."""
    readonly: bool = False
    """Never load the teacher: what the student wrote itself (in preflight and evaluations) goes unjudged, any other
    completion that is missing is an error."""

    def __post_init__(self) -> None:
        """Refuse a teacher that changes, or that does not give what is to be kept."""
        if moving := changing(self.teacher):
            raise ValueError(f"teacher={moving}: what it says changes in a run; allowed is a teacher that stays")
        lacking = Needs(logprobs=True, top_k=self.top_k).lacking(self.teacher.provides)
        if lacking or self.teacher.provides.spans:
            problem = f"it does not give {lacking}" if lacking else "it has another tokenizer"
            raise ValueError(f"teacher={called('teacher', self.teacher)}: {problem}; allowed is one that can be kept")

    @property
    def inner(self) -> Mapping[str, Teacher]:
        """The teacher behind it, if it may be asked."""
        return {} if self.readonly else {"teacher": self.teacher}

    @property
    def provides(self) -> Provides:
        """Log-probs of the sampled tokens, and the likeliest tokens that are kept."""
        return Provides(logprobs=True, top_k=self.top_k)

    def checkpoint(self) -> Pretrained | None:
        """That of the teacher behind it."""
        return self.teacher.checkpoint()

    def start(self, pupil: Pupil) -> CachedScorer:
        """Read what is there; UserError where another teacher, tokenizer or template wrote it."""
        from opd.models.loading import tokenizer_of

        scorer, tokenizer, differences = None, pupil.tokenizer, []
        model = self.teacher.checkpoint()
        if isinstance(self.teacher, Reading) and model is not None:  # it can read prompts without its weights
            tokenizer = tokenizer_of(model)
            self.teacher.check_template(tokenizer, pupil.chat)
            differences = check_shared(pupil.tokenizer, tokenizer)
        else:
            scorer = self.teacher.start(pupil)
        identity = {
            "teacher": digest(settings_of(self.teacher), fingerprint(model), *inner_models(self.teacher)),
            "tokenizer": digest(sorted(tokenizer.get_vocab().items()), str(tokenizer.special_tokens_map)),
            "chat template": digest(str(tokenizer.chat_template), *template_of(self.teacher)),
        }
        shelf = Shelf.open(Path(self.path), identity, self.top_k, {} if scorer is None else marks_of({"": scorer}))
        return CachedScorer(self, pupil, tokenizer, shelf, tuple(differences), scorer)


@dataclass
class CachedScorer(Scorer):
    """An open cache."""

    settings: CachedTeacher
    pupil: Pupil
    tokenizer: Any
    shelf: Shelf
    differences: tuple[str, ...]
    scorer: Scorer | None
    """The teacher behind it; None as long as nothing was missing."""
    found: int = field(default=0, init=False)
    scored: int = field(default=0, init=False)

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        """Look every completion up after the teacher's prompt; let the teacher judge the others, and keep them."""
        keys = self._keys(rollouts)
        missing = {k: r for k, r in zip(keys, rollouts, strict=True) if r.tokens and k not in self.shelf.entries}
        team = self.pupil.team
        told = team.gather((bool(missing), sum(k in self.shelf.entries for k in keys)))
        self.found += sum(found for _, found in told)
        if not self.settings.readonly and any(lacking for lacking, _ in told):
            self._ask(missing, team)
        elif others := [r for r in missing.values() if all(map(math.isnan, r.logprobs))]:
            raise UserError(
                f"teacher.path={self.settings.path}: {len(others)} of {len(rollouts)} completions are not in it, the "
                f"first is of example {others[0].prompt.example.id!r}; set teacher.readonly=false to have them scored"
            )
        judged = [self._judgement(k, len(r.tokens), needs.top_k) for k, r in zip(keys, rollouts, strict=True)]
        return [replace(j, kept=k not in missing) for k, j in zip(keys, judged, strict=True)]

    def _keys(self, rollouts: Sequence[Rollout]) -> list[str]:
        """What each judgement is found by: the ids that it depends on, and of several teachers whose it is."""
        prompts = [r.prompt for r in rollouts]
        keys = [entry_key(ids, r.tokens) for ids, r in zip(self.read(prompts), rollouts, strict=True)]
        if not isinstance(self.scorer, Several):
            return keys
        return [digest(key, seen) for key, seen in zip(keys, self.scorer.seen(prompts), strict=True)]

    def _ask(self, missing: dict[str, Rollout], team: Team) -> None:
        """Have the teacher judge what this rank misses; all take part, and the first one writes down what all have."""
        if self.scorer is None:
            self.scorer = self.settings.teacher.start(self.pupil)
        k = self.shelf.top_k
        judged = self.scorer.score(list(missing.values()), Needs(logprobs=True, top_k=k))
        entries = {
            key: Entry(
                j.logprobs.numpy(),
                None if j.top_ids is None else j.top_ids.int().numpy(),
                None if j.top_logprobs is None else j.top_logprobs.numpy(),
            )
            for key, j in zip(missing, judged, strict=True)
        }
        every = {key: entry for part in team.gather(entries) for key, entry in part.items()}
        self.shelf.add(every, write=team.rank == 0)
        self.scored += len(every)

    def _judgement(self, key: str, length: int, k: int) -> Judgement:
        """What the cache says; NaN where it says nothing."""
        import torch

        entry = self.shelf.entries.get(key)
        if entry is None:
            unknown = torch.full((length, k), float("nan"))
            ids = torch.zeros(length, k).long()
            return Judgement(torch.full((length,), float("nan")), None, ids if k else None, unknown if k else None)
        if len(entry.logprobs) != length:
            raise UserError(
                f"teacher.path={self.settings.path}: {key} has {len(entry.logprobs)} log-probs for {length} tokens; "
                "name another folder"
            )
        logprobs = torch.tensor(entry.logprobs)
        if not k or entry.top_ids is None:
            return Judgement(logprobs)
        return Judgement(
            logprobs, None, torch.tensor(entry.top_ids[:, :k]).long(), torch.tensor(entry.top_logprobs)[:, :k]
        )

    def read(self, prompts: Sequence[Prompt]) -> list[Sequence[int]]:
        """The ids of each prompt as the teacher behind it is shown it."""
        if self.scorer is not None:
            return self.scorer.read(prompts)
        reading = self.settings.teacher
        assert isinstance(reading, Reading), "a teacher without a reading of its own is started at once"
        return reading.read(self.tokenizer, prompts)

    def reads(self, rollouts: Sequence[Rollout]) -> list[Reads]:
        """What the teacher behind it reads, where it is asked."""
        return super().reads(rollouts) if self.scorer is None else self.scorer.reads(rollouts)

    def notes(self, prompts: Sequence[Prompt]) -> list[str]:
        """How much came out of the cache, and how the teacher reads prompts."""
        kept = f"teacher.path={self.settings.path}: {self.found} completions read, {self.scored} scored"
        return [kept, *self.differences, *rendering_notes(self.read(prompts), prompts)]

    def marks(self) -> Mapping[str, Mark]:
        """Those of the teacher behind it, where it was asked."""
        return {} if self.scorer is None else marks_of({"": self.scorer})

    def close(self) -> None:
        """Free the teacher behind it; every entry is on the disk already."""
        if self.scorer is not None:
            self.scorer.close()


def inner_models(teacher: Teacher) -> list[Any]:
    """What tells the models of a teacher that is made of others from others; of any other teacher nothing."""
    inner = teacher.inner.values() if isinstance(teacher, Composed) else ()
    return [[fingerprint(one.checkpoint()), *inner_models(one)] for one in inner]


def changing(teacher: Teacher) -> str:
    """Name a teacher that says something else of the same tokens later, be it one of several; empty: there is none."""
    if isinstance(teacher, SelfTeacher | BetweenTeacher):
        return called("teacher", teacher)
    inner = teacher.inner.values() if isinstance(teacher, Composed) else ()
    return next(filter(None, map(changing, inner)), "")


def entry_key(prompt: Sequence[int], completion: Sequence[int]) -> str:
    """Hash of the ids that a judgement depends on."""
    ids = np.asarray((len(prompt), *prompt, *completion), dtype="<i4")
    return hashlib.blake2b(ids.tobytes(), digest_size=16).hexdigest()


def digest(*parts: Any) -> str:
    """Hash of plain values."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def settings_of(teacher: Any) -> dict[str, Any]:
    """The settings that a log-prob after given ids depends on; which weights, `fingerprint` says."""
    known = HARMLESS | {f.name for f in fields(Reading)} | ({"model"} if teacher.checkpoint() is not None else set())
    own = {f.name: getattr(teacher, f.name) for f in fields(teacher) if f.name not in known}
    return {"kind": type(teacher).__name__, **own}


def template_of(teacher: Any) -> tuple[Any, ...]:
    """How it renders prompts beside the tokenizer's own template."""
    names = ("prompt", "template", "template_kwargs")
    return tuple(getattr(teacher, name, None) for name in names)
