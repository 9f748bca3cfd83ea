"""What shows without weights is told before any model is loaded, by a run, its dry run and a plan alike."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from transformers import MambaConfig

from opd.config.compose import load
from opd.data.prompts import Data
from opd.survey.look import look
from tests.tiny import char_tokenizer, cli_code, save_config

Told = Callable[[Sequence[str], Sequence[str]], tuple[int, list[str]]]
"""A command and its settings -> exit code, and the lines of its errors."""
COMMANDS = (["train"], ["train", "--dry-run"], ["plan", "--gpu", "h100"])
ROWS = [{"prompt": f"{i}+{i}", "answer": f"{2 * i}"} for i in range(100)]
PROMPTS = ["data.tasks={t: {_target_: opd.tasks.text.Prompts, path: rows.jsonl}}", "data.weights={t: 1}"]
LOCAL = "_target_: opd.teachers.local.LocalTeacher"


@pytest.fixture
def bare(config: Path, student_dir: Path, teacher_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config whose models have no weights, so that whoever loads one says so; rows and another tokenizer beside."""
    monkeypatch.chdir(tmp_path)
    for name, folder in (("s", student_dir), ("t", teacher_dir), ("other", teacher_dir)):
        shutil.copytree(folder, name, ignore=shutil.ignore_patterns("*.safetensors"))
    char_tokenizer("zyxwvutsrqponmlkjihgfedcba;:=*-+9876543210").save_pretrained("other")
    for name, template in {"wordless": None, "strict": STRICT}.items():
        shutil.copytree("t", name)
        Path(name, "chat_template.jinja").unlink(missing_ok=True)
        tokenizer = char_tokenizer()
        tokenizer.chat_template = template
        tokenizer.save_pretrained(name)
    write("rows.jsonl", ROWS)
    return save_config(tmp_path / "tiny.yaml", Path("s"), Path("t"))


@pytest.fixture
def told(bare: Path, capsys: pytest.CaptureFixture[str]) -> Told:
    def tell(command: Sequence[str], settings: Sequence[str]) -> tuple[int, list[str]]:
        code = cli_code([*command, f"conf={bare}", *settings])
        return code, capsys.readouterr().err.splitlines()

    return tell


