"""The local teacher: however its rollouts are batched, its word on a token is the same."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from opd.batch import to_batch
from opd.config.compose import load
from opd.extras import install
from opd.learner.config import StudentConfig
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.models import heads
from opd.needs import Needs
from opd.objectives import ReverseKL
from opd.teachers.local import LocalTeacher, own_head
from opd.teaching import Pupil, Scorer
from opd.types import Scored, UserError
from tests.tiny import char_tokenizer, rollouts

SHAPES = [(3, 5), (1, 1), (4, 0), (2, 9), (7, 2), (1, 12), (5, 5)]
LOGPROBS = Needs(logprobs=True)
BOTH = Needs(logprobs=True, distribution=True)


def start(path: Path, **settings: Any) -> Scorer:
    return LocalTeacher(model=str(path), **({"dtype": "float32"} | settings)).start(Pupil(char_tokenizer(), 45))


def values(scorer: Scorer, batches: list[list[Any]]) -> list[list[float]]:
    return [j.logprobs.tolist() for batch in batches for j in scorer.score(batch, LOGPROBS)]


def test_batched_chunked_and_one_by_one_scores_agree(teacher_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = rollouts(SHAPES)
    together = values(start(teacher_dir), [items])
    single = values(start(teacher_dir), [[r] for r in items])
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", 45 * 16)
    small = values(start(teacher_dir, micro_tokens=20), [items])
    for a, b, c in zip(together, single, small, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
        assert a == pytest.approx(c, abs=1e-5)


def test_scores_are_those_of_a_plain_forward_after_its_own_prompt(teacher_dir: Path) -> None:
    items = rollouts(SHAPES)
    model = AutoModelForCausalLM.from_pretrained(teacher_dir, dtype=torch.float32)
    prompt = char_tokenizer()("1+1:")["input_ids"]  # the teacher's template, not the random ids of the student's prompt
    for r, j in zip(items, start(teacher_dir, temperature=2.0).score(items, LOGPROBS), strict=True):
        if not r.tokens:
            continue
        ids = torch.tensor([[*prompt, *r.tokens]])
        logp = (model(input_ids=ids).logits[0, len(prompt) - 1 : -1] / 2.0).log_softmax(-1)
        want = logp.gather(-1, torch.tensor(r.tokens)[:, None])[:, 0]
        torch.testing.assert_close(j.logprobs, want, atol=1e-5, rtol=0)


def test_each_prompt_is_read_as_its_own_whatever_ids_examples_have(config: Path, teacher_dir: Path) -> None:
    """Texts that are asked at the command line have one id for all, and a task of one's own may give one twice."""
    tokenizer, texts = char_tokenizer(), ("1+1", "12-3", "4+4")
    asked = load(str(config)).config.data.start(tokenizer, 0, train=False)
    prompts = [asked.prompt_of(text) for text in texts]
    assert len({p.example.id for p in prompts}) == 1
    read = LocalTeacher(model=str(teacher_dir)).read(tokenizer, [p for p in prompts for _ in range(2)])
    assert [tokenizer.decode(ids) for ids in read] == [f"{text}:" for text in texts for _ in range(2)]


def test_the_students_prompt_can_be_used_as_it_is(teacher_dir: Path) -> None:
    items = rollouts(SHAPES)
    model = AutoModelForCausalLM.from_pretrained(teacher_dir, dtype=torch.float32)
    r, judgement = items[0], start(teacher_dir, prompt="student").score(items, LOGPROBS)[0]
    ids = torch.tensor([[*r.prompt.tokens, *r.tokens]])
    logp = model(input_ids=ids).logits[0, len(r.prompt.tokens) - 1 : -1].log_softmax(-1)
    want = logp.gather(-1, torch.tensor(r.tokens)[:, None])[:, 0]
    torch.testing.assert_close(judgement.logprobs, want, atol=1e-5, rtol=0)


