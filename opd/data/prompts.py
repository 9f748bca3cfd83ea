"""Which prompts a step gets: a pure function of the run's seed and the step, so that resuming needs no cursor."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from opd.data.controls import Controls
from opd.data.source import Source, asked, check_items, open_source
from opd.hints import shown
from opd.protocols import Task
from opd.text.chat import render_all, with_system
from opd.text.script import Script, Template
from opd.text.verdict import verdict
from opd.types import Example, Message, Prompt, Split, UserError

_MIXING = 0x6D6978  # keeps the draws of tasks apart from their orders, which begin with the same seed


@dataclass(frozen=True, kw_only=True)
class Data:
    """Tasks, how they are mixed, and how their messages become token ids."""

    tasks: Mapping[str, Any]
    """Tasks by a name of one's own, which metrics and routers go by."""
    weights: Mapping[str, Annotated[float, Field(ge=0)]] | None = None
    """Share of each task in the prompts, in any unit; tasks left out have none. Null: all alike."""
    evaluated: tuple[str, ...] = ()
    """Tasks to evaluate on as well, though nothing of them is trained on."""
    prompts_per_step: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Prompts of an optimizer step; the engine draws its samples of each."""
    system: Annotated[str | None, Field(min_length=0)] = None
    """System turn put before every conversation that has none."""
    template: Template = "auto"
    """`chat`: the tokenizer's chat template; `plain`: the text alone; `auto`: chat where there is a template."""
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Passed to the chat template, such as `enable_thinking: false`."""
    max_prompt_tokens: Annotated[int, Field(ge=1)] = 1024
    """Longer prompts are left out, and counted."""
    shuffle: bool = True
    """Anew in every epoch, by the run's seed; false keeps the order of the files."""

    def __post_init__(self) -> None:
        """Refuse weights that name no task, or that leave nothing to draw."""
        if not self.tasks:
            raise UserError("data.tasks: there is no task; name at least one")
        for name, task in self.tasks.items():
            if not isinstance(task, Task):
                raise UserError(f"data.tasks.{name}: got {shown(task)}, allowed is a mapping whose _target_ is a task")
        for key, names in {"weights": self.weights or (), "evaluated": self.evaluated}.items():
            for name in names:
                if name not in self.tasks:
                    match = difflib.get_close_matches(name, self.tasks, n=1, cutoff=0.5)
                    near = f", did you mean {match[0]}?" if match else ""
                    raise UserError(f"data.{key}.{name}: no such task{near}; there are {', '.join(sorted(self.tasks))}")
        if self.weights is None:
            return
        if min(self.weights.values(), default=0) < 0 or sum(self.weights.values()) <= 0:
            raise UserError(f"data.weights: {dict(self.weights)} must be 0 or more each, and more than 0 in sum")

    def start(self, tokenizer: Any, seed: int, train: bool = True) -> PromptStream:
        """Look through the tasks' prompts; those to train on only where `train` says so, else when they are asked for.

        Raises:
            UserError: a task has no train prompt, or none that fits; or what a task says of its own settings.
        """
        stream = PromptStream(self, tokenizer, seed)
        if train:
            stream.require_train()
        return stream