def write(name: str, rows: Sequence[dict[str, str]]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


STRICT = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    "{{ m['content'] }}{% endfor %}:"
)
"""A chat template that takes no system turn."""
CHATS = ["teacher.prompt=own", "data.template=auto"]
MISTAKES = {
    "no folder": (["teacher.model=./nope"], "model ./nope: there is no such folder"),
    "an empty folder": (["student.model=runs"], "no causal language model could be loaded from 'runs'"),
    "too long for the student": (
        ["sampling.max_tokens=600", "data.max_prompt_tokens=8", "teacher=none", "objective=sft", "source=dataset",
         "sampling.n=1"],
        "student.model: 's' reads at most 512 tokens, and prompt and completion may have 608 together",
    ),
    "another vocabulary": (["teacher.model=other"], "do not share a vocabulary"),
    "no chat template for the teacher": (
        [*CHATS, "teacher.model=wordless"],
        "teacher.template=auto: the teacher's tokenizer (wordless) has no chat template, and the student is shown "
        "chats; set teacher.prompt=student, ",
    ),
    "no chat template where one is asked for": (
        [*CHATS, "teacher.model=wordless", "teacher.template=chat"], "teacher.template=chat: the teacher's tokenizer",
    ),
    "no chat template for the student": (
        ["student.model=wordless", "data.template=chat"], "data.template=chat: the student's tokenizer (wordless) has",
    ),
    "a chat template that does not take the prompts": (
        [*CHATS, "teacher.model=strict", "data.system='be brief'"],
        "teacher (by its prompt, template, template_kwargs and system): the chat template of strict does not take",
    ),
    "no file": (
        ["data.tasks={t: {_target_: opd.tasks.text.Prompts, path: none.jsonl}}"],
        "data.tasks.t: path: none.jsonl does not exist",
    ),
    "no column": ([*PROMPTS, "data.tasks.t.prompt_column=ask"], "no column 'ask'; columns there: answer, prompt"),
    "no file to evaluate on": ([*PROMPTS, "data.tasks.t.eval_path=none.jsonl"], "none.jsonl does not exist"),
    "prompts that are too long": (
        ["data.max_prompt_tokens=1"], "max_prompt_tokens: 1 is too few for the prompts of task arithmetic",
    ),
    "no other prompt": (
        ["data.tasks.arithmetic.size=1", "source=filtered", "source.redraws=2"],
        "source=filtered: data.tasks.arithmetic has one prompt, and no other to take",
    ),
    "no verifier": ([*PROMPTS, "objective=grpo", "teacher=none"], "data.tasks.t: it has no verifier"),
    "no completions": (
        [*PROMPTS, "objective=sft", "source=dataset", "teacher=none", "sampling.n=1"], "has no completion to train on",
    ),
    "no column for the teacher": (
        [*PROMPTS, "teacher.prompt=own", "teacher.context='{prompt} {hint}'"], "{hint} is no column of",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_alike_and_before_any_weight_is_read(name: str, told: Told) -> None:
    settings, says = MISTAKES[name]
    Path("runs").mkdir()
    said = [told(command, settings) for command in COMMANDS]
    assert [code for code, _ in said] == [2, 2, 2], said
    assert said[0][1] == said[1][1] == said[2][1]
    (line,) = said[0][1]
    assert says in line
    assert not any(Path("runs").iterdir())


@pytest.mark.parametrize(
    "settings",
    [
        ["teacher.prompt=student", "data.template=auto"],
        [*CHATS, "teacher.template=plain"],
        [*CHATS, "teacher.context='q: {prompt}'"],
        ["teacher.prompt=own", "data.template=plain"],
    ],
)
def test_a_teacher_without_a_chat_template_may_be_told_how_to_read(settings: list[str], told: Told) -> None:
    assert told(["train", "--dry-run"], ["teacher.model=wordless", *settings]) == (0, [])


def test_all_mistakes_are_told_at_once_in_the_order_in_which_one_would_mend_them(told: Told) -> None:
    settings = [
        "sampling.max_tokens=600", "student.model=./nope", *PROMPTS, "data.tasks.t.prompt_column=ask",
        "data.tasks.u={_target_: opd.tasks.text.Prompts, path: gone.jsonl}", "data.weights={t: 1, u: 1}",
    ]  # fmt: skip
    code, lines = told(["train"], settings)
    assert code == 2
    places = ["model ./nope", "teacher.model: 't' reads at most 512", "data.tasks.t: ", "data.tasks.u: "]
    assert [line.startswith(f"opd: {place}") for line, place in zip(lines, places, strict=True)] == [True] * 4, lines
    code, again = told(["plan", "--gpu", "h100"], settings)
    assert (code, again[1:]) == (2, lines[1:])


def test_a_hub_that_does_not_answer_is_waited_for_once(told: Told, silent_hub: list[str]) -> None:
    code, lines = told(["train"], ["student.model=nobody/small", "teacher.model=nobody/large"])
    assert (code, len(silent_hub)) == (2, 1)
    assert ["'nobody/small'" in lines[0], "'nobody/large'" in lines[1]] == [True, True]
    assert all("nor is there a folder of this name here" in line for line in lines)
    assert not constants.HF_HUB_OFFLINE


def test_adapters_that_fit_nowhere_are_told_before_any_weight_is_read(told: Told) -> None:
    for command in COMMANDS:
        code, (line,) = told(command, ["student.lora={targets: [nowhere]}", "optim.lr=1e-3"])
        assert (code, "student.lora.targets=('nowhere',): " in line) == (2, True), line


def test_a_model_whose_sizes_nobody_knows_is_trained_and_not_planned(bare: Path, told: Told) -> None:
    MambaConfig(vocab_size=45, hidden_size=8, state_size=4, num_hidden_layers=1, eos_token_id=1).save_pretrained("odd")
    char_tokenizer().save_pretrained("odd")
    given = ["student.model=odd", "teacher.model=odd"]
    assert look(load(str(bare), given).config, reach=False).mistakes == []
    assert told(["train", "--dry-run"], given) == (0, [])
    code, (line,) = told(["plan", "--gpu", "h100"], given)
    assert (code, "model odd: opd cannot read its sizes, and so plans nothing of it (AttributeError: " in line) == (
        2,
        True,
    )


def test_a_disk_without_room_is_told_before_any_weight_is_read(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1e5))
    for command in (["train"], ["train", "--dry-run"]):
        code, (line,) = told(command, [])
        assert code == 2
        assert "3 checkpoints of" in line


def test_a_disk_without_room_is_a_note_where_the_run_may_be_another_machines(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1e5))
    for arguments in (["plan", "--gpu", "h100"], ["train", "--dry-run", "student.model=Qwen/Qwen3-0.6B"]):
        assert cli_code([*arguments, f"conf={bare}"]) == 0
        assert "  note       run=" in capsys.readouterr().out


def taught(conf: Path, kind: str, settings: str) -> None:
    """Put another teacher into a config."""
    text = re.sub(r"teacher: {.*}", f"teacher: {settings}", conf.read_text(encoding="utf-8"))
    conf.write_text(text.replace("  - override data", f"  - override teacher: {kind}\n  - override data"))


