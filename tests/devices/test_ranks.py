"""Ranks: a step of several processes is the step of one, for every objective, model and way to train it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from opd.batch import split_steps
from opd.devices.team import Solo, Team
from opd.evaluation.divergence import text_divergence
from opd.learner.config import Lora, StudentConfig
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.models import heads
from opd.models.shards import layers, own, whole
from opd.teachers.local import LocalTeacher
from opd.teachers.own import SelfTeacher
from opd.teaching import Pupil, Scorer
from opd.types import Pretrained, Scored
from tests.objectives.cases import CASES, SHAPES, Case, judged
from tests.ranks import Processes, processes
from tests.tiny import char_tokenizer, rollouts, save_model

FEW = [(3, 5)]
"""One sequence: all ranks but one have nothing to train."""
LR = 1e-3
CHUNK = 45 * 16
"""Logits at once: so few that a sequence is several chunks."""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[2, 3], ids=["two", "three"])
def ranks(request: pytest.FixtureRequest) -> Iterator[Processes]:
    with processes(request.param) as started:
        yield started


@dataclass(frozen=True)
class Setting:
    """How a student is trained."""

    student: StudentConfig
    # With AdamW's own eps an entry whose gradient is rounding alone would move by the whole rate, in either direction.
    optim: Optim = field(default_factory=partial(Optim, micro_tokens=54, eps=1e-5))
    temperature: float = 0.7
    steps: int = 1


@dataclass(frozen=True)
class Result:
    """What two optimizer steps come to."""

    metrics: list[dict[str, float]]
    gradients: list[Tensor]
    """Of the first step."""
    weights: dict[str, Tensor]


class Keeping:
    """An optimizer that also keeps the first gradient that it is asked to take a step along."""

    def __init__(self, optimizer: torch.optim.Optimizer, params: Sequence[Tensor]) -> None:
        self.optimizer, self.params, self.gradients = optimizer, params, list[Tensor]()

    def step(self) -> None:
        self.gradients = self.gradients or [
            torch.zeros(p.shape) if p.grad is None else whole(p.grad).clone() for p in self.params
        ]
        self.optimizer.step()

    def __getattr__(self, name: str):
        return getattr(self.optimizer, name)


def trained(team: Team, setting: Setting, teacher: Scorer, items: Sequence[Scored], case: Case) -> Result:
    """Take two optimizer steps, or the steps of one sampling, on ranks."""
    torch.manual_seed(7)
    student = Student.load(setting.student, setting.optim, setting.temperature, team=team)
    with torch.no_grad():  # adapters begin at zero, where half of their gradients are, too
        for name, p in student.model.named_parameters():
            if "lora_B" in name:
                p.copy_(p + 0.05 * torch.ones_like(p))
    student.optimizer = keeping = Keeping(student.optimizer, student.params)
    metrics = []
    for _ in range(2 if setting.steps == 1 else 1):
        packs = split_steps(items, setting.steps, 0, True, team.rank, team.size)
        batches = [pack(setting.optim.micro_tokens) for pack in packs]
        metrics += [student.update(batch, case.objective, LR, teacher) for batch in batches]
    weights = {name: whole(tensor).clone() for name, tensor in student.weights()}
    return Result(metrics, keeping.gradients, weights)


@dataclass(frozen=True)
class Expected:
    """What there is to learn from in a case, and what one process makes of it."""

    case: Case
    items: list[Scored]
    result: Result


def scorer(team: Team, teacher: str) -> Scorer:
    """A teacher whose weights lie with a team."""
    config = LocalTeacher(model=teacher, dtype="float32", prompt="student", micro_tokens=64)
    tokenizer = char_tokenizer()
    return config.start(Pupil(tokenizer, len(tokenizer), team=team))


def made_alone(
    setting: Setting, teacher: str, shapes: Sequence[tuple[int, int]], cases: Sequence[Case]
) -> list[Expected]:
    """What one process makes of each case."""
    plain = replace(setting.student, lora=None, gradient_checkpointing=False)
    student = Student.load(plain, setting.optim, setting.temperature)
    one = scorer(Solo(), teacher)
    with pytest.MonkeyPatch.context() as here:
        here.setattr(heads, "CHUNK_ELEMENTS", CHUNK)
        items = [judged(case, student, one, shapes) for case in cases]
        results = [trained(Solo(), setting, one, given, case) for given, case in zip(items, cases, strict=True)]
    return list(map(Expected, cases, items, results))


def compared(team: Team, setting: Setting, teacher: str, written: str) -> list[tuple[str, dict[str, float]]]:
    """For each case how far the ranks are from one process: gradients, weights and metrics, relative."""
    heads.CHUNK_ELEMENTS = CHUNK
    wanted: list[Expected] = torch.load(written, weights_only=False)
    shared = scorer(team, teacher)
    return [
        (want.case.name, difference(trained(team, setting, shared, want.items, want.case), want.result))
        for want in wanted
    ]


def difference(ours: Result, want: Result) -> dict[str, float]:
    """Relative norms of what is different."""

    def norm(tensors: Sequence[Tensor]) -> float:
        return float(torch.linalg.vector_norm(torch.cat([t.double().flatten() for t in tensors])))

    def far(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
        return norm([x.double() - y.double() for x, y in zip(a, b, strict=True)]) / max(norm(b), 1e-12)

    assert ours.weights.keys() == want.weights.keys()
    out = {"gradient": far(ours.gradients, want.gradients), "size": norm(want.gradients)}
    out["weights"] = far(list(ours.weights.values()), list(want.weights.values()))
    for later, (a, b) in enumerate(zip(ours.metrics, want.metrics, strict=True)):
        assert a.keys() == b.keys()
        for name in a.keys() - {"optim/padding"}:  # which is of how they were packed
            far_off = abs(a[name] - b[name]) / max(abs(b[name]), 1.0)
            out[name] = max(out.get(name, 0.0), far_off / (10.0 if later else 1.0))  # of weights that differ a little
    return out


Comparing = Callable[[Processes, Setting, Path, Sequence[tuple[int, int]], Sequence[Case]], list[Any]]


@pytest.fixture(scope="module")
def compare(tmp_path_factory: pytest.TempPathFactory) -> Comparing:
    """Compares ranks with one process, whose part is done once for any number of them."""
    folder, known = tmp_path_factory.mktemp("alone"), dict[str, Path]()

    def compare(
        ranks: Processes, setting: Setting, teacher: Path, shapes: Sequence[tuple[int, int]], cases: Sequence[Case]
    ) -> list[Any]:
        asked = repr((setting, teacher, shapes, [case.name for case in cases]))
        if asked not in known:
            torch.save(made_alone(setting, str(teacher), shapes, cases), folder / str(len(known)))
            known[asked] = folder / str(len(known))
        return ranks(compared, setting, str(teacher), str(known[asked]))

    return compare


def check(found: list, bound: float = 1e-5) -> None:
    """See that all ranks have the same, and that it is what one process has."""
    for rank in found:
        for name, far in rank:
            size = far.pop("size")
            assert size > 1e-6, name
            assert {k: v for k, v in far.items() if v > bound} == {}, name


@pytest.mark.parametrize("shapes", [SHAPES, FEW], ids=["uneven", "one sequence"])
def test_every_objective_has_the_gradient_the_weights_and_the_figures_of_one_process(
    ranks: Processes, compare: Comparing, student_dir: Path, teacher_dir: Path, shapes: list[tuple[int, int]]
) -> None:
    setting = Setting(StudentConfig(model=str(student_dir), dtype="float32"))
    cases = [c for c in CASES if len(shapes) > 1 or "grpo" not in c.name]  # of one sample there is no group
    check(compare(ranks, setting, teacher_dir, shapes, cases))


SOME = [case for case in CASES if case.name in ("reverse_kl baseline ppo", "gkd 0.3", "minillm")]
KINDS = {
    "an untied head": ("llama", False, {}),
    "layers of another name": ("gpt2", True, {}),
    "experts": ("qwen3_moe", False, {}),
    "computed again": ("qwen3", True, {"gradient_checkpointing": True}),
    "adapters": ("qwen3", True, {"lora": Lora(rank=4)}),
    "adapters, computed again": ("llama", False, {"lora": Lora(rank=4), "gradient_checkpointing": True}),
}


@pytest.mark.parametrize("ranks", [2], ids=["two"], indirect=True)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_student_is_trained_as_by_one_process(
    ranks: Processes, compare: Comparing, tmp_path: Path, teacher_dir: Path, kind: str
) -> None:
    architecture, tied, options = KINDS[kind]
    model = save_model(tmp_path / "model", architecture, seed=3, tied=tied)
    setting = Setting(StudentConfig(model=str(model), dtype="float32", **options))
    check(compare(ranks, setting, teacher_dir, SHAPES, SOME))


@pytest.mark.parametrize(("size", "shard"), [(2, 1), (4, 2)])
def test_copies_of_the_weights_learn_as_one_process_does(
    compare: Comparing, student_dir: Path, teacher_dir: Path, size: int, shard: int
) -> None:
    whole, adapters = (StudentConfig(model=str(student_dir), dtype="float32", lora=lora) for lora in (None, Lora(4)))
    with processes(size, shard) as ranks:
        for student in whole, adapters:
            check(compare(ranks, Setting(student), teacher_dir, SHAPES, SOME))


def test_the_steps_of_one_sampling_are_dealt_out_one_by_one(
    ranks: Processes, compare: Comparing, student_dir: Path, teacher_dir: Path
) -> None:
    setting = Setting(StudentConfig(model=str(student_dir), dtype="float32"), steps=3)
    check(compare(ranks, setting, teacher_dir, SHAPES, SOME))


@pytest.mark.parametrize("ranks", [2], ids=["two"], indirect=True)
def test_in_bfloat16_ranks_are_as_near_to_one_process_as_its_rounding(
    ranks: Processes, compare: Comparing, student_dir: Path, teacher_dir: Path
) -> None:
    setting = Setting(StudentConfig(model=str(student_dir), dtype="bfloat16"))
    check(compare(ranks, setting, teacher_dir, SHAPES, SOME), bound=0.05)


def kept(team: Team, model: str) -> list[tuple[int, ...]]:
    """Shapes of the matrices of layers that a bfloat16 pass has whole, in some type, between its way there and back."""
    student = Student.load(StudentConfig(model=model, dtype="bfloat16"), Optim(), 1.0, team=team)
    shapes = {tuple(p.shape) for layer in layers(student.model.model, student.model) for p in layer.parameters()}
    shapes = {shape for shape in shapes if len(shape) == 2}
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    ids = torch.arange(1, 9)[None]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), student.autocast():
        student.split.body(input_ids=ids, position_ids=ids, use_cache=False)
    return [
        tuple(t.shape)
        for t in saved
        if not shapes.isdisjoint({tuple(t.shape), tuple(t.shape)[::-1]}) and t.untyped_storage().nbytes()
    ]


@pytest.mark.parametrize("ranks", [2], ids=["two"], indirect=True)
def test_in_bfloat16_no_layer_stays_whole_until_the_way_back(ranks: Processes, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "llama", seed=3, tied=False)
    assert kept(Solo(), str(model))
    assert ranks(kept, str(model)) == [[]] * ranks.size


def far(team: Team, model: str, teacher: str) -> list[dict[str, float]]:
    """The exact KL on given texts of a student to its own average, and to another teacher."""
    student = Student.load(StudentConfig(model=model, dtype="float32"), Optim(), 1.0, team=team)
    pupil = Pupil(char_tokenizer(), student.vocabulary, Pretrained(model), student, team=team)
    average = SelfTeacher(weights="ema", decay=0.5, dtype="float32").start(pupil)
    other = LocalTeacher(model=teacher, dtype="float32", prompt="student").start(pupil)
    with torch.no_grad():
        for p in map(own, student.params):
            p.mul_(1.5)
    texts = rollouts([(3, 9), (2, 7), (4, 8), (5, 5), (1, 11)])
    with student.read() as split:
        return [text_divergence(split, scorer, texts, 12, team) for scorer in (average, other)]


@pytest.mark.parametrize("ranks", [2], ids=["two"], indirect=True)
def test_the_exact_kl_on_given_texts_is_that_of_one_process(
    ranks: Processes, student_dir: Path, teacher_dir: Path
) -> None:
    want = far(Solo(), str(student_dir), str(teacher_dir))
    assert all(kl["eval/text_kl"] > 0.01 for kl in want)
    for found in ranks(far, str(student_dir), str(teacher_dir)):
        assert found == [pytest.approx(kl, rel=1e-5) for kl in want]
