"""`opd init`: a commented config from flags or from what is answered, which is one that can be trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from opd.commands.init.answers import Answers
from opd.commands.init.command import QUESTIONS, asked
from opd.commands.init.draft import written
from opd.config.compose import load
from opd.tasks.exact_match import ExactMatch
from opd.teachers.none import NoTeacher
from tests.tiny import cli_code

FLAGS = ["--student", "S/s", "--teacher", "T/t", "--data", "sums.jsonl"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with rows."""
    monkeypatch.chdir(tmp_path)
    Path("sums.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    return tmp_path


def test_flags_alone_make_a_config_that_says_what_each_setting_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli_code(["init", *FLAGS]) == 0
    out = capsys.readouterr().out
    assert out.startswith("plan: 200 steps")
    assert out.endswith("wrote mine.yaml; next:\n  opd plan conf=mine.yaml\n  opd train conf=mine.yaml\n")
    config = load("mine.yaml").config
    assert (config.name, config.student.model, config.teacher.model) == ("mine", "S/s", "T/t")
    (task,) = config.data.tasks.values()
    assert isinstance(task, ExactMatch)
    assert (task.path, task.prompt_column, task.within) == ("sums.jsonl", "question", True)
    lines = Path("mine.yaml").read_text().splitlines()
    bare = [line for line in lines if line and not line.endswith(":") and "#" not in line]
    assert [line for line in bare if "_target_" not in line] == []


def test_a_config_that_no_run_could_begin_with_is_not_written(
    folder: Path, student_dir: Path, teacher_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("sums.jsonl").write_text('{"question": "", "answer": "2"}\n')
    flags = ["--student", str(student_dir), "--teacher", str(teacher_dir), "--data", "sums.jsonl", "--out", "mine.yaml"]
    assert cli_code(["init", *flags]) == 2
    assert "this prompt is an empty text" in capsys.readouterr().err
    assert not Path("mine.yaml").exists()


def test_lengths_are_what_student_and_teacher_read(folder: Path, student_dir: Path, teacher_dir: Path) -> None:
    flags = ["--student", str(student_dir), "--teacher", str(teacher_dir), "--data", "sums.jsonl", "--out", "mine.yaml"]
    assert cli_code(["init", *flags]) == 0
    before, config = load("own", ["student.model=S/s", "teacher.model=T/t"]).config, load("mine.yaml").config
    assert before.longest > config.longest == 512
    assert config.data.max_prompt_tokens == 512 * before.data.max_prompt_tokens // before.longest
    assert f"# {student_dir} reads at most 512 tokens" in Path("mine.yaml").read_text()


def test_it_is_the_config_that_the_same_would_be_on_the_command_line(folder: Path) -> None:
    assert cli_code(["init", *FLAGS, "--method", "gkd", "--devices", "apart", "--out", "g.yaml"]) == 0
    typed = ["models=own", "student.model=S/s", "teacher.model=T/t", "data=sums.jsonl", "devices=apart", "name=g"]
    assert load("g.yaml").config == load("gkd", typed).config


@pytest.mark.parametrize(("rows", "share"), [(9, 0.05), (30, 0.2), (300, 0.15), (900, 0.05), (5000, 0.05)])
def test_of_few_rows_more_are_held_out_and_it_is_said_why(folder: Path, rows: int, share: float) -> None:
    Path("sums.jsonl").write_text("".join(f'{{"question": "{i}+1", "answer": "{i + 1}"}}\n' for i in range(rows)))
    assert cli_code(["init", *FLAGS]) == 0
    task = load("mine.yaml").config.data.tasks["sums"]
    assert isinstance(task, ExactMatch)
    assert task.eval_fraction == share
    (line,) = (line for line in Path("mine.yaml").read_text().splitlines() if " eval_fraction: " in line)
    assert (f"0.05 of {rows} rows would be too few" in line) == (share > 0.05)
    assert ("tell little" in line) == (share == 0.2)


@pytest.mark.parametrize(("method", "said"), [("own", False), ("gkd", True), ("sft", True), ("minillm", False)])
def test_a_prompt_with_one_completion_in_the_data_is_sampled_once(folder: Path, method: str, said: bool) -> None:
    assert cli_code(["init", *FLAGS, "--method", method]) == 0
    (line,) = (line for line in Path("mine.yaml").read_text().splitlines() if line.startswith("  n: "))
    assert line.startswith("  n: 1 " if said else "  n: 4 ")
    assert line.endswith("which more would repeat") == said


@pytest.mark.parametrize(
    ("flags", "tasks"),
    [
        (["--data", "everyday"], ["everyday"]),
        (["--data", "own_init_xyz.Mine"], ["mine"]),
        (["--data", "sums.jsonl", "--method", "personalize"], ["handbook", "sums"]),
    ],
)
def test_data_may_be_what_ships_or_a_task_of_ones_own(flags: list[str], tasks: list[str], folder: Path) -> None:
    Path("own_init_xyz.py").write_text(
        "from dataclasses import dataclass\nfrom opd.tasks.arithmetic import Arithmetic\n"
        "@dataclass(frozen=True)\nclass Mine(Arithmetic):\n    pass\n"
    )
    assert cli_code(["init", *FLAGS[:4], *flags]) == 0
    assert sorted(load("mine.yaml").config.data.tasks) == tasks


def test_a_method_without_a_teacher_is_asked_for_none(folder: Path) -> None:
    assert cli_code(["init", *FLAGS, "--teacher", "none", "--method", "grpo"]) == 0
    assert isinstance(load("mine.yaml").config.teacher, NoTeacher)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "opd init: --student, --teacher, --data must be given; only at a terminal are they asked for"),
        (FLAGS[:4], "opd init: --data must be given"),
        ([*FLAGS, "--student", ""], "--student: it is empty; give one"),
        ([*FLAGS, "--data", "smus.jsonl"], "--data smus.jsonl: there is no such file"),
        ([*FLAGS, "--data", "evryday"], "--data evryday: no file of rows (.jsonl, .csv, ...), did you mean everyday?"),
        ([*FLAGS, "--student", "./nowhere"], "model ./nowhere: there is no such folder"),
        ([*FLAGS, "--conf", "gdk"], "--conf gdk: no such config, did you mean gkd?"),
        ([*FLAGS, "--devices", "two"], "--devices two: no such devices; there are apart, one, ranks, ray"),
        ([*FLAGS, "--out", "mine.yml"], "mine.yml: allowed is a name that ends in .yaml"),
        ([*FLAGS, "--out", "there.yaml"], "there.yaml: there is such a file already"),
        ([*FLAGS, "--teacher", "none"], "objective=reverse_kl: it needs log-probs"),
        ([*FLAGS, "--conf", "multi_teacher"], "teacher.model=T/t: no such setting"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    arguments: list[str], says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("there.yaml").write_text("mine")
    assert cli_code(["init", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"opd: {says}")
    assert err.count("\n") == 1
    assert str(folder.parent.parent) not in err
    assert sorted(p.name for p in folder.iterdir()) == ["sums.jsonl", "there.yaml"]
    assert Path("there.yaml").read_text() == "mine"


def test_what_is_not_given_is_asked_for_and_asked_again_where_it_cannot_be(folder: Path) -> None:
    said = {"student": ["", "./nowhere", "S/s"], "data": ["sums.jsonl"], "conf": ["own"], "devices": ["one"]}
    by_question = {QUESTIONS[name][0]: (name, iter(answers)) for name, answers in said.items()}
    heard: list[str] = []

    def ask(question: str, default: str | None) -> str:
        name, answers = by_question[question]
        heard.append(name)
        return next(answers)

    given = {"student": None, "teacher": "T/t", "data": None, "conf": None, "devices": None, "out": "mine.yaml"}
    answers = asked(given, ask)
    assert heard == ["conf", "student", "student", "student", "data", "devices"]
    assert answers == Answers("S/s", "T/t", "sums.jsonl", "own", "one", "mine.yaml")
    assert "wrote mine.yaml" in written(answers)


@pytest.mark.parametrize(
    ("question", "refused", "taken", "method"),
    [
        ("student", "none", "S/s", "own"),
        ("teacher", "none", "T/t", "own"),
        ("teacher", "T/t", "none", "grpo"),
        ("conf", "multi_teacher", "own", None),
        ("data", "words.jsonl", "sums.jsonl", "own"),
    ],
)
def test_an_answer_that_goes_with_none_of_the_others_is_refused_where_it_is_asked_for(
    question: str, refused: str, taken: str, method: str | None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("words.jsonl").write_text('{"word": "1"}\n')
    said = {"conf": [method], "student": ["S/s"], "data": ["sums.jsonl"], "devices": ["one"], "out": ["mine.yaml"]}
    said |= {"teacher": ["none" if method == "grpo" else "T/t"]} | {question: [refused, taken]}
    by_question = {QUESTIONS[name][0]: (name, iter(answers)) for name, answers in said.items()}
    heard: list[str] = []

    def ask(question: str, default: str | None) -> str:
        name, answers = by_question[question]
        heard.append(name)
        return str(next(answers))

    assert getattr(asked(dict.fromkeys(QUESTIONS), ask), question) == taken
    assert heard == [name for name in QUESTIONS for _ in range(1 + (name == question))]
    assert len(capsys.readouterr().out.splitlines()) == 1
