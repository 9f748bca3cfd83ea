"""The pages: every command and setting in them is composed, every link followed, every message one that there is."""

from __future__ import annotations

import ast
import functools
import json
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from typer.main import get_command

from opd.cli import app
from opd.commands.new import GROUPS, texts
from opd.config.arguments import split_settings
from opd.config.catalog import groups, locate, options, shipped
from opd.config.compose import NotGiven, load
from opd.config.overrides import sweep
from opd.recipe import recipe as recipes
from opd.run.metrics import read_metrics
from opd.types import UserError
from tests.tiny import cli_code

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHERS = sorted((ROOT / "recipes").rglob("*.md"))
"""Pages of the recipes: their links and commands are looked at, too."""
names = functools.partial(pytest.mark.parametrize, ids=lambda p: str(p.relative_to(ROOT)))

NO_SETTINGS = {"key=value", "KEY=VALUE", "group=choice", "HF_HUB_OFFLINE=1"}
"""Spans with an equals sign that are not to be composed."""
LAUNCHERS = {"torchrun", "srun"}
"""What starts the processes of a run."""
OTHER_PROGRAMS = {"uv", "pip", "python", "tensorboard", "trackio", "wandb", "ray", "export", "docker"}
"""In blocks of commands; nothing is known here of their options."""


# What is in a page


@dataclass(frozen=True)
class Fence:
    """A fenced block."""

    info: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that it is: named by the comment in its first line, or behind its language where there are none."""
        first = re.match(r"# ([\w/]+\.(?:py|yaml))\n", self.text)
        named = re.search(r"\S+\.jsonl$", self.info)
        return first[1] if first else named and named[0]


def fences(text: str) -> list[Fence]:
    """The fenced blocks of a page."""
    return [Fence(m[1].strip(), m[2]) for m in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)]


def prose(text: str) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*\n(?:.*\n)*?```$", "", text, flags=re.MULTILINE)


def messages(text: str) -> list[str]:
    """The headings of a page that are messages of the program."""
    return re.findall(r"^### `(.+)`$", text, re.MULTILINE)


def spans(text: str) -> list[str]:
    """The code spans of a page, bars of tables unescaped."""
    return [" ".join(s.replace("\\|", "|").split()) for s in re.findall(r"`([^`]+)`", prose(text))]


def lines_of_commands(block: str) -> Iterator[str]:
    """The commands of a block: joined over backslashes, without comments, parted at `&&`."""
    for line in re.sub(r"\\\n\s*", "", block).splitlines():
        code = re.split(r"(?:^|\s)#", line)[0].strip()
        yield from (part.strip() for part in code.split("&&") if part.strip())


def commands(text: str) -> list[str]:
    """Every command and setting of a page, in its order: blocks first, then spans."""
    out: list[str] = []
    for fence in fences(text):
        if fence.info == "sh":
            out += lines_of_commands(fence.text)
        elif fence.info == "console":
            out += [line[2:] for line in fence.text.splitlines() if line.startswith("$ ")]
    return out + [s for s in spans(re.sub(r"^### `.+`$", "", text, flags=re.MULTILINE)) if is_command(s)]


def is_command(span: str) -> bool:
    """Whether a code span is to be checked: it begins with a program, or a word of it is a setting."""
    if span in NO_SETTINGS or is_call(span):
        return False
    return bool(re.match(r"(opd|make|pip|uv) ", span) or re.search(r"(?:^|\s)'?[~+]*[A-Za-z][\w.@/]*=\S", span))


def is_call(span: str) -> bool:
    """Whether a span is a call in Python."""
    try:
        return isinstance(ast.parse(span, mode="eval").body, ast.Call)
    except SyntaxError:
        return False


def headings(path: Path) -> set[str]:
    """Anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(path.read_text(encoding="utf-8")), re.MULTILINE)
    slugs = [
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", t).lower()).replace(" ", "-") for t in titles
    ]
    return {f"{s}-{n}" if (n := slugs[:i].count(s)) else s for i, s in enumerate(slugs)}


