"""A teacher with another tokenizer: the bytes that both spell, and what it says of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import processors
from transformers import AutoModelForCausalLM

from opd.batch import to_batch
from opd.learner.config import StudentConfig
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.models.tiny import character_tokenizer
from opd.needs import Needs
from opd.objectives import Gold, ReverseKL
from opd.teachers.cross import CrossTeacher
from opd.teachers.local import LocalTeacher
from opd.teachers.translation import Lexicon, Translation
from opd.teaching import Pupil, Scorer
from opd.types import Example, Prompt, Rollout, Scored
from tests.tiny import ALPHABET, char_tokenizer, rollouts, save_model
from tests.tokenizers import SCRIPTS, byte_level, gemma, sentencepiece, smollm2

SHAPES = [(3, 5), (1, 1), (4, 0), (2, 9), (7, 2), (1, 12), (5, 5)]
SPANS = Needs(spans=True, distribution=True)
MERGES = [("1", "2"), ("+", "1"), ("12", "3"), ("a", "b")]


def start(path: Path, pupil: Any = None, **settings: Any) -> Scorer:
    pupil = pupil or char_tokenizer()
    return CrossTeacher(model=str(path), dtype="float32", **settings).start(Pupil(pupil, len(pupil)))


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama whose tokens are characters and some pairs of them, and which ends its turn with either of two."""
    folder = save_model(tmp_path_factory.mktemp("merged"), "llama", seed=4, tied=False, vocab=64)
    character_tokenizer(ALPHABET, MERGES).save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 60]}))
    return folder


def written(tokens: list[int], truncated: bool = False, trained: tuple[bool, ...] | None = None) -> Rollout:
    prompt = Prompt(Example("0", ({"role": "user", "content": "1+1"},)), (3, 12, 3, 19))
    return Rollout(prompt, tuple(tokens), (-1.0,) * len(tokens), truncated, trained=trained)


def ids(text: str, *, ended: bool = True) -> list[int]:
    return [*char_tokenizer()(text)["input_ids"], *([1] if ended else [])]


def test_what_opens_an_answer_stands_between_the_prompt_and_the_students_words(teacher_dir: Path) -> None:
    (item,) = rollouts([(3, 5)])
    plain, opened = start(teacher_dir), start(teacher_dir, opening="so:")
    before, after = (scorer.read([item.prompt])[0] for scorer in (plain, opened))
    assert list(after) == [*before, *char_tokenizer()("so:")["input_ids"]]
    assert not torch.equal(plain.score([item], SPANS)[0].logprobs, opened.score([item], SPANS)[0].logprobs)
    with pytest.raises(ValueError, match="opening: it is not read with prompt=student"):
        LocalTeacher(model="t", prompt="student", opening="so:")


def test_with_one_tokenizer_spans_are_tokens_and_all_is_as_for_reverse_kl(teacher_dir: Path) -> None:
    items = rollouts(SHAPES)
    local = LocalTeacher(model=str(teacher_dir), dtype="float32").start(Pupil(char_tokenizer(), 45))
    one = local.score(items, Needs(logprobs=True, distribution=True))
    two = start(teacher_dir).score(items, SPANS)
    for r, a, b in zip(items, one, two, strict=True):
        assert b.spans is not None
        assert b.spans.tolist() == list(range(len(r.tokens)))
        torch.testing.assert_close(a.logprobs, b.logprobs, atol=1e-5, rtol=0)
        torch.testing.assert_close(a.state, b.state, atol=1e-4, rtol=0)
    left, right = (to_batch([Scored(r, j) for r, j in zip(items, js, strict=True)], 0, 64) for js in (one, two))
    torch.testing.assert_close(
        ReverseKL().advantages(left.completions), Gold().advantages(right.completions), atol=1e-5, rtol=0
    )


def test_the_log_prob_of_a_span_is_that_of_the_teachers_tokens_and_shared_out(merged: Path) -> None:
    teacher, rollout = start(merged), written(ids("123a+1b", ended=False), truncated=True)
    (judgement,) = teacher.score([rollout], SPANS)
    own = character_tokenizer(ALPHABET, MERGES)
    prompt, completion = own("1+1")["input_ids"], own("123a+1b")["input_ids"]
    assert own.convert_ids_to_tokens(completion) == ["123", "a", "+1", "b"]
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    logq = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    q = logq.gather(-1, torch.tensor(completion)[:, None])[:, 0]
    want = [q[0] / 3] * 3 + [q[1], q[2] / 2, q[2] / 2, q[3]]
    torch.testing.assert_close(judgement.logprobs, torch.stack(want), atol=1e-5, rtol=0)
    assert judgement.spans is not None
    assert judgement.spans.tolist() == [0, 0, 0, 1, 2, 2, 3]
    assert judgement.state is not None  # where a span starts, the teacher's distribution of its first token
    assert judgement.state.abs().sum(-1).bool().tolist() == [True, False, False, True, True, False, True]
    firsts = teacher.logits(judgement.state[[0, 3, 4, 6]]).log_softmax(-1)
    assert firsts.shape == (4, 64)
    torch.testing.assert_close(firsts, logq, atol=1e-5, rtol=0)


