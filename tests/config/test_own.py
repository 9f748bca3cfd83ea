"""Parts of one's own, named by file or class: each takes the place of what ships, and its mistakes are its own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import opd.objectives
from opd.config import catalog
from opd.config.blame import blaming, place
from opd.config.catalog import groups
from opd.config.compose import draft_of_run, load
from opd.config.part import BY_CLASS, BY_FILE
from opd.config.settings import Config
from opd.run.interrupt import Interrupted
from opd.types import PartError, RunError, UserError
from tests.tiny import cli_code

OBJECTIVE = """
from dataclasses import dataclass
from opd.needs import Needs

@dataclass(frozen=True)
class Mine:
    k: int = 1
    wrong: str = ""

    def __post_init__(self):
        if self.wrong == "made":
            1 / 0
        if self.wrong == "refused":
            raise ValueError("wrong=refused: allowed is another word")

    @property
    def needs(self):
        if self.wrong == "needed":
            return self.nothing
        return Needs(logprobs=True)

    def advantages(self, completions):
        return completions.teacher_logprobs.nan_to_num() * completions.mask

    def loss(self, tokens):
        return helped(tokens) if self.wrong == "loss" else -tokens.advantages * tokens.logprobs

@dataclass(frozen=True)
class Half:
    def loss(self, tokens):
        return tokens

def helped(tokens):
    return tokens.logprobs.reshape(7, 7, 7, 7)
"""
TASK = """
from dataclasses import dataclass
from opd.types import Example

@dataclass(frozen=True)
class TwoSums:
    size: int = 4

    def examples(self, split):
        return [Example(f"{split}{i}", ({"role": "user", "content": "1+1:"},), answer="2") for i in range(self.size)]

    def verify(self, example, text):
        return 1.0
"""
FILES = {
    "own_objective_xyz.py": OBJECTIVE,
    "own_task_xyz.py": TASK,
    "mine.yaml": "_target_: own_objective_xyz.Mine\nk: 2\n",
    "shares.yaml": "defaults:\n  - gkd\n  - _self_\nbeta: 0.25\n",
    "coef.yaml": "coef: 3\n",
    "unknown.yaml": "_target_: own_objective_xyz.Mine\nkk: 2\n",
    "broken.yaml": "a: [1\n",
    "task.yaml": "_target_: own_task_xyz.TwoSums\nsize: 6\n",
    "tasks.yaml": "tasks:\n  a: {_target_: own_task_xyz.TwoSums}\nprompts_per_step: 3\n",
    "rate.yaml": "lr: 0.25\n",
    "rows.jsonl": '{"question": "1+1", "answer": "2"}\n',
    "gkd.yaml": "_target_: own_objective_xyz.Mine\n",
    "syntax_xyz.py": "x = 1\nclass Mine(\n",
    "raises_xyz.py": "x = 1\n\ny = nothing\n",
    "wants_xyz.py": "\nimport not_there_xyz\n",
    "imp.py": "class Mine:\n    pass\n",
}


@pytest.fixture
def here(config: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder with a config and parts of one's own; the config's name."""
    for name, text in FILES.items():
        (config.parent / name).write_text(text)
    monkeypatch.chdir(config.parent)
    monkeypatch.setattr(sys, "path", [*sys.path, str(config.parent)])
    importlib.invalidate_caches()
    yield config.name
    for name in [n for n in sys.modules if n.endswith("_xyz")]:
        del sys.modules[name]


def part(config: Any) -> tuple[str, dict[str, Any]]:
    return type(config.objective).__name__, vars(config.objective)


def test_every_part_that_can_be_named_is_one_and_every_class_of_a_config_can() -> None:
    assert set(BY_FILE) == {*groups(), "reference"} - {"models", "weight"}
    kinds = {name for name, hint in get_type_hints(Config).items() if "_target_" in text_of(hint)}
    assert kinds | {"data"} == set(BY_CLASS)


def text_of(hint: Any) -> str:
    from opd.config.annotations import describe

    return describe(hint)