# Checking them

FILLERS = {"NAME": "quickstart", "MODEL": "m", "COMMAND": "train"}
"""What a placeholder is replaced by where it must be something that there is."""
AT_ONCE = {"--help", "--install-completion", "--show-completion"}
"""Options that every command of Typer has, and that would be obeyed while they are parsed."""
BASES = (
    ["conf=quickstart"], ["conf=smollm2"], ["conf=gkd"], ["conf=grpo", "teacher=quickstart"], ["conf=gold"],
    ["conf=minillm"], ["conf=sft"], ["conf=teacher_server"], ["conf=multi_teacher"], ["conf=personalize"],
    ["conf=self_distill"], ["conf=quickstart", "student=lora"], ["conf=quickstart", "objective=top_k"],
    ["conf=sft", "models=smollm2_alone", "data=handbook"],
    ["conf=quickstart", "+teacher@reference=local", "reference.model=m"],
    ["conf=gkd", "models=own", "student.model=s", "teacher.model=t"],
    ["conf=sft", "teacher=cached", "teacher.path=p", "+teacher@teacher.teacher=quickstart"],
    ["conf=quickstart", "teacher=self_ema"], ["conf=quickstart", "data=gym"], ["conf=quickstart", "data=aime"],
    ["conf=math_qwen"], ["conf=quickstart", "devices=ranks"], ["conf=quickstart", "devices=apart"],
    ["conf=quickstart", "devices=ray"],
)  # fmt: skip
"""Configs that a setting may be meant for which stands alone: it must suit one of them."""


def check(command: str) -> None:
    """Parse or compose a command or a span of settings, in the folder of its page; UserError where it is wrong."""
    words = shlex.split(re.sub(r"\$\([^)]*\)", "made", command))
    program, *rest = words
    if program in LAUNCHERS and "opd" in rest:
        program, *rest = rest[rest.index("opd") :]
    if program == "opd":
        check_opd(rest)
    elif program == "make":
        check_make(rest)
    elif program in OTHER_PROGRAMS:
        check_install(words)
    else:
        check_settings(words)


def check_opd(arguments: Sequence[str]) -> None:
    """Parse as the command line does, and compose what it names."""
    arguments = [FILLERS.get(a, a) for a in arguments]
    arguments = [re.sub(r"^conf=NAME$", "conf=quickstart", a).replace("data=NAME", "data=aime") for a in arguments]
    arguments = [a for a in arguments if a not in AT_ONCE]
    if not arguments:
        return
    context = parsed(arguments)
    names = context.command_path.split()[1:]
    given = context.params
    if names == ["config", "show"]:
        load(given["name"], given["settings"] or [])
    elif names == ["config", "cp"]:  # what follows is to find the file
        shutil.copy(locate(given["name"]), given["file"])
    elif names == ["recipe", "run"] and not Path(given["name"]).is_dir() and given["name"] != "quickstart":
        recipes.find(given["name"])
    elif names == ["serve-teacher"] and given["model"].startswith("conf="):
        load(given["model"].removeprefix("conf="))
    elif names in (["train"], ["eval"], ["export"], ["sample"], ["plan"]):
        named, overrides = split_settings(given["settings"] or [], {"conf", "run", "step", "model"})
        if overrides or "conf" in named:
            compose(named.get("conf"), overrides, published=names != ["train"], several=given.get("multirun", False))


def parsed(arguments: Sequence[str]) -> click.Context:
    """The context of the command that arguments name; UserError for an option, a command or a value there is not."""
    command, context, rest = get_command(app), None, list(arguments)
    name = "opd"
    while True:
        try:
            context = command.make_context(name, rest, parent=context)
        except Exception as e:
            if not hasattr(e, "format_message"):  # click's own, whichever copy of it Typer brings
                raise
            raise UserError(f"{shlex.join(arguments)}: {e.format_message()}") from e
        if not hasattr(command, "commands"):
            return context
        rest = [*getattr(context, "_protected_args", []), *context.args]
        name = rest.pop(0)
        if name not in command.commands:
            raise UserError(f"{shlex.join(arguments)}: no command {name}")
        command = command.commands[name]