def test_a_server_that_is_away_is_told_by_a_run_and_not_asked_by_a_dry_run(told: Told, bare: Path) -> None:
    taught(bare, "server", "{url: 'http://127.0.0.1:9'}")
    code, (line,) = told(["train"], [])
    assert (code, "no server answers there" in line) == (2, True)
    assert told(["train", "--dry-run"], []) == (0, [])


def test_a_row_without_a_teacher_is_told_before_any_weight_is_read(told: Told, bare: Path) -> None:
    taught(bare, "routed", f"{{routes: {{b: t}}, teachers: {{t: {{{LOCAL}, model: t}}}}}}")
    for command in COMMANDS:
        code, (line,) = told(command, [])
        assert (code, "teacher.routes: there is none for task=arithmetic" in line) == (2, True)


def test_what_is_not_here_is_said_and_is_no_mistake(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    far = [
        "student.model=nobody/small",
        "teacher.model=nobody/large",
        PROMPTS[0].replace("rows.jsonl", "nobody/rows"),
        PROMPTS[1],
    ]
    assert cli_code(["train", f"conf={bare}", "--dry-run", *far]) == 0
    said = capsys.readouterr().out.splitlines()
    for name in ("student.model=nobody/small", "teacher.model=nobody/large", "data.tasks.t=nobody/rows"):
        assert sum(line.startswith(f"not looked at: {name}: ") for line in said) == 1
    assert "  parameters not known before the model is there" in said
    assert any(line.startswith("  rows       t: rows not looked at") for line in said)


def test_a_model_of_the_table_of_public_ones_is_held_to_its_context(told: Told) -> None:
    code, (line,) = told(["train", "--dry-run"], ["teacher.model=Qwen/Qwen3-4B", "data.max_prompt_tokens=50000",
                                                  "student.model=nobody/small"])  # fmt: skip
    assert (code, "'Qwen/Qwen3-4B' reads at most 40960 tokens" in line) == (2, True)


BY_TEACHER = ("source=teacher", "objective=sft", "sampling.n=1", "teacher.model=Qwen/Qwen2.5-0.5B-Instruct")


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (
            ["devices=apart", "devices.tensor_parallel=3"],
            "attention heads, which so many devices cannot share; allowed",
        ),
        (["devices=apart", "devices.tensor_parallel=3", "student.model=Qwen/Qwen3-4B"], "'Qwen/Qwen3-4B' has 32 att"),
        (
            ["devices=apart", "devices.tensor_parallel=8", *BY_TEACHER, "student.model=Qwen/Qwen3-4B"],
            "'Qwen/Qwen2.5-0.5B-Instruct' has 14 attention heads, which so many devices cannot share; allowed are 1, 2",
        ),
        (["devices=apart", "devices.tensor_parallel=2", "rollout=hf"], "allowed are 1, or rollout=vllm"),
        (["devices=ray", "devices.tensor_parallel=2"], "allowed is 1, or give engines processes of their own"),
    ],
)
def test_an_engine_on_devices_that_it_cannot_be_on_is_refused(typed: list[str], says: str, told: Told) -> None:
    code, said = told(["train", "--dry-run"], ["rollout=vllm", *typed])
    assert (code, says in " ".join(said)) == (2, True)


