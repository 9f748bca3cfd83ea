"""The learner: its gradient is the naive one, however the step is cut up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from opd.batch import split_steps, to_batch
from opd.learner.config import Lora, StudentConfig
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.models import heads
from opd.objectives import ReverseKL
from opd.types import Judgement, Rollout, RunError, Scored, UserError
from tests.objectives.cases import assert_same, step
from tests.tiny import rollouts, save_model, scored

SHAPES = [(3, 5), (1, 1), (4, 0), (2, 9), (7, 2), (1, 12), (5, 5)]


def load(path: Path, temperature: float = 1.0, **config: object) -> Student:
    settings = {"dtype": "float32"} | config
    return Student.load(StudentConfig(model=str(path), **settings), Optim(micro_tokens=24, lr=1e-2), temperature)


def naive_gradients(student: Student, items: list[Scored], objective: ReverseKL, temperature: float) -> list[Tensor]:
    """One sequence at a time, through the model's own full logits."""
    total = sum(len(s.rollout.tokens) for s in items)
    for s in items:
        r = s.rollout
        if not r.tokens:
            continue
        ids = torch.tensor([[*r.prompt.tokens, *r.tokens]])
        logits = student.model(input_ids=ids).logits[0, len(r.prompt.tokens) - 1 : -1] / temperature
        logp = logits.log_softmax(-1).gather(-1, torch.tensor(r.tokens)[:, None])[:, 0]
        mu = torch.tensor(r.logprobs)
        loss = -(torch.exp(logp - mu) * objective.coef * (s.teacher.logprobs - mu)).sum() / total
        loss.backward()
    found = [p.grad.clone() for p in student.params]
    student.optimizer.zero_grad(set_to_none=True)
    return found