def test_the_end_is_one_event_with_the_mass_of_all_stop_tokens(merged: Path) -> None:
    teacher, rollout = start(merged), written(ids("3a"))
    (judgement,) = teacher.score([rollout], SPANS)
    own = character_tokenizer(ALPHABET, MERGES)
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    logq = model(input_ids=torch.tensor([own("1+13a")["input_ids"]])).logits[0, -1].log_softmax(-1)
    assert judgement.logprobs[-1].item() == pytest.approx(logq[[1, 60]].logsumexp(-1).item(), abs=1e-5)
    assert judgement.spans is not None
    assert judgement.spans.tolist() == [0, 1, 2]


def test_scores_do_not_depend_on_how_rollouts_are_batched_and_empty_ones_are_legal(merged: Path) -> None:
    items = [written(ids(t)) for t in ("123a", "", "ab12", "1")] + [written([]), written([44]), written(ids("12"))]
    pupil = char_tokenizer(ALPHABET[:-1])  # 44 is no token of its own
    together = start(merged, pupil).score(items, SPANS)
    for item, judgement in zip(items, together, strict=True):
        (alone,) = start(merged, pupil, micro_tokens=8).score([item], SPANS)
        torch.testing.assert_close(alone.logprobs, judgement.logprobs, atol=1e-5, rtol=0, equal_nan=True)
        assert alone.spans is not None
        assert torch.equal(alone.spans, judgement.spans)
        assert judgement.logprobs.shape == (len(item.tokens),)
    assert together[5].logprobs.isnan().all()


def test_shared_columns_are_the_tokens_with_the_same_bytes_and_the_end(merged: Path) -> None:
    shared = start(merged).shared
    assert shared is not None
    ours, theirs = char_tokenizer(), character_tokenizer(ALPHABET, MERGES)
    pairs = list(zip(*(columns.tolist() for columns in shared), strict=True))
    assert (1, 1) in pairs
    assert len(pairs) == len(ALPHABET) + 1
    assert all(ours.decode([i]) == theirs.decode([j]) for i, j in pairs)


def test_the_students_ids_cannot_be_read_as_they_are() -> None:
    with pytest.raises(ValueError, match=r"prompt=student: .*allowed is prompt=own"):
        CrossTeacher(model="x", prompt="student")


def test_a_person_is_told_how_much_is_shared(merged: Path) -> None:
    notes = start(merged).notes([written([]).prompt])
    assert notes[0] == "another tokenizer: 44 of the student's 45 tokens (98%) are also the teacher's"
    assert notes[1] == "the teacher reads 1 of 1 prompts as another text"  # the student's has a colon behind it


@pytest.mark.parametrize("method", ["span", "uld", "hybrid"])
def test_the_learner_steps_on_it_and_logs_how_much_had_a_signal(merged: Path, student_dir: Path, method: Any) -> None:
    pupil = char_tokenizer(ALPHABET[:-1])
    pupil.add_special_tokens({"additional_special_tokens": ["<mine>"]})  # the teacher has no such token
    teacher = start(merged, pupil)
    items = [written(ids("123a+1b")), written([*ids("ab", ended=False), len(pupil) - 1, *ids("12")]), written([])]
    student = Student.load(StudentConfig(model=str(student_dir), dtype="float32"), Optim(), 1.0)
    own = student.logprobs([(r.prompt.tokens, r.tokens) for r in items])
    items = [replace(r, logprobs=tuple(v)) for r, v in zip(items, own, strict=True)]
    needs = SPANS if method != "span" else Needs(spans=True)
    scored = [Scored(r, j) for r, j in zip(items, teacher.score(items, needs), strict=True)]
    first = student.update(to_batch(scored, 0, 64), Gold(method=method), 3e-3, teacher)
    assert first["kl/coverage"] == pytest.approx(13 / 14)
    assert first["optim/grad_norm"] > 0
    for _ in range(5):
        last = student.update(to_batch(scored, 0, 64), Gold(method=method), 3e-3, teacher)
    assert last["optim/loss"] < first["optim/loss"]


# Reading a completion: no model is needed.


def translate(tokens: list[int], ours: Any, theirs: Any, **settings: Any) -> Translation:
    stop = (theirs.eos_token_id,)
    return Lexicon.of(Pupil(ours, len(ours)), theirs, stop).translate(written(tokens, **settings))


