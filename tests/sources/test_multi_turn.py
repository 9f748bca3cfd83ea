"""Conversations with an environment: ids end to end, and only the student's own are trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from opd.batch import to_batch
from opd.models.tiny import character_tokenizer
from opd.rollout.hf import Hf
from opd.rollout.repetition import loops
from opd.sources.multi_turn import MultiTurn
from opd.tasks.arithmetic import Arithmetic
from opd.tasks.calculator import Calculator
from opd.text.chat import render
from opd.types import Example, Judgement, Message, Pretrained, Prompt, Repetition, Rollout, Sampling, Scored
from tests.sources.desks import STOP, ScriptedEngine, Talkative, make_desk
from tests.text.test_chat import tokenizer as chat_tokenizer
from tests.tiny import char_tokenizer

CHARACTERS = character_tokenizer("0123456789+-*/()=;: .\nabcdefghijklmnopqrstuvwxyz")
CHARACTERS.chat_template = None  # turns are joined by blank lines
SAMPLING = Sampling(max_tokens=80, stop=(STOP,), seed=3)
TASKS = {"": Calculator(suffix=""), "sums": Arithmetic(), "talk": Talkative()}


def ask(text: str, answer: str, task: str = "") -> Prompt:
    return Prompt(
        Example(text, ({"role": "user", "content": text},), answer, task), tuple(CHARACTERS(text)["input_ids"])
    )


def talk(script: Callable[[str], str], asked: list[Prompt], turns: int = 4, sampling: Sampling = SAMPLING):
    engine = ScriptedEngine(torch.zeros(2, 2).numpy(), tokenizer=CHARACTERS, script=script)
    writer = MultiTurn(turns).start(make_desk(engine, tokenizer=CHARACTERS, tasks=TASKS))
    return writer.sample(asked, sampling), engine


def uses_the_tool(text: str) -> str:
    """Ask for the whole expression, then repeat what was told."""
    first, _, told = text.partition("calc(")
    if not told:
        return f"calc({first})"
    return "answer: " + text.rsplit("\n\n", 1)[1]


def test_a_call_is_answered_and_the_student_goes_on() -> None:
    (rollout,), engine = talk(uses_the_tool, [ask("12*30", "360")])
    assert CHARACTERS.decode(rollout.tokens) == "calc(12*30)<eos>\n\n360answer: 360<eos>"
    assert rollout.reward == 1.0
    assert not rollout.truncated
    assert rollout.prompt.tokens == tuple(CHARACTERS("12*30")["input_ids"])
    assert [len(p.tokens) for p in engine.shown] == [5, 5 + 12 + 5]


def test_only_the_students_own_tokens_are_trained_its_stop_ids_included() -> None:
    (rollout,), _ = talk(uses_the_tool, [ask("12*30", "360")])
    theirs = [t for t, own in zip(rollout.tokens, rollout.mask, strict=True) if not own]
    assert CHARACTERS.decode(theirs) == "\n\n360"
    assert [math.isnan(v) for v in rollout.logprobs] == [not own for own in rollout.mask]
    assert rollout.mask.count(False) == 5
    batch = to_batch([Scored(rollout, Judgement(torch.zeros(len(rollout.tokens))))], 0, 512)
    (micro,) = batch.micro
    assert CHARACTERS.decode(micro.tokens.tolist()) == "calc(12*30)<eos>answer: 360<eos>"
    assert batch.trained == len(rollout.tokens) - 5
    # What is trained at a row of the input is the token that comes next there.
    flat = torch.tensor([*rollout.prompt.tokens, *rollout.tokens])
    assert torch.equal(flat[micro.rows + 1], micro.tokens)


def test_conversations_of_a_step_go_on_together_and_those_that_ended_are_left_alone() -> None:
    asked = [ask("12*30", "360"), ask("2+2", "4", "sums"), ask("7*70", "490")]
    written, engine = talk(
        lambda t: "2+2=4" if t == "2+2" else uses_the_tool(t), asked, sampling=replace(SAMPLING, n=2)
    )
    assert [r.prompt for r in written] == [p for p in asked for _ in range(2)]
    assert all(r.prompt is p for r, p in zip(written, [p for p in asked for _ in range(2)], strict=True))
    assert [CHARACTERS.decode(r.tokens).count("<eos>") for r in written] == [2, 2, 1, 1, 2, 2]
    assert [r.reward for r in written] == [1.0, 1.0, None, None, 1.0, 1.0]
    assert len(engine.shown) == 6 + 4


class Circling(ScriptedEngine):
    """Writes one character without an end, and is cut as the rule says."""

    def _one(self, prompt: Prompt, sampling: Sampling, place: int) -> Rollout:
        tokens: list[int] = []
        while len(tokens) < sampling.max_tokens and not loops(tokens, sampling.repetition):
            tokens.append(9)
        return Rollout(prompt, tuple(tokens), (-1.0,) * len(tokens), truncated=True)


def test_a_conversation_that_repeats_itself_is_ended_and_not_gone_on_with() -> None:
    engine = Circling(torch.zeros(2, 2).numpy(), tokenizer=CHARACTERS)
    writer = MultiTurn(4).start(make_desk(engine, tokenizer=CHARACTERS, tasks=TASKS))
    circles = replace(SAMPLING, repetition=Repetition(longest=2, times=8))
    (rollout,) = writer.sample([ask("12*30", "360")], circles)
    assert rollout.tokens == (9,) * 8
    assert rollout.truncated
    assert len(engine.shown) == 1


def test_the_last_turn_is_judged_and_not_what_was_said_before() -> None:
    def hedges(text: str) -> str:
        return "nothing" if "calc" in text else "answer: 360 calc(1)"

    (rollout,), _ = talk(hedges, [ask("12*30", "360")])
    assert "answer: 360" in CHARACTERS.decode(rollout.tokens)
    assert rollout.reward == 0.0


def test_the_environment_is_not_asked_after_the_last_turn() -> None:
    (rollout,), engine = talk(lambda t: "calc(1+1)", [ask("12*30", "360")], turns=3)
    assert len(engine.shown) == 3
    assert rollout.tokens[-1] == STOP
    assert not rollout.truncated


@pytest.mark.parametrize("room", range(1, 60))
def test_the_whole_conversation_keeps_within_max_tokens_and_never_ends_on_the_environments_words(room: int) -> None:
    asked = [ask("12*30", "360"), ask("2*3", "6", "talk")]
    written, engine = talk(uses_the_tool, asked, turns=3, sampling=replace(SAMPLING, max_tokens=room))
    for rollout in written:
        assert 0 < len(rollout.tokens) <= room
        assert rollout.mask[-1]
        assert len(rollout.tokens) == len(rollout.logprobs) == len(rollout.mask)
        assert rollout.truncated or rollout.tokens[-1] == STOP
    assert all(len(p.tokens) <= 5 + room for p in engine.shown)


def test_a_long_conversation_does_not_cut_a_short_one_and_calls_stay_few() -> None:
    def writes(text: str) -> str:
        length = {"1": 70, "2": 2, "3": 40}[text[0]]
        return "7" * length if text.count("7") < length * 2 else "9"

    asked = [ask(f"{i}:", "0", "talk") for i in (1, 2, 3)]
    sampling = replace(SAMPLING, max_tokens=100)
    written, engine = talk(writes, asked, turns=3, sampling=sampling)
    alone = [talk(writes, [p], turns=3, sampling=sampling)[0][0] for p in asked]
    assert [r.tokens for r in written] == [r.tokens for r in alone]
    assert len(engine.shown) < 20


@pytest.fixture(scope="module")
def engine(student_dir: Path):
    started = Hf(dtype="float32").start(Pretrained(str(student_dir)), max_len=200, seed=0)
    yield started
    started.close()


def conversations(engine, seed: int = 0) -> list[Rollout]:
    tok = char_tokenizer()
    asked = [
        Prompt(Example(t, ({"role": "user", "content": t},), "2", "talk"), tuple(tok(t)["input_ids"]))
        for t in ("1+1:", "2+3+4:")
    ]
    desk = make_desk(engine, tokenizer=tok, tasks=TASKS)
    return MultiTurn(3).start(desk).sample(asked, Sampling(max_tokens=60, n=6, stop=(STOP,), seed=seed))


def test_log_probs_are_those_of_the_very_ids_that_the_rollout_holds(engine) -> None:
    written = conversations(engine)
    assert any(not all(r.mask) for r in written)
    scores = engine.logprobs([(r.prompt.tokens, r.tokens) for r in written])
    for rollout, scored in zip(written, scores, strict=True):
        for value, score, own in zip(rollout.logprobs, scored, rollout.mask, strict=True):
            assert value == pytest.approx(score, abs=1e-4) if own else math.isnan(value)


def test_same_seed_same_conversations(engine) -> None:
    assert conversations(engine, 1) == conversations(engine, 1)
    assert [r.tokens for r in conversations(engine, 1)] != [r.tokens for r in conversations(engine, 2)]


class Says(Arithmetic):
    """An environment with one thing to say."""

    def reply(self, example: Example, messages: Sequence[Message]) -> Sequence[Message]:
        assert messages[-1] == {"role": "assistant", "content": "yo"}
        return [{"role": "user", "content": "ok"}]


def test_a_chat_template_renders_the_reply_and_the_next_generation_prompt() -> None:
    tok = chat_tokenizer()
    messages = ({"role": "user", "content": "hi"},)
    prompt = Prompt(Example("c", messages), tuple(render(tok, messages)))
    engine = ScriptedEngine(torch.zeros(2, 2).numpy(), tokenizer=tok, script=lambda text: "yo")
    desk = make_desk(engine, tokenizer=tok, tasks={"": Says()})
    (rollout,) = MultiTurn(2).start(desk).sample([prompt], replace(SAMPLING, stop=(tok.eos_token_id,)))
    assert tok.decode(rollout.tokens) == "yo<eos><|user|>ok<eos><|assistant|>yo<eos>"
    assert tok.decode(engine.shown[1].tokens) == "<bos><|user|>hi<eos><|assistant|>yo<eos><|user|>ok<eos><|assistant|>"
