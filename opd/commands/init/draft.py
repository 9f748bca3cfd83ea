"""A commented config made of a few answers, checked as by a dry run before it is there."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from opd.commands.init.answers import NONE, OTHERS, Answers, check
from opd.disk import whole
from opd.hints import quoted
from opd.types import Pretrained, UserError

if TYPE_CHECKING:
    from opd.commands.train.plan import Plan
    from opd.config.settings import Config

HELD_OUT, MOST_HELD_OUT, SOME = 45, 0.2, 10
"""Rows of a file that are to be held out, the largest share of it that is, and in how many rows there is a choice."""
SHOWN = (
    "steps", "data.prompts_per_step", "data.max_prompt_tokens", "sampling.max_tokens", "sampling.n",
    "objective.estimator", "optim.lr", "eval.every", "eval.size", "checkpoint.every",
)  # fmt: skip
"""Settings that are written down with the values that they have: those that are changed first."""
COLUMN = 44
"""Where comments begin."""


def check_together(given: Mapping[str, str | None]) -> None:
    """UserError where the answers so far go with nothing that the others may still be."""
    from opd.config.compose import load

    known = {name: said for name, said in given.items() if said is not None}
    teachers = [known["teacher"]] if "teacher" in known else [NONE, OTHERS["teacher"]]
    for teacher in teachers:
        answers = Answers(**{**OTHERS, **known, "teacher": teacher})
        try:
            with drafted(answers) as draft:
                draft.write_text(yaml.safe_dump(chosen(answers)[0]), encoding="utf-8")
                load(str(draft))
            return
        except UserError as error:
            problem = error
    if known.keys() <= {"conf", "out"}:
        conf = answers.conf
        raise UserError(
            f"--conf {conf}: it wants more than is asked for here ({problem}); change a copy of it instead:  "
            f"opd config cp {conf} FILE.yaml"
        )
    raise problem


@contextmanager
def drafted(answers: Answers) -> Iterator[Path]:
    """A place for a config that is not there yet, of which errors say nothing."""
    with TemporaryDirectory() as folder:
        draft = Path(folder) / Path(answers.out).name
        try:
            yield draft
        except UserError as error:
            raise UserError(re.sub(rf"conf={re.escape(str(draft))}: | \(in [^)]*\)$", "", str(error))) from error


def written(answers: Answers) -> str:
    """Write the config, if a run of it could begin; returns the run's plan and what to type next.

    Raises:
        UserError: an answer cannot be, they do not go together, or the file is there already; nothing is written.
    """
    for name, said in vars(answers).items():
        check(name, said)
    file = Path(answers.out)
    settings, note = chosen(answers)
    with drafted(answers) as draft:
        config = planned(draft, yaml.safe_dump(settings)).composed.config
        short, why = shortened(settings, config), set_aside(settings, config)
        if short or why:
            config = planned(draft, yaml.safe_dump(settings)).composed.config
        text = commented(answers, settings, [note, short], why | once(config), config)
        looked_at = planned(draft, text).looked_at()
    with whole(file, follow=True) as part:
        part.write_text(text, encoding="utf-8")
    named = quoted(f"conf={file}")
    return f"{looked_at}\nwrote {file}; next:\n  opd plan {named}\n  opd train {named}"


def planned(file: Path, text: str) -> Plan:
    """What training a config would do, with all the checks of a dry run."""
    from opd.commands.train.job import Order, Training

    file.write_text(text, encoding="utf-8")
    return Training(Order({"conf": str(file)})).plan()


def chosen(answers: Answers) -> tuple[dict[str, Any], str]:
    """The settings that follow from answers, the list of defaults first, and how rows were read."""
    from opd.config import catalog
    from opd.config.files import named_in, read
    from opd.config.part import escaped
    from opd.tasks.guess import guess
    from opd.tasks.readers import kind_of

    own = named_in(read(catalog.locate(answers.conf))).get("models", "own") == "own"  # or it has models of its own
    picked = {} if own else {"models": "own"}
    settings: dict[str, Any] = {"name": re.sub(r"[^\w.+-]", "_", Path(answers.out).stem)}
    settings["student"] = {"model": answers.student}
    if answers.teacher == NONE:
        picked["teacher"] = NONE
    else:
        settings["teacher"] = {"model": answers.teacher}
    note = ""
    if not answers.data:
        pass  # those of the method
    elif answers.data in catalog.options("data"):
        picked["data"] = answers.data
    elif kind_of(answers.data):
        found = guess(answers.data)
        picked["data"], note = "rows", found.said
        settings["data"] = {"tasks": {found.name: dict(found.settings)}}
    else:
        settings["data"] = answers.data
    if answers.devices != "one":
        picked["devices"] = answers.devices
    defaults = [answers.conf, *({f"override {group}": option} for group, option in picked.items()), "_self_"]
    return {"defaults": defaults, **escaped(settings)}, note


def shortened(settings: dict[str, Any], config: Config) -> str:
    """Cut prompts and completions to what student and teacher read, in proportion; returns what was cut, for people."""
    from opd.models.facts import context

    models = (config.student.model, getattr(config.teacher, "model", None))
    limits = {name: context(there) for name in models if isinstance(name, str) and (there := _config_of(name))}
    known = {name: limit for name, limit in limits.items() if limit is not None}
    name = min(known, key=lambda name: known[name], default="")
    if not name or config.longest <= known[name] or not isinstance(settings.get("data", {}), dict):
        return ""
    prompt = max(1, config.data.max_prompt_tokens * known[name] // config.longest)
    settings.setdefault("data", {})["max_prompt_tokens"] = prompt
    for part, tokens in (("sampling", config.sampling.max_tokens), ("eval", config.eval.max_tokens)):
        if tokens is not None:
            settings.setdefault(part, {})["max_tokens"] = max(1, min(tokens, known[name] - prompt))
    return f"{name} reads at most {known[name]} tokens, so that prompts and completions are shorter than otherwise."


def set_aside(settings: dict[str, Any], config: Config) -> dict[str, str]:
    """Hold out more of a file's rows where they are so few that figures would say nothing; returns why, by setting."""
    from opd.tasks.files import load

    tasks = settings["data"].get("tasks", {}) if isinstance(settings.get("data"), dict) else {}
    why = {}
    for name, given in tasks.items():
        usual, rows = (
            getattr(config.data.tasks[name], "eval_fraction", 1),
            len(load(given["path"], columns=[given["prompt_column"]])),
        )
        share = min(MOST_HELD_OUT, math.ceil(100 * HELD_OUT / rows) / 100)
        if rows < SOME or share <= usual:
            continue
        given["eval_fraction"] = share
        why[f"data.tasks.{name}.eval_fraction"] = f"{usual:g} of {rows} rows would be too few to tell anything" + (
            f", and about {rows * share:.0f} tell little: name others by eval_path" if rows * share < HELD_OUT else ""
        )
    return why