BYTES, PIECES = byte_level(), sentencepiece()


def covered(read: Translation) -> list[int]:
    return [i for ours, _ in read.spans for i in ours]


@pytest.mark.parametrize("text", SCRIPTS.values())
@pytest.mark.parametrize("prefix", [False, True])
def test_every_token_of_a_text_is_in_a_span_and_the_end_is_the_last(text: str, prefix: bool) -> None:
    tokens = [*BYTES(text)["input_ids"], BYTES.eos_token_id]
    theirs = sentencepiece(prefix)
    read = translate(tokens, BYTES, theirs)
    assert covered(read) == list(range(len(tokens)))
    assert read.ended
    assert read.spans[-1] == ([len(tokens) - 1], [len(read.ids) - 1])
    assert read.ids == [*theirs(text, add_special_tokens=False)["input_ids"], theirs.eos_token_id]


@pytest.mark.parametrize("text", ["ok 👩‍👩‍👧", "你好"])
def test_of_a_completion_cut_inside_a_character_the_whole_ones_are_read(text: str) -> None:
    tokens = BYTES(text)["input_ids"]
    for n in range(len(tokens)):
        read = translate(tokens[:n], BYTES, PIECES, truncated=True)
        shown = PIECES.decode(read.ids)
        assert text.startswith(shown)
        assert "\ufffd" not in shown
        assert covered(read) == list(range(len(BYTES(shown)["input_ids"])))


def test_after_bytes_that_are_no_text_nothing_has_a_signal_not_even_the_end() -> None:
    broken = [*BYTES("ab")["input_ids"], BYTES.get_vocab()["ÿ"], *BYTES("cd")["input_ids"], BYTES.eos_token_id]
    read = translate(broken, BYTES, PIECES)
    assert PIECES.decode(read.ids) == "ab"
    assert not read.ended


def test_special_tokens_are_read_where_the_teacher_has_them_and_cut_the_text() -> None:
    ours, theirs = char_tokenizer(), character_tokenizer(ALPHABET, MERGES)
    one, two, turn = (ours.get_vocab()[t] for t in "12+")
    read = translate([one, 0, two, turn, one], ours, theirs, truncated=True)  # `<pad>` is a token of both
    assert theirs.convert_ids_to_tokens(read.ids) == ["1", "<pad>", "2", "+1"]
    assert read.spans == [([0], [0]), ([1], [1]), ([2], [2]), ([3, 4], [3])]
    ours.add_special_tokens({"additional_special_tokens": ["<mine>"]})
    read = translate([one, len(ours) - 1, two], ours, theirs, truncated=True)
    assert theirs.convert_ids_to_tokens(read.ids) == ["1", "2"]
    assert read.spans == [([0], [0]), ([2], [1])]


def test_no_span_reaches_over_the_border_of_the_environments_words() -> None:
    ours, theirs = char_tokenizer(), character_tokenizer(ALPHABET, MERGES)
    trained = (True, False, False)
    read = translate(ours("123")["input_ids"], ours, theirs, truncated=True, trained=trained)
    assert theirs.convert_ids_to_tokens(read.ids) == ["1", "2", "3"]


def test_a_bos_on_one_side_is_no_event() -> None:
    theirs = sentencepiece()
    theirs.add_special_tokens({"bos_token": "<bos>"})
    bos = theirs.bos_token_id
    theirs.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", bos)]
    )
    assert theirs("ab")["input_ids"][0] == bos
    read = translate(BYTES("ab")["input_ids"], BYTES, theirs, truncated=True)
    assert bos not in read.ids
    assert covered(read) == list(range(len(BYTES("ab")["input_ids"])))


@pytest.mark.slow
def test_smollm2_read_by_gemma_and_the_other_way_round() -> None:
    for ours, theirs in [(smollm2(), gemma()), (gemma(), smollm2())]:
        lexicon = Lexicon.of(Pupil(ours, len(ours)), theirs, (theirs.eos_token_id,))
        for text in [*SCRIPTS.values(), "\n\n  <b>1234</b>\r\n"]:
            tokens = ours(text, add_special_tokens=False)["input_ids"]
            read = lexicon.translate(written([*tokens, ours.eos_token_id]))
            assert covered(read) == list(range(len(tokens) + 1))
            assert read.ids == [*theirs(text, add_special_tokens=False)["input_ids"], theirs.eos_token_id]
            for n in range(len(tokens)):
                cut = lexicon.translate(written(tokens[:n], truncated=True))
                assert text.startswith(theirs.decode(cut.ids))
                assert covered(cut) == list(range(len(covered(cut))))
                assert len(covered(cut)) >= n - 3  # at most a character's bytes are left out
        assert lexicon.shared[ours.eos_token_id] == theirs.eos_token_id