def test_hidden_states_give_the_scores_back_through_its_head(teacher_dir: Path) -> None:
    teacher = start(teacher_dir)
    items = rollouts(SHAPES)
    for r, j in zip(items, teacher.score(items, BOTH), strict=True):
        assert j.state is not None
        logp = heads.gather_logprobs(teacher.logits(j.state), torch.tensor(r.tokens, dtype=torch.int64))
        torch.testing.assert_close(logp, j.logprobs, atol=1e-5, rtol=0)


def test_the_likeliest_tokens_are_those_of_its_distribution(teacher_dir: Path) -> None:
    teacher, items = start(teacher_dir), rollouts(SHAPES)
    for j in teacher.score(items, Needs(logprobs=True, distribution=True, top_k=3)):
        assert j.state is not None
        best = teacher.logits(j.state).log_softmax(-1).topk(3)
        assert torch.equal(j.top_ids, best.indices)
        torch.testing.assert_close(j.top_logprobs, best.values, atol=1e-5, rtol=0)


def test_a_teacher_that_is_the_student_has_no_kl(student_dir: Path) -> None:
    teacher = start(student_dir, prompt="student")
    student = Student.load(StudentConfig(model=str(student_dir), dtype="float32"), Optim(), 1.0)
    items = rollouts(SHAPES)
    own = student.logprobs([(r.prompt.tokens, r.tokens) for r in items])
    items = [replace(r, logprobs=tuple(v)) for r, v in zip(items, own, strict=True)]
    metrics = student.update(
        to_batch([Scored(r, j) for r, j in zip(items, teacher.score(items, BOTH), strict=True)], 0, 64),
        ReverseKL(),
        0.0,
        teacher,
    )
    assert abs(metrics["kl/sampled"]) < 1e-5
    assert abs(metrics["kl/exact"]) < 1e-5
    assert metrics["kl/student_entropy"] == pytest.approx(metrics["kl/teacher_entropy"], abs=1e-4)
    assert metrics["kl/student_unsure"] == metrics["kl/teacher_unsure"] > 0
    assert metrics["kl/agreement"] == 1


def test_padding_rows_of_the_head_are_left_out_and_said(tmp_path: Path) -> None:
    from tests.tiny import save_model

    wide = save_model(tmp_path, "llama", seed=3, tied=False, vocab=64)
    teacher = start(wide)
    assert teacher.logits(torch.zeros(1, 64)).shape == (1, 45)
    assert any("45 and 64 rows" in note for note in teacher.notes([]))


@pytest.mark.parametrize("sizes", [(64, 45), (45, 64)], ids=["the student's", "the teacher's"])
def test_the_exact_kl_is_that_of_the_columns_of_both_whoever_has_padding_rows(
    sizes: tuple[int, int], tmp_path: Path
) -> None:
    from tests.tiny import save_model

    own, theirs = (
        save_model(tmp_path / name, "llama", seed=seed, tied=False, vocab=size)
        for seed, (name, size) in enumerate(zip(("student", "teacher"), sizes, strict=True))
    )
    student = Student.load(StudentConfig(model=str(own), dtype="float32"), Optim(), 1.0)
    teacher = LocalTeacher(model=str(theirs), dtype="float32", prompt="student").start(
        Pupil(char_tokenizer(), student.vocabulary)
    )
    items = rollouts(SHAPES)
    scored = [Scored(r, j) for r, j in zip(items, teacher.score(items, BOTH), strict=True)]
    metrics = student.update(to_batch(scored, 0, 64), ReverseKL(estimator="exact"), 0.0, teacher)
    assert metrics["kl/exact"] == pytest.approx(metrics["optim/loss"], rel=1e-5)
    assert metrics["kl/student_entropy"] < math.log(45)


def test_the_same_size_with_other_tokens_is_refused(teacher_dir: Path) -> None:
    other = char_tokenizer("abcdefghijklmnopqrstuvwxyz 0123456789+-*=;:")
    with pytest.raises(UserError, match=r"do not share a vocabulary.* or teacher=cross objective=gold$"):
        LocalTeacher(model=str(teacher_dir)).start(Pupil(other, 45))