def once(config: Config) -> dict[str, str]:
    """Why one sample of a prompt is taken, where that is because of the source."""
    from opd.sources.parts import parts_of
    from opd.writing import Repeating

    given = any(isinstance(part, Repeating) and part.repeats for part in parts_of(config.source))
    one = given and config.sampling.n == 1
    return {"sampling.n": "1, as the data has one completion of each, which more would repeat"} if one else {}


def _config_of(name: str) -> Any:
    """A model's, where it is here or known; None where only a hub can tell."""
    from opd.models.loading import load_config
    from opd.plan.known import known_config

    with suppress(UserError):  # which the look at the whole config says, with all others
        return load_config(Pretrained(name)) if Path(name).is_dir() else known_config(name)
    return None


def commented(
    answers: Answers, settings: Mapping[str, Any], notes: Sequence[str], why: Mapping[str, str], config: Config
) -> str:
    """The config as a text, every setting with what it means."""
    tree = filled({k: v for k, v in settings.items() if k != "defaults"}, config)
    out = [
        f"# {answers.student}, taught by {answers.teacher}, on {answers.data}",
        f"# Written by opd init. All settings: opd config show {quoted(answers.out)}",
        f"# One of them: opd config explain optim.lr {quoted(f'conf={answers.out}')}",
        *(f"# {short}" for short in notes[1:] if short),
        "defaults:",
        *(_line(f"  - {text}", said) for text, said in _defaults(settings["defaults"], bool(config.student.lora))),
        "",
        *lines({k: v for k, v in tree.items() if not isinstance(v, dict)}, "", config, "", why),
    ]
    for key, value in tree.items():
        if isinstance(value, dict):
            out += ["", f"{key}:", *lines(value, key, config, "  ", why)]
    if notes[0]:
        out.insert(out.index("  tasks:") + 1, f"    # {notes[0]}")
    return "\n".join(out) + "\n"


def filled(settings: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The settings and those of `SHOWN`, with the values that they have; what is held out of rows, too."""
    tree = {k: dict(v) if isinstance(v, Mapping) else v for k, v in settings.items()}
    for key in SHOWN:
        *path, name = key.split(".")
        holder: Any = config
        for step in path:
            holder = getattr(holder, step)
        if not hasattr(holder, name):  # other objectives have no estimator
            continue
        node = tree
        for step in path:
            node = node.setdefault(step, {})
        if isinstance(node, dict):
            node[name] = getattr(holder, name)
    if isinstance(tree.get("data"), dict) and "tasks" in tree["data"]:
        given = tree["data"]["tasks"].items()
        shares = {name: getattr(config.data.tasks[name], "eval_fraction", None) for name, _ in given}
        tree["data"]["tasks"] = {n: {**t, "eval_fraction": shares[n]} if shares[n] is not None else t for n, t in given}
    return tree


def _defaults(entries: Sequence[Any], lora: bool) -> Iterator[tuple[str, str]]:
    """The entries of the list of defaults, each with what it is; and one that many change, as it is."""
    from opd.config.catalog import described, shipped

    for entry in entries:
        if isinstance(entry, str) and entry != "_self_":
            yield entry, shipped()[entry]
        elif isinstance(entry, Mapping):
            ((key, option),) = entry.items()
            yield f"{key}: {option}", described(key.split()[-1])[option]
    yield f"override student: {'lora' if lora else 'full'}", "full: all weights; lora: adapters, at ten times the rate"
    yield "_self_", "what follows goes over all of these"


def lines(settings: Mapping[str, Any], at: str, config: Config, indent: str, why: Mapping[str, str]) -> Iterator[str]:
    """Settings as YAML, each with the first sentence of what its class says of it, and `why` it is so."""
    for key, value in settings.items():
        where = f"{at}.{key}".lstrip(".")
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from lines(value, where, config, f"{indent}  ", why)
        else:
            said = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
            yield _line(f"{indent}{key}: {said}", "; ".join(filter(None, (_meaning(config, where), why.get(where)))))


def _line(text: str, comment: str) -> str:
    return f"{text:{COLUMN}} # {comment}" if comment else text


def _meaning(config: Config, key: str) -> str:
    """The first sentence that is said of a setting; empty: none."""
    from opd.config.explain import docs, first_sentence

    *path, name = key.split(".")
    holder: Any = config
    for step in path:
        holder = holder[step] if isinstance(holder, Mapping) else getattr(holder, step)
    return "" if isinstance(holder, Mapping) else first_sentence(docs(type(holder)).get(name, ""))