@pytest.mark.parametrize(
    ("overrides", "cls", "settings"),
    [
        (["objective=mine.yaml"], "Mine", {"k": 2}),
        (["objective=./mine.yaml", "objective.k=5"], "Mine", {"k": 5}),
        (["objective=own_objective_xyz.Mine"], "Mine", {"k": 1}),
        (["objective.k=3", "objective=own_objective_xyz.Mine"], "Mine", {"k": 3}),
        (["objective=own_objective_xyz.Mine", "objective=mine.yaml"], "Mine", {"k": 2}),
        (["objective=own_objective_xyz.Mine", "objective=gkd"], "GKD", {"beta": 1.0}),
        (["objective=gkd", "objective=mine.yaml"], "Mine", {"k": 2}),
        (["objective=shares.yaml"], "GKD", {"beta": 0.25, "temperature": 1.0}),
        (["objective=coef.yaml"], "ReverseKL", {"coef": 3.0, "kind": "importance_sampling"}),
    ],
)
def test_a_part_named_by_file_or_class_replaces_the_one_that_ships_whole(
    overrides: list[str], cls: str, settings: dict[str, Any], here: str
) -> None:
    name, found = part(load(here, overrides).config)
    assert name == cls
    assert found.items() >= settings.items()


@pytest.mark.parametrize(
    ("overrides", "tasks", "prompts"),
    [
        (["data=own_task_xyz.TwoSums", "data.tasks.two_sums.size=5"], {"two_sums": 5}, 8),
        (["data=task.yaml"], {"two_sums": 6}, 8),
        (["data=tasks.yaml"], {"a": 4}, 3),
        (["data=tasks.yaml", "data.prompts_per_step=2"], {"a": 4}, 2),
        (["data=rows.jsonl", "data=task.yaml"], {"two_sums": 6}, 8),
        (
            ["data=arithmetic", "data.tasks={mine: {_target_: own_task_xyz.TwoSums}}"],
            {"arithmetic": 1_000_000, "mine": 4},
            8,
        ),
        (["data.tasks.more=own_task_xyz.TwoSums"], {"arithmetic": 1_000_000, "more": 4}, 8),
    ],
)
def test_a_task_of_ones_own_is_the_data(overrides: list[str], tasks: dict[str, int], prompts: int, here: str) -> None:
    data = load(here, overrides).config.data
    assert {name: task.size for name, task in data.tasks.items()} == tasks
    assert data.prompts_per_step == prompts


def test_a_file_for_a_part_without_a_class_changes_what_it_names_alone(here: str) -> None:
    optim = load(here, ["optim=rate.yaml"]).config.optim
    assert (optim.lr, optim.micro_tokens) == (0.25, 4096)


def test_what_ships_goes_before_a_file_or_class_of_that_name(here: str) -> None:
    assert part(load(here, ["objective=gkd"]).config)[0] == "GKD"
    assert part(load(here, ["objective=gkd.yaml"]).config)[0] == "Mine"


WRITTEN = "defaults:\n  - tiny\n  - _self_\n"


@pytest.mark.parametrize(
    ("text", "overrides", "cls", "settings"),
    [
        ("objective: own_objective_xyz.Mine", [], "Mine", {"k": 1}),
        ("objective: mine.yaml", ["objective.k=9"], "Mine", {"k": 9}),
        ("objective: mine.yaml", ["objective=gkd"], "GKD", {}),
        ("objective: gkd", [], "GKD", {"beta": 1.0}),
        ("objective: {_target_: own_objective_xyz.Mine, k: 7}", [], "Mine", {"k": 7}),
        ("objective: {_target_: own_objective_xyz.Mine, k: 7}", ["objective=gkd"], "GKD", {}),
        ("objective: {coef: 2}", [], "ReverseKL", {"coef": 2.0}),
        ("objective: {_target_: opd.objectives.reverse_kl.ReverseKL, coef: 2}", [], "ReverseKL", {"coef": 2.0}),
    ],
)
def test_a_configs_file_names_them_alike(
    text: str, overrides: list[str], cls: str, settings: dict[str, Any], here: str
) -> None:
    Path("whole.yaml").write_text(f"{WRITTEN}{text}\n")
    name, found = part(load("whole.yaml", overrides).config)
    assert name == cls
    assert found.items() >= settings.items()


