"""`opd eval` on ranks that are there already: the rows and the completions of one process, whatever is measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

import opd
from opd.commands.asked import asked
from opd.commands.subject import agreed, subject_of
from opd.console.silent import SilentConsole
from opd.devices.ranks import Ranks
from opd.devices.team import Team
from tests.ranks import Processes, processes
from tests.test_ranks import LOCAL, STEADY, ran
from tests.tiny import save_config

pytestmark = pytest.mark.slow
RANKS = ["devices=ranks", "devices.ranks=2"]
KINDS = {"all weights": [], "adapters": ["student.lora.rank=4"]}
Rows = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    with processes(2) as started:
        yield started


@pytest.fixture(scope="module")
def run(
    request: pytest.FixtureRequest,
    two: Processes,
    tmp_path_factory: pytest.TempPathFactory,
    student_dir: Path,
    teacher_dir: Path,
) -> Path:
    """A run whose checkpoint ranks have written."""
    folder = tmp_path_factory.mktemp("measured")
    config = save_config(folder / "tiny.yaml", student_dir, teacher_dir)
    two(ran, str(config), str(folder / "run"), ["steps=2", *RANKS, *STEADY, *KINDS[request.param]])
    return folder / "run"


def measured(team: Team, named: Mapping[str, str], overrides: Sequence[str]) -> Rows:
    """`opd eval` on ranks that are there already."""
    from opd.commands.eval.measure import evaluate_models

    subject = agreed(team, lambda: subject_of(asked(named, overrides)))
    return evaluate_models(subject, SilentConsole(), team)


def untimed(rows: Rows) -> Rows:
    return {name: {k: v for k, v in row.items() if k != "eval/seconds"} for name, row in rows.items()}


def assert_alike(rows: Rows, want: Rows) -> None:
    """See that all is the same but for rounding, and how long it took."""
    rows, want = untimed(rows), untimed(want)
    assert list(rows) == list(want)
    for name, row in want.items():
        assert rows[name] == pytest.approx(row, rel=1e-4, abs=1e-5, nan_ok=True), name


def completions(run: Path) -> dict[str, list[tuple[str, str, float]]]:
    """What was written, and what it was worth, by file."""
    files = {file.stem: map(json.loads, file.read_text().splitlines()) for file in (run / "eval").glob("final_*.jsonl")}
    return {name: [(s["prompt"], s["completion"], s["score"]) for s in lines] for name, lines in files.items()}


VARIANTS: dict[str, list[str]] = {
    "its own prompts": ["eval.n=3", "eval.k=[1,3]"],
    "fewer prompts than ranks": ["eval.size=1"],
    "greedily": ["eval.temperature=0"],
    "given text": [
        "data=passages", "data.tasks.passages.path={tmp}/text.jsonl", "data.tasks.passages.lead=1", "eval.size=5",
        "data.max_prompt_tokens=100", "eval.max_tokens=100",
    ],
    "a cache": ["teacher=cached", "teacher.path={tmp}/cache", f"teacher.teacher={{{LOCAL}, model: {{teacher}}}}"],
    "itself": ["teacher=self_base", "teacher.context='{{prompt}}{{answer}}'"],
    "turns": ["data.tasks.arithmetic._target_=tests.sources.desks.Talkative", "eval.max_turns=3", "eval.max_tokens=60"],
}  # fmt: skip


CASES = [("all weights", name) for name in VARIANTS] + [
    ("adapters", name) for name in ("its own prompts", "given text")
]


@pytest.mark.parametrize(("run", "name"), CASES, indirect=["run"])
def test_ranks_find_what_one_process_finds(
    name: str, two: Processes, run: Path, tmp_path: Path, teacher_dir: Path
) -> None:
    text = [{"text": f"{i}+1= 1+2=3" + " 4+5" * i} for i in range(6)]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in text))
    own = [o.replace("{tmp}", str(tmp_path)).replace("{teacher}", str(teacher_dir)) for o in VARIANTS[name]]
    own = [o.replace("{{", "{").replace("}}", "}") for o in own]
    want = opd.evaluate(run, "devices=one", "threads=1", *own, quiet=True)
    alone = completions(run)
    if (tmp_path / "cache").exists():
        (tmp_path / "cache").rename(tmp_path / "cache of one")
    rows, others = two(measured, {"run": str(run)}, ["threads=1", *own])
    assert_alike(rows, want)
    assert_alike(others, want)
    assert completions(run) == alone
    assert ("eval/text_kl" in rows["student before"]) == (name == "given text")


def test_a_model_without_a_run_is_measured_too_and_one_folder_written(
    two: Processes, config: Path, tmp_path: Path, teacher_dir: Path
) -> None:
    named, own = {"model": str(teacher_dir), "conf": str(config)}, (f"runs={tmp_path / 'runs'}", "threads=1")
    rows, _ = two(measured, named, own)
    assert len(list((tmp_path / "runs").glob("*/eval"))) == 1
    assert_alike(rows, opd.evaluate(None, *own, quiet=True, model=teacher_dir, conf=config))


@pytest.mark.parametrize("run", KINDS, indirect=True)
def test_what_ranks_have_trained_is_exported_and_sampled_in_one_process(run: Path, tmp_path: Path) -> None:
    assert opd.load_run(run).config.devices == Ranks(2)
    written = opd.export(run, out=tmp_path / "export", dtype="float32", quiet=True)
    assert written["parity"]["transformers"] < 1e-4
    assert len(opd.sample(run, ["1+2:"], n=3)) == 3