def check_make(targets: Sequence[str]) -> None:
    """Targets must be there."""
    there = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for target in targets:
        if "=" not in target and target not in there:
            raise UserError(f"make {target}: no such target")


def check_install(words: Sequence[str]) -> None:
    """Extras and files that an installation names must be there."""
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    for word in words:
        for extra in re.findall(r"(?:^\.|^opd)\[([\w,]+)\]", word):
            if missing := set(extra.split(",")) - set(extras):
                raise UserError(f"{shlex.join(words)}: no extra {', '.join(missing)}")
        if word.endswith(".txt") and not (ROOT / word).is_file():
            raise UserError(f"{shlex.join(words)}: no file {word}")


def check_settings(words: Sequence[str]) -> None:
    """Settings, with their config or without one."""
    named, overrides = split_settings(words, {"conf", "run", "step", "model"})
    if wrong := [w for w in overrides if "=" not in w and not w.startswith("~")]:
        raise UserError(f"{shlex.join(words)}: {wrong[0]} is no setting; is this no command? See NO_SETTINGS")
    if "conf" in named or overrides:
        with suppress(NotGiven):  # a config alone may leave something to the reader
            compose("quickstart" if named.get("conf") == "NAME" else named.get("conf"), overrides)


def compose(conf: str | None, overrides: Sequence[str], published: bool = False, several: bool = False) -> None:
    """Compose, every combination of a sweep; without a config, on the bases until it suits one."""
    for one in sweep(overrides) if several else [list(overrides)]:
        if conf is None:
            suits_one(tuple(one), published)
        elif conf in shipped():
            composed(conf, tuple(one), published)
        else:
            load(conf, one, published)


@functools.cache
def composed(conf: str, overrides: tuple[str, ...], published: bool) -> None:
    """Compose a config that ships; several pages name the same ones."""
    load(conf, overrides, published)