def test_a_teacher_that_lacks_many_of_the_students_tokens_is_refused(teacher_dir: Path) -> None:
    """What it says of the others is no distribution of the student's, though no id stands for two tokens."""
    student = char_tokenizer()
    student.add_tokens([f"<{n}>" for n in range(17)])
    with pytest.raises(UserError, match=r"17 of 62 tokens are the student's alone.*teacher=cross"):
        LocalTeacher(model=str(teacher_dir)).start(Pupil(student, 62))


def test_offloading_does_nothing_on_a_cpu_and_says_so(teacher_dir: Path) -> None:
    items = rollouts(SHAPES)
    teacher = start(teacher_dir, offload=True, device="cpu")
    assert any("teacher.offload does nothing" in note for note in teacher.notes([]))
    assert values(teacher, [items]) == values(start(teacher_dir, device="cpu"), [items])


def test_a_copied_head_is_its_own(student_dir: Path) -> None:
    split: Any = start(student_dir, device="cpu").split
    copied = own_head(split)  # of tied weights: the embedding is left alone
    split.head.weight.data += 1
    assert (split.head.weight - copied.head.weight).min() > 0.5
    assert copied.body is split.body


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_an_offloaded_body_scores_as_ever_and_leaves_the_gpu(student_dir: Path) -> None:
    items = rollouts(SHAPES)
    teacher: Any = start(student_dir, offload=True)
    assert values(teacher, [items, items]) == values(start(student_dir), [items, items])
    assert all(p.device.type == "cpu" for p in teacher.split.body.parameters())
    judged = teacher.score(items, BOTH)[0]
    assert teacher.logits(judged.state.cuda()).isfinite().all()


def test_packed_weights_are_not_offloaded(teacher_dir: Path) -> None:
    with pytest.raises(ValueError, match="offload=true: with quantization=int8"):
        start(teacher_dir, offload=True, quantization="int8")


@pytest.mark.parametrize(("bits", "tolerance", "share"), [("int8", 0.1, 0.6), ("int4", 1.5, 0.4)])
def test_packed_weights_are_smaller_and_score_nearly_the_same(
    tmp_path: Path, bits: str, tolerance: float, share: float
) -> None:
    from tests.tiny import save_model

    pytest.importorskip({"int8": "torchao", "int4": "bitsandbytes"}[bits])
    model = save_model(tmp_path, "llama", seed=2, tied=False, hidden=128)
    items = rollouts(SHAPES)
    whole: Any = start(model, dtype="bfloat16", device="cpu")
    packed: Any = start(model, dtype="bfloat16", device="cpu", quantization=bits)
    gaps = [
        abs(a - b)
        for x, y in zip(values(whole, [items]), values(packed, [items]), strict=True)
        for a, b in zip(x, y, strict=True)
    ]
    assert 0 < sum(gaps) / len(gaps) < tolerance
    assert packed.split.head.weight.dtype == torch.bfloat16
    assert torch.equal(packed.split.head.weight, whole.split.head.weight)
    assert layer_bytes(packed) < share * layer_bytes(whole)
    for r, j in zip(items, packed.score(items, BOTH), strict=True):
        logprobs = heads.gather_logprobs(packed.logits(j.state), torch.tensor(r.tokens, dtype=torch.int64))
        torch.testing.assert_close(logprobs, j.logprobs, atol=1e-4, rtol=0)


def layer_bytes(scorer: Any) -> int:
    """Bytes of the body's layers, of what packed tensors are made of too."""

    def size(tensor: torch.Tensor) -> int:
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter) and hasattr(tensor, "__tensor_flatten__"):
            return sum(size(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
        return tensor.numel() * tensor.element_size()

    return sum(size(p) for p in scorer.split.body.layers.parameters())


def test_a_missing_library_is_named(teacher_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"quantization=int4: it needs bitsandbytes.*{re.escape(install('quant'))}"):
        start(teacher_dir, device="cpu", quantization="int4")


def test_widths_that_a_cpu_cannot_compute_in_4_bits_are_refused(teacher_dir: Path) -> None:
    pytest.importorskip("bitsandbytes")
    with pytest.raises(UserError, match="quantization=int4: on a CPU layers must be a multiple of 64 wide"):
        start(teacher_dir, device="cpu", quantization="int4")