def assert_close(a: list[Tensor], b: list[Tensor]) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("fixture", ["student_dir", "teacher_dir"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_packed_gradient_is_the_naive_one(
    fixture: str, temperature: float, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", 45 * 16)  # several chunks of the head
    student = load(request.getfixturevalue(fixture), temperature)
    items, objective = scored(rollouts(SHAPES)), ReverseKL(coef=0.5)
    assert_close(
        step(student, to_batch(items, 0, 24), objective).gradients,
        naive_gradients(student, items, objective, temperature),
    )


def test_what_the_student_of_now_says_of_the_tokens_of_a_step(
    student_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", 45 * 16)
    student, items = load(student_dir, 0.7), scored(rollouts(SHAPES))
    items[3] = replace(items[3], rollout=replace(items[3].rollout, trained=(True,) * 4 + (False,) * 5))
    objective, first = ReverseKL(discount=1.0, student="now"), split_steps(items, 2, 0)[0](24)
    found = student.completions(first, objective)
    assert found.current_logprobs is not None
    assert not found.current_logprobs.requires_grad
    own = student.logprobs([(s.rollout.prompt.tokens, s.rollout.tokens) for s in items])
    want = torch.zeros(found.mask.shape)
    for i in range(0, len(items), 2):  # the others are trained in the second step
        want[i, : len(own[i])] = torch.tensor(own[i])
    torch.testing.assert_close(found.current_logprobs, want.masked_fill(~found.mask, 0.0))
    assert student.completions(first, ReverseKL(student="now")) is first.completions  # nothing more is read


def test_gradient_checkpointing_leaves_the_gradient_unchanged(student_dir: Path) -> None:
    batch = to_batch(scored(rollouts(SHAPES)), 0, 24)
    plain, checkpointed = load(student_dir), load(student_dir, gradient_checkpointing=True)
    assert_same(step(plain, batch, ReverseKL()), step(checkpointed, batch, ReverseKL()))


def test_nothing_but_what_predicts_a_completion_token_gets_a_gradient(student_dir: Path) -> None:
    student, items = load(student_dir), scored(rollouts([(4, 3), (2, 2), (5, 4)]))
    seen: list[Tensor] = []

    def keep(module: object, args: object, out: Any) -> None:
        out.last_hidden_state.retain_grad()
        seen.append(out.last_hidden_state)

    batch = to_batch(items, 0, 64)
    (micro,) = batch.micro
    student.split.body.register_forward_hook(keep)
    step(student, batch, ReverseKL())
    assert seen[0].grad is not None
    moved = seen[0].grad.abs().sum(-1) > 0
    want = torch.zeros_like(moved)
    for s in items:  # the positions from the last one of the prompt to the last but one of the completion
        prompt, completion = s.rollout.prompt.tokens, s.rollout.tokens
        ids = torch.tensor([*prompt, *completion[:-1]])
        row, start = next(
            (r, c)
            for r, line in enumerate(micro.input_ids)
            for c in range(len(line) - len(ids) + 1)
            if torch.equal(line[c : c + len(ids)], ids)
        )
        want[row, start + len(prompt) - 1 : start + len(ids)] = True
    assert torch.equal(moved, want)
    assert want.sum() == 9


def test_a_step_changes_the_weights_and_counts(student_dir: Path) -> None:
    student = load(student_dir)
    before = [p.clone() for p in student.params]
    metrics = student.update(to_batch(scored(rollouts(SHAPES)), 0, 24), ReverseKL(), lr=1e-2)
    assert student.steps == 1
    assert any(not torch.equal(a, b) for a, b in zip(before, student.params, strict=True))
    assert metrics["optim/trained_tokens"] == sum(c for _, c in SHAPES)
    assert metrics["optim/grad_norm"] > 0


def test_a_batch_with_nothing_to_train_changes_nothing(student_dir: Path) -> None:
    student = load(student_dir)
    before = [p.clone() for p in student.params]
    student.update(to_batch(scored(rollouts([(3, 0)])), 0, 24), ReverseKL(), lr=1e-2)
    assert all(torch.equal(a, b) for a, b in zip(before, student.params, strict=True))


def test_a_loss_that_is_no_number_stops_before_the_weights_change(student_dir: Path) -> None:
    student = load(student_dir)
    before = [p.clone() for p in student.params]
    item = scored(rollouts([(3, 4)]))[0]
    bad = replace(item, teacher=Judgement(torch.full((4,), float("nan"))))
    with pytest.raises(RunError, match="not finite"):
        student.update(to_batch([bad], 0, 24), ReverseKL(), lr=1e-2)
    assert all(torch.equal(a, b) for a, b in zip(before, student.params, strict=True))


def on_policy(student: Student, shapes: list[tuple[int, int]]) -> list[Rollout]:
    made = rollouts(shapes)
    values = student.logprobs([(r.prompt.tokens, r.tokens) for r in made])
    return [replace(r, logprobs=tuple(v)) for r, v in zip(made, values, strict=True)]


def test_a_teacher_that_agrees_leaves_no_gradient(student_dir: Path) -> None:
    student = load(student_dir)
    items = [Scored(r, Judgement(torch.tensor(r.logprobs))) for r in on_policy(student, SHAPES)]
    assert step(student, to_batch(items, 0, 24), ReverseKL()).size == 0


def test_on_policy_ratios_are_one(student_dir: Path) -> None:
    student = load(student_dir)
    items = scored(on_policy(student, SHAPES))
    metrics = student.update(to_batch(items, 0, 24), ReverseKL(), lr=1e-3)
    assert metrics["optim/ratio_mean"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["optim/ess"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["kl/engine_gap"] < 1e-5


def test_adapters_are_merged_on_the_way_out_and_the_base_stays(teacher_dir: Path) -> None:
    student = load(teacher_dir, lora=Lora(rank=4))
    base = {k: v.clone() for k, v in student.model.get_base_model().state_dict().items() if "lora_" not in k}
    student.update(to_batch(scored(rollouts(SHAPES)), 0, 24), ReverseKL(), lr=1e-2)
    now = student.model.get_base_model().state_dict()
    assert all(torch.equal(v, now[k]) for k, v in base.items())
    plain = load(teacher_dir)
    plain.model.load_state_dict(dict(student.weights()))
    pairs = [(r.prompt.tokens, r.tokens) for r in rollouts(SHAPES)]
    for a, b in zip(student.logprobs(pairs), plain.logprobs(pairs), strict=True):
        assert a == pytest.approx(b, abs=1e-4)


def test_bfloat16_computes_near_float32_and_trains_float32_weights(student_dir: Path) -> None:
    pairs = [(r.prompt.tokens, r.tokens) for r in rollouts(SHAPES)]
    half, full = load(student_dir, dtype="bfloat16"), load(student_dir)
    assert all(p.dtype == torch.float32 for p in half.params)
    a = torch.tensor([v for row in half.logprobs(pairs) for v in row])
    b = torch.tensor([v for row in full.logprobs(pairs) for v in row])
    assert 0 < (a - b).abs().mean() < 0.1
    half.update(to_batch(scored(rollouts(SHAPES)), 0, 24), ReverseKL(), lr=1e-3)


SHAPE = {
    "vocab_size": 45,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
DRAWING: dict[str, dict[str, object]] = {
    "GPT2Config": {"n_positions": 64, "attn_pdrop": 0.2, "resid_pdrop": 0.2, "embd_pdrop": 0.2},  # dropout modules
    "PhimoeConfig": {  # noise of the router, a number that its module holds
        "intermediate_size": 32, "num_key_value_heads": 2, "num_local_experts": 4, "router_jitter_noise": 0.3,
        "input_jitter_noise": 0.3,
    },
    # attention's dropout, a number too
    "GraniteConfig": {"intermediate_size": 32, "num_key_value_heads": 2, "attention_dropout": 0.3},
}  # fmt: skip


@pytest.mark.parametrize("checkpointing", [False, True], ids=["whole", "checkpointed"])
@pytest.mark.parametrize("name", DRAWING)
def test_nothing_is_drawn_in_training_so_that_the_policy_is_the_one_that_sampled(
    tmp_path: Path, name: str, checkpointing: bool
) -> None:
    import transformers

    config = getattr(transformers, name)(**SHAPE, **DRAWING[name])
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    student = load(tmp_path, gradient_checkpointing=checkpointing)
    made = rollouts(SHAPES)
    own = student.logprobs([(r.prompt.tokens, r.tokens) for r in made], temperature=1.0)
    items = scored([replace(r, logprobs=tuple(v)) for r, v in zip(made, own, strict=True)])
    for _ in range(2):  # being read in between does not switch anything on
        metrics = student.update(to_batch(items, 0, 24), ReverseKL(), lr=0.0)
        assert metrics["kl/engine_gap_max"] < 1e-5
        student.logprobs([(made[0].prompt.tokens, made[0].tokens)])


def test_layers_are_computed_again_and_adapters_drop_out_in_training_alone(student_dir: Path) -> None:
    student = load(student_dir, gradient_checkpointing=True, lora=Lora(rank=2, dropout=0.5))

    def training() -> set[str]:
        return {type(m).__name__ for m in student.model.modules() if m.training}

    before = training()
    assert any("DecoderLayer" in name for name in before)
    assert "Dropout" in before
    with student.read():
        assert not training()
    assert training() == before


def test_an_adapter_on_an_embedding_that_is_tied_to_the_head_is_refused(student_dir: Path) -> None:
    with pytest.raises(UserError, match="tied to the output head"):
        load(student_dir, lora=Lora(rank=2, targets=("embed_tokens", "q_proj")))


def test_adapters_on_the_experts_of_a_mixture_are_refused_and_beside_them_they_are_merged(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "mixtral", seed=0, tied=False)
    with pytest.raises(UserError, match=r"experts, which get no adapters.*q_proj"):
        load(folder, lora=Lora(rank=2))
    student = load(folder, lora=Lora(rank=2, targets=("q_proj", "v_proj")))
    plain = load(folder)
    assert dict(student.weights()).keys() == dict(plain.weights()).keys()