def test_a_model_that_is_made_on_first_use_is_not_made_to_be_looked_at(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPD_CACHE", str(tmp_path / "cache"))
    task = "{_target_: opd.tasks.arithmetic.Arithmetic}"
    made = f"student.model={{_target_: opd.models.tiny.Tiny, task: {task}, seed: 77}}"
    assert cli_code(["train", f"conf={bare}", made, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "not looked at: student.model=Tiny: it is made on first use" in said
    assert "trained (100.0%)" in said
    assert not (tmp_path / "cache").exists()


def test_the_plan_says_parameters_rate_rows_and_epochs_and_comes_before_the_yaml(
    bare: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*ROWS, *({"prompt": f"{i}+" * 30} for i in range(10, 30))]
    write("rows.jsonl", rows)
    asked = [*PROMPTS, "data.tasks.t.eval_fraction=0", "data.max_prompt_tokens=20", "optim.schedule=cosine"]
    assert cli_code(["train", f"conf={bare}", "--dry-run", *asked, "optim.warmup_steps=2", "steps=25"]) == 0
    plan, _, yaml = capsys.readouterr().out.partition("\n\n")
    assert yaml.startswith("name: tiny\n")
    student = look(load(str(bare)).config, reach=False).shape
    assert student is not None
    assert f"  parameters {student.parameters / 1e3:.1f}k, " in plan
    assert "  rate       0.003, cosine to 0 after 2 steps of warm-up\n" in plan
    assert "  rows       t: 100 prompts (20 more are too long or empty), 200 drawn, 2.00 epochs\n" in plan


def test_a_mixture_draws_from_each_task_by_its_weight(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = "{_target_: opd.tasks.text.Prompts, path: rows.jsonl, eval_fraction: 0}"
    mixed = [f"data.tasks={{a: {task}, b: {task}}}", "data.weights={a: 3, b: 1}", "steps=25"]
    assert cli_code(["plan", f"conf={bare}", "--gpu", "h100", "--json", *mixed]) == 0
    record = json.loads(capsys.readouterr().out)["run"]
    assert record["data"]["a"] == {"rows": 100, "dropped": 0, "drawn": 150, "epochs": 1.5}
    assert record["data"]["b"]["epochs"] == 0.5
    assert record["lr"] == 3e-3


def test_the_plan_says_how_many_prompts_are_evaluated_and_that_too_few_say_nothing(
    bare: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("rows.jsonl", ROWS[:40])
    few = ["train", f"conf={bare}", "--dry-run", *PROMPTS, "eval.size=200"]
    assert cli_code(few) == 0
    plan = capsys.readouterr().out.partition("\n\n")[0]
    held = len([*load(str(bare), PROMPTS).config.data.tasks["t"].examples("eval")])
    assert 0 < held < 10, "of 40 rows"
    assert f"  eval       {held} prompts x 1 (eval.size=200, and no more are held out), " in plan
    assert f"  note       data.tasks.t: only {held} prompts are held out, " in plan
    assert cli_code([*few, "student.model=nobody/small"]) == 0, "they are counted without a tokenizer, too"
    assert f"  eval       {held} prompts x 1 (" in capsys.readouterr().out
    assert cli_code([*few, "data.tasks.t.eval_fraction=0"]) == 0
    plan = capsys.readouterr().out
    assert "  eval       no prompts x 1 (" in plan
    assert "  note       data.tasks.t: no prompts are held out, and none are evaluated; raise data.tasks.t.eval" in plan
    assert cli_code([*few[:-1], "eval.size=2"]) == 0
    plan = capsys.readouterr().out
    assert "  eval       2 prompts x 1, " in plan
    assert "  note " not in plan, "who asks for few gets them"
    assert cli_code([*few, "data.tasks.t.path=nobody/rows"]) == 0
    assert "  eval       at most 200 prompts x 1, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "row", "says"),
    [
        ("exact_match.ExactMatch", {"prompt": "1+1=", "answer": "2"},
         "column 'answer' (no completion_column is named), such as '2' after '1+1='"),
        ("text.Prompts, completion_column: said", {"prompt": "1+1=", "answer": "2", "said": "1+1 is " * 9},
         "column 'said', such as '1+1 is 1+1 is 1+1 is 1+1 is 1+1 is 1+1 i ...' after '1+1='"),
        ("text.Prompts", {"prompt": [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}]},
         "the closing turns of column 'prompt', such as '2' after '1+1='"),
    ],
)  # fmt: skip
def test_what_of_the_data_is_trained_on_is_said_before_the_run_and_when_it_begins(
    task: str, row: dict[str, object], says: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    data = f"data.tasks={{t: {{_target_: opd.tasks.{task}, path: rows.jsonl, eval_fraction: 0}}}}"
    asked = ["train", f"conf={config}", data, "data.weights={t: 1}", "objective=sft", "steps=1"]
    given = ["source=dataset", "sampling.max_tokens=80"]
    assert cli_code([*asked, *given, "--dry-run"]) == 0
    plan = capsys.readouterr().out.partition("\n\n")[0]
    assert f"  data       t: trains on {says}\n" in plan
    assert "  note       sampling.n=2 is 1 here: " in plan
    assert "8 prompts x 1 samples = 8 rollouts" in plan
    assert cli_code([*asked, *given]) == 0
    said = capsys.readouterr().out
    assert f"data: t: trains on {says}\n" in said
    assert "\nsampling.n=2 is 1 here: " in f"\n{said}"
    assert cli_code([*asked, "source=student", "--dry-run"]) == 0
    assert "trains on" not in capsys.readouterr().out


def test_data_that_was_looked_at_is_what_is_trained_on(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts, start = [], Data.start

    def counted(data: Data, tokenizer: object, seed: int, train: bool = True) -> object:
        starts.append(seed)
        return start(data, tokenizer, seed, train)

    monkeypatch.setattr(Data, "start", counted)
    assert cli_code(["train", f"conf={config}", f"runs={config.parent / 'runs'}", "steps=1", "-q"]) == 0
    assert len(starts) == 1