class PromptStream:
    """The prompts of a run; holds no position."""

    def __init__(self, data: Data, tokenizer: Any, seed: int) -> None:
        """UserError where a chat template is asked for that the tokenizer does not have."""
        self._data, self._tokenizer, self._seed = data, tokenizer, seed
        self.notes: list[str] = []
        """What tasks have to tell of the splits that were opened so far, such as how many rows they left out."""
        if data.template == "chat" and tokenizer is not None and not tokenizer.chat_template:
            raise UserError(
                f"data.template=chat: the student's tokenizer ({tokenizer.name_or_path or 'its own'}) has no chat "
                "template; allowed are auto and plain, or put a chat_template.jinja beside the model"
            )
        weights = data.weights or dict.fromkeys(data.tasks, 1.0)
        self._names = [name for name in data.tasks if weights.get(name, 0) > 0]
        self._shares = np.cumsum([weights[name] for name in self._names]) / sum(weights[name] for name in self._names)

    def require_train(self) -> None:
        """Raise UserError where a task has no train prompt, or none that fits."""
        for name, source in self._train.items():
            _require_some(name, source.items)
            if source.fits is not None and not source.fits:
                raise UserError(
                    f"data.max_prompt_tokens: {self._data.max_prompt_tokens} is less than each of the "
                    f"{len(source.items)} prompts of data.tasks.{name} has"
                )

    @property
    def dropped(self) -> Mapping[str, int]:
        """Train prompts of each task that are too long or empty; 0 for procedural splits, which are not searched."""
        return {name: source.dropped for name, source in self._train.items()}

    def marks(self) -> Mapping[str, str]:
        """What tells each task's data, and what is held out of it, from other data of its name."""
        every = dict.fromkeys((*self._names, *self._data.evaluated))
        return {n: " ".join(s[n].mark for s in (self._train, self._eval) if n in s) for n in every}

    def place(self, task: str) -> str:
        """Where a task's data comes from, for people: its setting, and the path where it has one."""
        path = getattr(self._data.tasks[task], "path", None)
        return f"data.tasks.{task}" + (f".path={path}" if isinstance(path, str) else "")

    @property
    def rows(self) -> Mapping[str, int]:
        """Train prompts of each task that are drawn from; of procedural splits all, which are not searched."""
        return {n: len(s.items if s.fits is None else s.fits) for n, s in self._train.items()}

    def untokenized(self, split: Split) -> Mapping[str, int]:
        """How many items each task has, of whatever length; its first one is read, and no tokenizer is needed.

        Raises:
            UserError: they cannot be read, or there are none to train on.
        """
        counts = {}
        for name in self._names if split == "train" else dict.fromkeys((*self._names, *self._data.evaluated)):
            items = self._items(name, split)
            if split == "train":
                _require_some(name, items)
            counts[name] = len(items)
        return counts

    def shares(self) -> Mapping[str, float]:
        """The part of all prompts that is each task's."""
        return dict(zip(self._names, np.diff(self._shares, prepend=0.0).tolist(), strict=True))

    def take(self, step: int) -> list[Prompt]:
        """Give the prompts of a step, counted from 0; the same whatever was asked for before."""
        count = self._data.prompts_per_step
        first = step * count
        # The stream of draws from one seed is the same however much of it is drawn, so every prefix of it stands.
        draws = np.random.default_rng([self._seed, _MIXING]).random(first + count)
        chosen = np.searchsorted(self._shares[:-1], draws, side="right")
        prompts = []
        used = [int(n) for n in np.bincount(chosen[:first], minlength=len(self._names))]
        for task in (int(k) for k in chosen[first:]):
            source = self._train[self._names[task]]
            prompts.append(source.draw(used[task], self._seed, self._data.shuffle))
            used[task] += 1
        return prompts

    def another(self, prompt: Prompt, seed: int) -> Prompt:
        """Give another train prompt of the same task, whichever the seed says; of a task that has one alone, that."""
        return self._train[prompt.example.task].other(prompt, seed)

    def eval_prompts(self, n: int) -> list[Prompt]:
        """Give `n` eval prompts, in equal parts by task, the same for every seed; a task that has fewer gives fewer."""
        return [p for name, part in equally(n, self._eval).items() for p in self._eval[name].first(part)]

    def evaluated(self, n: int) -> Mapping[str, int]:
        """How many of `n` eval prompts each task gives; without a tokenizer of whatever length."""
        if self._tokenizer is None:
            there = self.untokenized("eval")
            return {name: min(part, there[name]) for name, part in equally(n, there).items()}
        return {name: len(self._eval[name].first(part)) for name, part in equally(n, self._eval).items()}

    def trained_too(self, trained: PromptStream) -> Mapping[str, tuple[int, int]]:
        """How many of the held-out prompts of each task, and of how many, another stream, or this one, trains on.

        Of rows alone, whose prompts are known by their hashes; tasks that share none are left out.
        """
        known = set().union(*(trained.hashes(name, "train") for name in trained.names))
        held = {name: self.hashes(name, "eval") for name in dict.fromkeys((*self._names, *self._data.evaluated))}
        return {name: (len(own & known), len(own)) for name, own in held.items() if own & known}

    def in_both(self, n: int) -> Mapping[str, tuple[int, int]]:
        """How many of the first `n` eval prompts of each task, and of how many, it trains on itself."""
        if self._tokenizer is None:
            return {}
        held = {name: self._eval[name].first(part) for name, part in equally(n, self._eval).items()}
        both = {name: sum(asked(p.example) in self._train[name].known for p in held[name]) for name in self._names}
        return {name: (count, len(held[name])) for name, count in both.items() if count}

    def hashes(self, name: str, split: Split) -> set[str]:
        """What the rows of a task's split are known by; empty where its items are no rows."""
        if self._tokenizer is None:
            items = self._items(name, split)
        else:
            items = (self._train if split == "train" else self._eval)[name].items
        return {one.split("-")[0] for one in getattr(items, "ids", ())}

    def some_prompts(self, n: int) -> list[Prompt]:
        """Give up to `n` prompts to try something on: eval prompts, or where none are held out those of the start."""
        return self.eval_prompts(n) or self.take(0)[:n]

    def prompt_of(self, text: str) -> Prompt:
        """Render a question that comes from no task."""
        return self.prompt_in([{"role": "user", "content": text}])

    def prompt_in(self, messages: Sequence[Message]) -> Prompt:
        """Render a conversation that comes from no task."""
        example = Example("asked", with_system(messages, self._data.system))
        return Prompt(example, tuple(self._render([example])[0]))

    def verify(self, prompt: Prompt, text: str) -> float | None:
        """Let the prompt's task score a completion's text; see `opd.text.verdict`."""
        return verdict(self.task_of(prompt.example), prompt.example, text)

    @property
    def names(self) -> frozenset[str]:
        """Of the tasks that have a share."""
        return frozenset(self._names)

    @property
    def rendering(self) -> Mapping[str, Any]:
        """How prompts are rendered, as arguments of `opd.text.chat.render`."""
        return {"template": self._data.template, "template_kwargs": self._data.template_kwargs}

    @property
    def chat(self) -> bool:
        """Whether a chat template writes the prompts out."""
        return Script(self._tokenizer, self._data.template).chat

    def task_of(self, example: Example) -> Task:
        """Give the task that an example belongs to."""
        task: Task = self._data.tasks[example.task]
        return task

    def examples(self) -> Iterator[Example]:
        """Give the train examples that fit, and of procedural tasks the first ones."""
        for source in self._train.values():
            yield from source.examples()

    def taught(self, task: str) -> str:
        """Where a task's data has what it answers, for people; empty where it does not say."""
        return str(getattr(self._train[task].items, "taught", ""))

    def prompts(self) -> Iterator[Prompt]:
        """Give the same examples as prompts."""
        for source in self._train.values():
            yield from source.prompts()

    @functools.cached_property
    def _controls(self) -> Controls:
        return Controls(self._tokenizer)

    @functools.cached_property
    def _train(self) -> dict[str, Source]:
        looked = (self._render, self._data.max_prompt_tokens, self._data.system, self._controls)
        return {n: open_source(n, self._items(n, "train"), *looked) for n in self._names}

    @functools.cached_property
    def _eval(self) -> dict[str, Source]:
        # Only the first prompts of an eval split are used, so it is not looked through.
        limit, system = self._data.max_prompt_tokens, self._data.system
        names = dict.fromkeys((*self._names, *self._data.evaluated))
        return {n: Source(n, self._items(n, "eval"), self._render, limit, system, None) for n in names}

    def misread(self) -> Iterator[str]:
        """What is to be said of train prompts that are not read as they are written; without a tokenizer nothing."""
        for name, source in self._train.items() if self._tokenizer is not None else ():
            yield from source.written.said(f"data.tasks.{name}", self.chat)

    def _items(self, name: str, split: Split) -> Sequence[Example]:
        task: Task = self._data.tasks[name]
        try:
            items = task.examples(split)
        except UserError as error:
            raise UserError(f"data.tasks.{name}: {error}") from error
        check_items(items, f"data.tasks.{name}")
        note = f"{name}: {getattr(items, 'note', '')}"
        if not note.endswith(": ") and note not in self.notes:  # both splits may be of one file
            self.notes.append(note)
        return items

    def _render(self, examples: Sequence[Example]) -> list[list[int]]:
        conversations, tools = [e.messages for e in examples], [e.tools for e in examples]
        return render_all(self._tokenizer, conversations, tools, **self.rendering)


def equally(n: int, names: Iterable[str]) -> Mapping[str, int]:
    """Deal `n` out to tasks in equal parts, the first ones getting what is left over."""
    tasks = list(names)
    return {name: n // len(tasks) + (i < n % len(tasks)) for i, name in enumerate(tasks)}


def _require_some(name: str, items: Sequence[Example]) -> None:
    """UserError where a task has nothing to train on; says by which setting, if it knows."""
    if not len(items):
        why = getattr(items, "why_none", "")
        raise UserError(f"data.tasks.{name}{'.' if why else ': '}{why or 'it has no train prompts'}")