@functools.cache
def suits_one(overrides: tuple[str, ...], published: bool) -> None:
    """Compose settings that stand alone on the bases, the likeliest first; UserError where they suit none."""
    group, _, choice = overrides[0].partition("=")
    if len(overrides) == 1 and choice in options(group) and group in groups():
        return  # that each is built, and with what, test_config.py says
    part = overrides[0].split(".")[0].split("=")[0]
    wrong: list[UserError] = []
    for base in sorted(BASES, key=lambda b: b[0] != "conf=quickstart" and not any(w.startswith(part) for w in b)):
        try:
            composed(base[0].removeprefix("conf="), (*base[1:], *overrides), published)
        except UserError as e:
            wrong.append(e)
        else:
            return
    raise UserError(f"{shlex.join(overrides)}: it suits no config: {wrong[0]}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader stands: the recipes are there, and the files that the page has shown."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    for name in ("prompts", "sums"):  # of the reader's own
        (tmp_path / f"{name}.jsonl").write_text('{"question": "1+1=", "answer": "2"}\n')
    for name, text in (item for kind in GROUPS for item in texts(kind, f"my_{kind}").items()):  # opd new
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def write_files(page: Path, folder: Path) -> list[str]:
    """Write the files that a page shows; returns their names."""
    shown = [f for f in fences(page.read_text(encoding="utf-8")) if f.file]
    for fence in shown:
        place = folder / str(fence.file)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(fence.text)
    return [str(f.file) for f in shown]


@names("page", [PAGES[0], *(pytest.param(p, marks=pytest.mark.slow) for p in [*PAGES[1:], *OTHERS])])
def test_every_command_and_setting_of_a_page_is_one_that_there_is(page: Path, folder: Path) -> None:
    write_files(page, folder)
    wrong = []
    for command in dict.fromkeys(commands(page.read_text(encoding="utf-8"))):
        try:
            check(command)
        except (UserError, ValueError) as e:
            wrong.append(f"{command}\n    {e}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "command",
    [
        "opd trian conf=quickstart", "opd train --resumee", "opd train conf=quickstrat", "opd config showw quickstart",
        "opd train conf=quickstart optim.lrr=1", "opd eval run=DIR data=aimee", "opd recipe run estimator",
        "conf=quickstart objective.estimator=exactly", "objective=reverse_lk", "optim.lr=-1", "make quick",
        'pip install -e ".[task]"', "conf=quickstart and more", "opd sample -n 0",
    ],
)  # fmt: skip
def test_a_command_that_there_is_not_is_noticed(command: str, folder: Path) -> None:
    assert commands(f"see `{command}`") == [command]
    with pytest.raises(UserError):
        check(command)


def test_commands_are_found_wherever_they_stand() -> None:
    page = (
        "`opd a` and `plain`\n\n```sh\nopd b \\\n    c=1   # comment\nopd d && opd e\n```\n\n| `x=1 y=2` |\n"
        "\n```console\n$ opd f\nopd g\n```\n"
    )
    assert commands(page) == ["opd b c=1", "opd d", "opd e", "opd f", "opd a", "x=1 y=2"]


@names("page", [*PAGES, *OTHERS])
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(text))):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        inside = place.relative_to(ROOT).as_posix() if place.is_relative_to(ROOT) else ""
        if not inside or not place.exists():
            wrong.append(target)
        elif anchor and anchor not in headings(place):
            wrong.append(f"{target}: it has {', '.join(sorted(headings(place)))}")
    assert not wrong, "\n".join(wrong)


def test_every_page_is_in_the_index_and_the_first_page_is_one_screen() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in PAGES[1:] if p.name != "README.md" and f"({p.name})" not in index] == []
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 120


def test_every_block_says_what_it_is_and_python_ones_compile() -> None:
    kinds = set()
    for page in PAGES:
        for fence in fences(page.read_text(encoding="utf-8")):
            kinds.add(fence.info)
            if fence.info.startswith("python"):
                compile(fence.text, str(page), "exec")
            if fence.info.startswith("json"):
                assert all(json.loads(line) for line in fence.text.splitlines())
    assert kinds <= {"sh", "console", "text", "yaml", "python", "python runnable", "json sums.jsonl"}


# Whether the pages are whole


