"""Bytes of weights, gradients and optimizer: equal to those of tensors that torch allocated, whole and sharded.

Students and teachers are loaded as a run loads them, over a process group whose other ranks do not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor

from opd.devices.team import Team
from opd.learner.config import Lora, StudentConfig
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.models.heads import ChunkedHead
from opd.plan import held
from opd.plan.known import KNOWN
from opd.plan.shape import read_shape
from opd.teachers.local import LocalTeacher
from opd.teaching import Pupil
from opd.types import Pretrained
from tests.plan.alone import group
from tests.tiny import char_tokenizer, save_model

KINDS = ["qwen3", "qwen2", "llama", "gpt2", "gpt_neox", "mixtral", "qwen3_moe", "qwen2_moe"]
SIZES = {(1, 1): (0,), (2, 2): (0, 1), (3, 3): (0, 2), (2, 1): (1,), (4, 2): (3,)}
"""Numbers of ranks, and of those that have one copy of the weights, and those of them that are looked at."""
each_size = pytest.mark.parametrize(("size", "shard"), SIZES, ids=lambda number: str(number))
ATTENTION = dict.fromkeys(["mixtral", "qwen3_moe", "qwen2_moe"], ("q_proj", "o_proj"))
"""Adapters of mixtures: their experts get none."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], str]:
    """The folder of a model of a kind, with tied embeddings or without, which is made once."""

    @cache
    def folder(kind: str, tied: bool) -> str:
        return str(save_model(tmp_path_factory.mktemp(kind), kind, seed=0, tied=tied))

    return folder


def lora_for(kind: str) -> Lora:
    return Lora(rank=3, targets=ATTENTION.get(kind, "all-linear"))


def storages(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the memory behind tensors, what several of them share counted once."""
    local = (t.to_local() if isinstance(t, DTensor) else t for t in tensors)
    return sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in local) if s.nbytes()}.values())


def after_a_step(student: Student) -> tuple[int, int, int]:
    """Bytes of weights with buffers, of gradients, and of the optimizer's state, after one step on a few tokens."""
    places, every = torch.arange(8)[None], slice(0, 8)
    with student.autocast():
        hidden = student.split.hidden(places, places)
        head = ChunkedHead(student.split, hidden)
        head.logits(every).logsumexp(-1).sum().backward()
        head.backward(every)
    hidden.backward(head.grad)
    gradients = storages(p.grad for p in student.params if p.grad is not None)
    student.optimizer.step()
    moments = (t for state in student.optimizer.state.values() for t in state.values())
    return storages((*student.model.parameters(), *student.model.buffers())), gradients, storages(moments)


def whole_heads(model: Any, team: Team) -> bool:
    """Whether the output head is no shard."""
    return team.size == 1 or not isinstance(model.get_output_embeddings().weight, DTensor)


@each_size
@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_student_holds_what_torch_allocates(
    kind: str, tied: bool, adapted: bool, size: int, shard: int, saved: Callable[[str, bool], str]
) -> None:
    folder, lora = saved(kind, tied), lora_for(kind) if adapted else None
    settings = StudentConfig(folder, "bfloat16", lora, device="cpu")
    for rank in SIZES[size, shard]:
        planned = held.trained(read_shape(Pretrained(folder), lora), "bfloat16", shard, rank % shard)
        with group(rank, size, shard) as team:
            student = Student.load(settings, Optim(), 1.0, team=team)
            assert whole_heads(student.model, team) == (adapted or size == 1)
            assert (planned.weights, planned.gradients, planned.optimizer) == after_a_step(student)


@each_size
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_holds_what_torch_allocates(
    kind: str, tied: bool, dtype: Any, size: int, shard: int, saved: Callable[[str, bool], str]
) -> None:
    model = saved(kind, tied)
    planned = held.frozen(read_shape(Pretrained(model)), dtype, shard)
    for rank in SIZES[size, shard]:
        with group(rank, size, shard) as team:
            loaded = start(LocalTeacher(model=model, dtype=dtype, device="cpu"), team)
            assert whole_heads(loaded, team)
            assert planned == storages((*loaded.parameters(), *loaded.buffers()))


@pytest.mark.parametrize("size", [1, 2])
def test_a_quantized_teacher_is_whole_on_every_rank(size: int, saved: Callable[[str, bool], str]) -> None:
    pytest.importorskip("torchao")
    model = saved("qwen3", False)
    planned = held.packed(read_shape(Pretrained(model)), "bfloat16", "int8")
    with group(size - 1, size) as team:
        loaded = start(LocalTeacher(model=model, dtype="bfloat16", quantization="int8", device="cpu"), team)
        tensors = [part for p in loaded.parameters() for part in unpacked(p)]
        assert planned == storages((*tensors, *loaded.buffers()))


def start(settings: LocalTeacher, team: Team) -> Any:
    """A teacher's model, started as a run does."""
    split = settings.start(Pupil(char_tokenizer(), 45, team=team)).split
    assert split is not None
    return split.model


def unpacked(weight: torch.Tensor) -> Iterator[torch.Tensor]:
    """What a packed tensor is made of; any other itself."""
    inside = [t for t in vars(weight).values() if isinstance(t, torch.Tensor)] if hasattr(weight, "qdata") else []
    yield from inside or [weight]


BILLIONS = {
    "Qwen/Qwen3-0.6B": 0.60, "Qwen/Qwen3-1.7B": 1.72, "Qwen/Qwen3-4B": 4.02, "Qwen/Qwen3-8B": 8.19,
    "Qwen/Qwen3-14B": 14.77, "Qwen/Qwen3-32B": 32.76, "Qwen/Qwen2.5-0.5B-Instruct": 0.49,
    "Qwen/Qwen2.5-1.5B-Instruct": 1.54,
    "Qwen/Qwen2.5-Math-7B-Instruct": 7.62, "openai-community/gpt2": 0.124, "MiniLLM/teacher-gpt2-1.5B": 1.56,
}  # fmt: skip
"""Parameters, as the models' pages give them."""


@pytest.mark.parametrize("name", BILLIONS)
def test_models_of_the_table_have_as_many_parameters_as_is_published(name: str) -> None:
    assert name in KNOWN
    assert read_shape(Pretrained(name)).parameters == pytest.approx(BILLIONS[name] * 1e9, rel=0.01)