def test_a_class_deep_in_a_configs_file_takes_the_place_of_another_whole(here: str) -> None:
    Path("whole.yaml").write_text(
        f"{WRITTEN}data:\n  prompts_per_step: 4\n  tasks:\n    arithmetic: {{_target_: own_task_xyz.TwoSums}}\n"
    )
    data = load("whole.yaml").config.data
    assert (data.prompts_per_step, type(data.tasks["arithmetic"]).__name__) == (4, "TwoSums")


REFUSED = [
    ("objective=own_objective_xyz.Mine objective.coef=2", "objective.coef=2: no such setting; allowed here: k"),
    (
        "objective=unknown.yaml",
        "objective.kk=2: no such setting, did you mean k? allowed here: k, wrong (in unknown.yaml)",
    ),
    ("objective=mien.yaml", "objective=mien.yaml: no such file, did you mean mine.yaml?"),
    ("objective=broken.yaml", "objective=broken.yaml: line 2 is not YAML"),
    ("objective=own_objective_xyz.py", "is to be named, as in objective=own_objective_xyz.Mine"),
    ("objective=own_objective_xzy.Mine", "no such module, did you mean own_objective_xyz?"),
    ("objective=own_objective_xyz.Mien", "no such dataclass, did you mean Mine?"),
    ("objective=own_objective_xyz.Half", "of the kind Objective; it has no needs, advantages"),
    ("models=mine.yaml", "defaults: there is no models to override; add one to the list, as in  - models: OPTION"),
    ("objective=syntax_xyz.Mine", "syntax_xyz.py:2: SyntaxError: "),
    ("objective=raises_xyz.Mine", "raises_xyz.py:3: NameError: name 'nothing' is not defined"),
    ("objective=wants_xyz.Mine", "needs not_there_xyz, which is not installed (wants_xyz.py:2)"),
    ("objective=json.Mine", "no such dataclass"),
    ("objective=own_objective_xyz.Mine objective.wrong=made", "own_objective_xyz.py:12: ZeroDivisionError"),
    ("objective=own_objective_xyz.Mine objective.wrong=refused", "objective.wrong=refused: allowed is another word"),
    ("objective=own_objective_xyz.Mine objective.wrong=needed", "own_objective_xyz.py:19: AttributeError"),
]