def every_span() -> set[str]:
    """The code spans and blocks of all pages, word by word."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    words = {w for text in texts for s in (*spans(text), *(f.text for f in fences(text))) for w in s.split()}
    return words | {s for text in texts for s in spans(text)}


def test_every_config_command_and_choice_that_ships_is_told_of() -> None:
    told = every_span()
    commands_ = get_command(app).commands
    assert [name for name in shipped() if f"conf={name}" not in told] == []
    assert [name for name in commands_ if not any(s.startswith(f"opd {name}") for s in told)] == []
    choices = [(g, o) for g in groups() for o in options(g) if g not in ("eval", "optim", "student")]
    assert [f"{g}={o}" for g, o in choices if not {f"{g}={o}", o} & told] == []


def test_every_example_of_extending_is_one_run_that_trains(
    folder: Path, student_dir: Path, teacher_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = ROOT / "docs" / "extending.md"
    files = write_files(page, folder)
    assert len(files) == len(set(files)) == 12
    (command,) = (c for c in commands(page.read_text(encoding="utf-8")) if c.startswith("opd train conf=mine"))
    tiny = (
        f"student.model={student_dir}", f"teacher.teacher.model={teacher_dir}", "student.dtype=float32", "steps=1",
        "teacher.teacher.prompt=student", "eval.size=4", "preflight.prompts=2", "sampling.max_tokens=8",
        "run=made", "source.tokens=4", "data.template=plain",
    )  # fmt: skip
    assert cli_code([*shlex.split(command)[1:], *tiny, "-q"]) == 0
    rows = read_metrics(folder / "made" / "metrics.jsonl")
    assert rows[1]["optim/grad_norm"] > 0
    assert rows[1]["optim/trained_tokens"] <= 4 * rows[1]["rollout/count"]
    assert undocumented(rows[1] | rows[0]) == []


def undocumented(row: dict[str, float]) -> list[str]:
    """Metrics of a run that no page names; PHASE, TASK and K stand for any."""
    known = [re.escape(s) for s in every_span() if re.match(r"(kl|rollout|optim|perf|cost|eval)/", s)]
    pattern = "|".join(re.sub("PHASE|TASK|K", r"\\w+", s) for s in known)
    return [name for name in row if name != "step" and not re.fullmatch(pattern, name)]


def test_a_recipe_of_ones_own_is_written_as_the_page_says(folder: Path) -> None:
    write_files(ROOT / "docs" / "results.md", folder)
    assert [s.name for s in recipes.load(folder / "rates" / "run.py").stages] == ["lr-1e-3", "lr-2e-3"]


# Messages

Parts = list[str | None]
"""A text as the program makes it; None is what is filled in."""


@functools.cache
def texts_of_the_program() -> list[Parts]:
    """Every text in the package, formatted ones in their parts."""
    found: list[Parts] = []
    for path in (ROOT / "opd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append([v.value if isinstance(v, ast.Constant) else None for v in node.values])
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append([node.value])
    return [parts for parts in found if sum(len(p or "") for p in parts) >= 15]


def begins_as(parts: Sequence[str | None], text: str, whole: bool) -> bool:
    """Whether `text` can be what the parts make, or, unless `whole`, its beginning."""
    if not text and not whole:
        return True
    if not parts:
        return not text
    first, *rest = parts
    if first is None:
        return any(begins_as(rest, text[i:], whole) for i in range(len(text) + 1))
    if text.startswith(first):
        return begins_as(rest, text[len(first) :], whole)
    return not whole and first.startswith(text)


EXPLAINED = messages((ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("message", EXPLAINED)
def test_every_message_that_is_explained_is_one_that_the_program_gives(message: str) -> None:
    text, whole = (message.removesuffix("...").rstrip(), False) if message.endswith("...") else (message, True)
    known = [p for p in texts_of_the_program() if begins_as(p, text, whole)]
    literal = [sum(len(x or "") for x in p if (x or "").strip(" :=;'`") and (x or "")[:12] in text) for p in known]
    assert max(literal, default=0) >= 12, "no text of the program begins so"


def test_the_file_tree_names_files_that_there_are() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (tree,) = (f.text for f in fences(text) if f.text.startswith("opd/\n"))
    there = {p.name for p in (ROOT / "opd").rglob("*.py")}
    assert [name for name in re.findall(r"\b\w+\.py\b", tree) if name not in there] == []
    packages = [p.parent for p in (ROOT / "opd").rglob("__init__.py") if p.parent != ROOT / "opd"]
    named = set(re.findall(r"(\w+)/(?=\s)", tree)) - {"opd", "conf", "recipes", "docs", "tests"}
    assert {p.name for p in packages if p.parent == ROOT / "opd"} <= named <= {p.name for p in packages}


def test_the_pages_python_runs_as_it_stands(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = [f.text for f in fences(text) if f.info == "python runnable"]
    assert len(blocks) >= 3
    code = (
        "\n".join(blocks).replace('"quickstart", "steps=10"', f'"{config}", "steps=4"').replace("steps=20", "steps=6")
    )
    assert str(config) in code
    names: dict[str, Any] = {}
    exec(compile(code, "python.md", "exec"), names)
    assert len(names["frame"]) == 7
