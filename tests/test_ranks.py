"""Whole runs of several processes: what they write is what one writes, and either goes on with what the other saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from opd.devices.team import Team
from opd.models.tiny import character_tokenizer
from opd.run.metrics import read_metrics
from opd.types import RunError
from tests.ranks import Processes, processes
from tests.tiny import ALPHABET, cli_code, save_model, timed

pytestmark = pytest.mark.slow
STEADY = ["threads=1", "optim.eps=1e-5", "log.rollouts_every=1", "checkpoint.every=1", "eval.size=4", "eval.every=0"]
"""Without an eps, AdamW moves an entry whose gradient is rounding alone by its whole rate, in either direction."""
LOCAL = "_target_: opd.teachers.local.LocalTeacher, dtype: float32, prompt: student"
OWN = "teacher.context='{prompt}{answer}'"


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    with processes(2) as started:
        yield started


@pytest.fixture(scope="module")
def three() -> Iterator[Processes]:
    with processes(3) as started:
        yield started


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random teacher with tokens of its own."""
    folder = save_model(tmp_path_factory.mktemp("merged"), "llama", seed=4, tied=False, vocab=64)
    character_tokenizer(ALPHABET, [("1", "2"), ("+", "1"), ("12", "3"), ("a", "b")]).save_pretrained(folder)
    return folder


def ran(team: Team, conf: str, run: str, overrides: Sequence[str]) -> None:
    """`opd train` on ranks that are there already."""
    from opd.config.compose import load
    from opd.console.silent import SilentConsole
    from opd.loop import train
    from opd.run.directory import RunFolder

    made = load(conf, overrides).settled()
    train(made.config, RunFolder(Path(run)), SilentConsole(), yaml=made.yaml, overrides=made.overrides, team=team)


def written(run: Path) -> list[list[tuple[int, ...]]]:
    """The tokens of all completions of a run, by step."""
    return [list(map(tuple, pq.read_table(p)["tokens"].to_pylist())) for p in sorted((run / "rollouts").glob("*"))]


def assert_alike(run: Path, other: Path, steps: int) -> None:
    """See that two runs sampled, learned and measured the same, but for rounding."""
    assert written(run) == written(other)
    rows = [read_metrics(r / "metrics.jsonl") for r in (run, other)]
    assert [r["step"] for r in rows[0]] == [r["step"] for r in rows[1]] == list(range(steps + 1))
    for mine, theirs in zip(*rows, strict=True):
        once = {name for name in mine.keys() ^ theirs.keys() if name.startswith("eval/")}  # at the end of a part
        for name in (mine.keys() | theirs.keys()) - once:
            # How near engine and learner are is rounding itself; padding is of how rows were packed.
            if not (name.startswith(("perf/", "kl/engine_gap")) or timed(name) or name == "optim/padding"):
                assert mine[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-5, nan_ok=True), name
    last = f"checkpoints/step_{steps:06d}"
    own = ("random", "metrics", "config")  # each rank's; with the seconds that it took; with its devices
    files = sorted(p.relative_to(other) for p in (other / last).rglob("*.safetensors") if p.stem not in own)
    assert files == sorted(p.relative_to(run) for p in (run / last).rglob("*.safetensors") if p.stem not in own)
    for file in files:
        a, b = load_file(run / file), load_file(other / file)
        assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}
        for name in a:
            far = torch.linalg.vector_norm(a[name].double() - b[name].double())
            assert far <= 3e-4 * torch.linalg.vector_norm(b[name].double()) + 1e-7, f"{file}: {name}"