@pytest.mark.parametrize(("overrides", "says"), REFUSED)
def test_a_mistake_in_it_is_one_line_with_its_place(overrides: str, says: str, here: str) -> None:
    with pytest.raises(UserError) as caught:
        load(here, overrides.split())
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("line", "ours"), [
    ("from opd.needs import NoSuchThing", True), ("import opd.nowhere_xyz", True), ("1 / 0", True),
    ("import not_there_xyz", False),
])  # fmt: skip
def test_a_module_of_opds_own_that_cannot_be_imported_is_no_mistake_in_a_setting(
    line: str,
    ours: bool,
    here: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(opd.objectives, "__path__", [*opd.objectives.__path__, str(tmp_path)])
    Path(tmp_path, "broken_xyz.py").write_text(f"{line}\n")
    code = cli_code(["train", f"conf={here}", "objective._target_=opd.objectives.broken_xyz.Mine"])
    said = capsys.readouterr().err
    if ours:
        assert (code, said.startswith("opd: internal error, ")) == (1, True), said
        assert "objective" not in said
    else:
        assert (code, "its module needs not_there_xyz, which is not installed" in said) == (2, True), said


def test_a_module_that_another_one_hides_is_told_of(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("calendar.py").write_text("class Mine:\n    pass\n")
    with pytest.raises(UserError, match=r"calendar is \S+, which hides \S+; give yours another name"):
        load(here, ["objective=calendar.Mine"])


# While it runs


def call_it(wrong: str) -> Callable[[], object]:
    module = importlib.import_module("own_objective_xyz")
    return lambda: module.Mine(wrong=wrong).loss(None)


MINE = {"objective": {"_target_": "own_objective_xyz.Mine"}}


def test_an_error_of_a_part_is_told_with_its_file_and_line(here: str) -> None:
    with (
        pytest.raises(PartError, match=r"^own_objective_xyz.py:34: AttributeError: .*; see it with --debug$"),
        blaming(MINE),
    ):
        call_it("loss")()


@pytest.mark.parametrize("settings", [{}, {"objective": {"_target_": "opd.objectives.gkd.GKD"}}])
def test_an_error_of_no_part_of_ones_own_goes_on_as_it_is(settings: dict[str, Any], here: str) -> None:
    with pytest.raises(AttributeError), blaming(settings):
        call_it("loss")()


@pytest.mark.parametrize("error", [UserError("a"), RunError("b"), Interrupted(15, "c"), MemoryError()])
def test_what_is_nobodys_mistake_goes_on_as_it_is(error: Exception, here: str) -> None:
    Path("own_wrapper_xyz.py").write_text("def call(error):\n    raise error\n")
    module = importlib.import_module("own_wrapper_xyz")
    with pytest.raises(type(error)) as caught, blaming({"objective": {"_target_": "own_wrapper_xyz.Mine"}}):
        module.call(error)
    assert caught.value is error


def test_where_opd_raises_for_a_part_both_places_are_told(here: str) -> None:
    Path("own_caller_xyz.py").write_text("from opd.hints import shown, line\n\ndef call():\n    return line(None)\n")
    module = importlib.import_module("own_caller_xyz")
    with pytest.raises(AttributeError) as caught:
        module.call()
    assert place(caught.value, {"own_caller_xyz"}).startswith("own_caller_xyz.py:4 (in opd/hints.py:")


@pytest.mark.slow
def test_a_run_ends_with_the_line_in_a_part_that_raised_and_a_good_one_says_how_to_go_on(
    here: str, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["-q", "steps=1", "eval.every=0", "eval.size=2", f"conf={here}", "objective=mine.yaml"]
    assert cli_code(["train", *short, "run=bad", "objective.wrong=loss"]) == 1
    assert "opd: own_objective_xyz.py:34: RuntimeError: shape" in capsys.readouterr().err
    assert cli_code(["train", *short, "run=good"]) == 0
    assert "opd eval run=good --parts own_objective_xyz" in capsys.readouterr().out
    del sys.modules["own_objective_xyz"]  # what has run already is trusted
    assert cli_code(["train", "--resume", "--dry-run", "run=good"]) == 2
    assert cli_code(["train", "--resume", "--dry-run", "run=good", "--parts", "own_objective_xyz"]) == 0


# Whose it is


def run_of(text: str) -> Path:
    folder = Path("somebodys")
    folder.mkdir()
    settings = load("tiny.yaml").yaml
    (folder / "config.yaml").write_text(settings.replace("_target_: opd.objectives.reverse_kl.ReverseKL", text))
    return folder / "config.yaml"


@pytest.mark.parametrize("typed", ["objective=own_objective_xyz.Mine", "objective=mine.yaml"])
def test_a_part_that_is_typed_is_trusted_of_a_run(typed: str, here: str) -> None:
    made = draft_of_run(run_of("_target_: opd.objectives.gkd.GKD"), [typed], ())
    assert type(made.checked().config.objective).__name__ == "Mine"


def test_a_part_that_a_runs_folder_names_is_not(here: str) -> None:
    path = run_of("_target_: own_objective_xyz.Mine")
    with pytest.raises(UserError, match="--parts own_objective_xyz"):
        draft_of_run(path, ["optim.lr=1e-5"], ())
    path.write_text("defaults:\n  - quickstart\n  - _self_\nobjective: mine.yaml\n")
    assert draft_of_run(path, [], ()).own.parts == {}
    assert "own_objective_xyz" not in sys.modules


def test_data_that_is_there_and_is_no_file_of_rows_is_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / "rows.xz").write_text("")
    for there, told in ((tmp_path, "a folder of them"), (tmp_path / "rows.xz", "write them as one")):
        with pytest.raises(UserError, match=f"it is there, and is no file of rows .*; {told}"):
            load("quickstart", [f"data={there}"])


def test_a_model_of_ones_own_at_the_rate_of_those_that_ship_is_told() -> None:
    own = ["student.model=mine", "teacher.model=other"]
    said = "optim.lr=0.001, sampling.max_tokens=40: as for models=quickstart, not for models of yours: "
    assert said + "models=own has those" in load("gkd", own).notes
    assert not [n for n in load("gkd", [*own, "optim.lr=1e-4", "sampling.max_tokens=64"]).notes if "models=own" in n]
    assert not [n for n in load("gkd", [*own, "models=own", "data=quickstart"]).notes if "models=own" in n]
    assert not [n for n in load("gkd").notes if "models=own" in n]


@pytest.mark.parametrize("command", ["train", "plan"])
def test_a_config_that_is_typed_without_its_key_is_told_how(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code([command, "mine.yaml"]) == 2
    assert "mine.yaml: allowed is KEY=VALUE; a config is conf=mine.yaml, a run run=mine.yaml" in capsys.readouterr().err


PRESETS = "steps: 7\nstudent: {model: s}\nteacher: {model: t}\nsampling: {max_tokens: 99, n: 2}\n"


@pytest.mark.parametrize(("conf", "more"), [
    ("own", ""), ("gkd", ""), ("minillm", ""), ("mine.yaml", ""),
    ("mine.yaml", "defaults: [own, override /optim: mine, _self_]\neval: {size: 5}\n"),
])  # fmt: skip
def test_presets_in_a_file_are_those_of_the_same_name_beside_a_config_wherever_the_file_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conf: str, more: str
) -> None:
    monkeypatch.chdir(tmp_path)
    beside, data = tmp_path / "beside", ("data=arithmetic",)
    for folder in (beside / "models", tmp_path / "my files"):
        folder.mkdir(parents=True)
    for folder in (beside, tmp_path):  # a config's options are beside it
        (folder / "optim").mkdir()
        (folder / "optim/mine.yaml").write_text("lr: 0.25\n")
    text = f"{more}{PRESETS}"
    (tmp_path / "my files/a=b, c.yaml").write_text(text)
    (beside / "models/mine.yaml").write_text(f"# @package _global_\n{text}")
    Path("mine.yaml").write_text("defaults: [quickstart, _self_]\nsampling: {n: 3}\n")
    shipped = conf if conf == "mine.yaml" else str(catalog.locate(conf))
    (beside / "mine.yaml").write_text(Path(shipped).read_text())
    given = load(conf, [*data, "models='my files/a=b, c.yaml'"])
    assert given.config == load(str(beside / "mine.yaml"), [*data, "models=mine"]).config
    assert (given.config.steps, given.config.student.model, given.config.sampling.max_tokens) == (7, "s", 99)
    if "mine" in more:
        assert (given.config.optim.lr, given.config.eval.size) == (0.25, 5)


@pytest.mark.parametrize(("name", "text", "said"), [
    ("no.yaml", None, "models=no.yaml: no such file"),
    ("x.yaml", "- a list", "models=x.yaml: it holds a list"),
    ("x.yaml", "a: [", "models=x.yaml: line"),
    ("x.yaml", "stepz: 3", "stepz=3: no such setting, did you mean steps"),
    ("x.yaml", "optim: {lr: high}", "optim.lr=high: allowed is a number above 0"),
    ("x.py", "class A: pass", "models=x.py: allowed is a .yaml file"),
])  # fmt: skip
def test_a_mistake_in_presets_of_ones_own_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str | None, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path(name).write_text(text)
    with pytest.raises(UserError) as error:
        load("quickstart", [f"models={name}", "steps=3", "sampling.max_tokens=4", "student.model=s", "teacher.model=t"])
    assert str(error.value).startswith(said)
    assert str(error.value).startswith("models=") or str(error.value).endswith(f"(in {Path(name).resolve()})")


def test_presets_beside_a_config_that_are_not_of_a_whole_run_are_told_how(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/mine.yaml").write_text(PRESETS)
    (tmp_path / "c.yaml").write_text("defaults: [own, _self_]\n")
    with pytest.raises(UserError, match=r"^models: .* begins with the line  # @package _global_$"):
        load(str(tmp_path / "c.yaml"), ["models=mine"])


def test_a_run_takes_presets_in_a_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run/config.yaml").write_text(load("quickstart").yaml)
    Path("x.yaml").write_text("steps: 7\n")
    assert draft_of_run(Path("run/config.yaml"), ["models=x.yaml"], ()).checked().config.steps == 7