VARIANTS: dict[str, list[str]] = {
    "reverse KL": [],
    "adapters": ["student.lora.rank=4"],
    "a base under adapters": ["student.lora.rank=4", "teacher=self_base", OWN],
    "live weights": ["teacher=self_live", OWN, "objective=gkd"],
    "a moving average": ["teacher=self_ema", "teacher.decay=0.5", OWN],
    "a cache": ["teacher=cached", "teacher.path={tmp}/cache", f"teacher.teacher={{{LOCAL}, model: {{teacher}}}}"],
    "routed teachers": [
        "teacher=routed", "teacher.routes={arithmetic: a, more: b}",
        "data.tasks.more={_target_: opd.tasks.arithmetic.Arithmetic, max_value: 50}",
        f"teacher.teachers={{a: {{{LOCAL}, model: {{teacher}}}}, b: {{{LOCAL}, model: {{student}}}}}}",
        "objective=gkd",
    ],
    "another tokenizer": ["teacher=cross", "teacher.model={merged}", "teacher.dtype=float32", "objective=gold"],
    "hybrid over another tokenizer": [
        "teacher=cross", "teacher.model={merged}", "teacher.dtype=float32", "objective=gold", "objective.method=hybrid",
    ],
    # Another model than the student, or the first step's gradient is rounding alone, of which Adam makes whole steps.
    "a reference": [f"reference={{{LOCAL}, model: {{teacher}}}}", "objective=grpo_reference"],
    "likeliest tokens": ["objective=top_k", "objective.k=7"],
    "several steps of a batch": ["optim.steps_per_batch=4"],
    "the dataset's words": ["source=dataset", "objective=sft", "sampling.max_tokens=40", "sampling.n=1"],
    "the teacher's words": ["source=teacher", "objective=gkd"],
    "both write": ["source=teacher_mixed"],
    "a mixture": ["source=mixed", "source.shares.student=0.5", "source.shares.dataset=0.5", "objective=gkd"],
    "turns": [
        "source=multi_turn", "data.tasks.arithmetic._target_=tests.sources.desks.Talkative", "sampling.max_tokens=60",
    ],
    "quantized": ["teacher.quantization=int8"],
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_two_processes_write_what_one_writes(
    name: str, two: Processes, config: Path, tmp_path: Path, student_dir: Path, teacher_dir: Path, merged: Path
) -> None:
    places = {"{tmp}": tmp_path, "{teacher}": teacher_dir, "{student}": student_dir, "{merged}": merged}
    own = [_put(text, places) for text in VARIANTS[name]]
    one, ranks = tmp_path / "one", tmp_path / "ranks"
    assert cli_code(["train", f"conf={config}", f"run={one}", "-q", "steps=2", *STEADY, *own]) == 0
    if (tmp_path / "cache").exists():
        (tmp_path / "cache").rename(tmp_path / "cache of one")
    two(ran, str(config), str(ranks), ["steps=2", *STEADY, *own])
    assert_alike(ranks, one, 2)


def _put(text: str, places: dict[str, Any]) -> str:
    for name, place in places.items():
        text = text.replace(name, str(place))
    return text


@pytest.mark.parametrize("own", [[], ["student.lora.rank=4"], VARIANTS["a moving average"]], ids=["all", "lora", "ema"])
def test_what_any_number_of_processes_saved_any_other_goes_on_with(
    own: list[str], two: Processes, three: Processes, config: Path, tmp_path: Path
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert cli_code(["train", f"conf={config}", f"run={whole}", "-q", "steps=4", *STEADY, *own]) == 0
    two(ran, str(config), str(run), ["steps=1", *STEADY, *own])
    three(ran, str(run / "config.yaml"), str(run), ["steps=2"])
    assert cli_code(["train", "--resume", f"run={run}", "-q", "steps=3"]) == 0
    two(ran, str(run / "config.yaml"), str(run), ["steps=4"])
    assert_alike(run, whole, 4)


def test_what_an_environment_says_is_asked_for_once(two: Processes, config: Path, tmp_path: Path) -> None:
    moody = "data.tasks.arithmetic._target_=tests.sources.desks.Moody"
    given = ["source=multi_turn", moody, "sampling.max_tokens=60", "steps=1", *STEADY]
    two(ran, str(config), str(tmp_path / "run"), given)
    assert read_metrics(tmp_path / "run/metrics.jsonl")[-1]["step"] == 1


def refused(team: Team, conf: str, run: str, overrides: Sequence[str]) -> str:
    """What `opd train` ends with on a rank."""
    with pytest.raises(RunError) as error:
        ran(team, conf, run, overrides)
    return str(error.value)


def test_all_ranks_hear_of_weights_that_are_not_finite(two: Processes, config: Path, tmp_path: Path) -> None:
    said = two(refused, str(config), str(tmp_path / "run"), ["steps=1", "optim.weight_decay=1e300", *STEADY])
    assert said[0] == said[1]
    assert said[0].startswith("step 1: the update has made weights that are not finite, first model.")
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_ranks_that_sample_different_things_are_not_let_on(two: Processes, config: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="not the same"):
        two(ran, str(config), str(tmp_path / "run"), ["source._target_=tests.sources.desks.Whim", *STEADY])


@pytest.mark.parametrize("beside", [[], ["devices=apart", "devices.ranks=2"], [
    "devices=apart", "devices.ranks=2", "devices.ahead=1",
]], ids=["engines of their own", "an engine apart", "ahead"])  # fmt: skip
def test_a_judge_elsewhere_is_asked_once_for_each_sample_while_others_are_written(
    beside: list[str], two: Processes, config: Path, tmp_path: Path
) -> None:
    own = [
        "steps=2",
        *STEADY,
        "log.rollouts_every=0",
        "log.exact_kl=false",
        "teacher._target_=tests.fakes.AskedTeacher",
    ]
    asked = {}
    for name in ("one", "ranks"):
        (tmp_path / f"asked by {name}").mkdir()
        typed = [*own, f"+teacher.folder={tmp_path}/asked by {name}"]
        if name == "one":
            alone = [text for text in beside if "ahead" in text]
            assert cli_code(["train", f"conf={config}", f"run={tmp_path / name}", "-q", *typed, *alone]) == 0
        else:
            two(ran, str(config), str(tmp_path / name), [*typed, *beside])
        files = list((tmp_path / f"asked by {name}").iterdir())
        asked[name] = Counter(line for file in files for line in file.read_text().splitlines())
        early = [file for file in files if "early" in file.read_text()]
        assert len(early) == (1 if name == "one" or beside else 2), "each engine's samples are sent where it is"
    assert_alike(tmp_path / "ranks", tmp_path / "one", 2)
    assert asked["ranks"] == asked["one"]
    assert sum(n for line, n in asked["one"].items() if line.startswith("early")) > 8
