"""`opd chat`, and `opd sample --compare`: who answers, what is shown of it, and how a conversation goes on."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from opd.commands.chat.conversation import converse, interruptible
from opd.commands.chat.voices import Voices, start_voices
from opd.commands.finding import find_subject
from opd.console import PlainConsole
from opd.rollout.hf import Hf
from opd.run.interrupt import CtrlC
from opd.types import Message, Sampling, UserError
from tests.tiny import char_tokenizer, cli_code, prompts


class Typed:
    """A person who types these lines, and a model that echoes the last turn."""

    def __init__(self, *lines: str) -> None:
        self.lines = iter(lines)
        self.heard: list[str] = []
        self.asked: list[list[str]] = []

    def ask(self) -> str | None:
        return next(self.lines, None)

    def answer(self, messages: Sequence[Message]) -> str:
        self.asked.append([m["content"] for m in messages])
        match messages[-1]["content"]:
            case "long":
                raise UserError("too long")
            case "stop":
                raise KeyboardInterrupt
        return f"re: {messages[-1]['content']}"

    def talk(self) -> None:
        converse(self.ask, self.heard.append, self.answer)


def test_a_conversation_has_a_history_until_it_is_reset() -> None:
    person = Typed("a", "", "b", "/reset", "c", "/quit", "d")
    person.talk()
    assert person.asked == [["a"], ["a", "re: a", "b"], ["c"]]
    assert person.heard == ["a new conversation"]


def test_what_could_not_be_answered_was_not_asked() -> None:
    person = Typed("a", "long", "stop", "b")
    person.talk()
    assert person.asked[-1] == ["a", "re: a", "b"]
    assert person.heard == ["too long", "\nstopped, and forgotten"]


def test_every_ctrl_c_is_heard_and_not_only_the_first_one() -> None:
    with CtrlC():
        with interruptible():
            for _ in range(3):
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
        handler = signal.getsignal(signal.SIGINT)
        assert handler is not signal.default_int_handler


def test_a_word_that_is_no_command_is_told_and_not_asked() -> None:
    person = Typed("/rest", "/etc/passwd is what?")
    person.talk()
    assert person.asked == [["/etc/passwd is what?"]]
    assert "/rest: no such command" in person.heard[0]


def test_a_completion_is_told_token_by_token_and_is_the_one_that_is_sampled(student_dir: Path) -> None:
    engine = Hf(dtype="float32").start(str(student_dir), max_len=64, seed=0)
    (prompt,) = prompts(char_tokenizer(), ["1+2="])
    sampling, heard = Sampling(max_tokens=12, stop=(1,), seed=3), []
    written = engine.write(prompt, sampling, heard.append)
    assert written == engine.sample([prompt], sampling)[0]
    assert tuple(heard) == written.tokens


@pytest.fixture
def asked(config: Path, teacher_dir: Path) -> list[str]:
    """A model and a config, as they are typed."""
    return [f"model={teacher_dir}", f"conf={config}"]


@pytest.fixture
def voices(config: Path, teacher_dir: Path) -> Iterator[Voices]:
    named = {"model": str(teacher_dir), "conf": str(config)}
    with ExitStack() as stack:
        subject = find_subject(named, ["data.template=chat", "data.system=0"])
        console = PlainConsole(io.StringIO(), io.StringIO())
        yield start_voices(subject, console, stack, compare=False, temperature=0.0, max_tokens=4)


def test_turns_are_in_the_models_own_template(voices: Voices) -> None:
    assert voices.remembers
    turns = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "3"}]
    seen = voices.data.prompt_in(turns)
    assert voices.tokenizer.decode(seen.tokens) == "0123:"
    pieces: list[str] = []
    (answer,) = voices.answer(turns, lambda name, text: pieces.append(text))
    assert "".join(pieces) == answer.text
    assert answer.pieces is None


def test_a_conversation_that_is_too_long_is_refused_with_the_way_on(voices: Voices) -> None:
    with pytest.raises(UserError, match="reads at most 512; begin a new one with /reset"):
        voices.answer([{"role": "user", "content": "1" * 600}])
    (answer,) = voices.answer([{"role": "user", "content": "1" * 508}])  # with the system's, and a colon
    assert answer.tokens is not None
    assert answer.tokens <= 2


def test_a_prompt_on_stdin_or_by_an_option_is_answered_in_plain_text(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli_code(["chat", *asked, "-p", "1+2=", "--temperature", "0"]) == 0
    by_option = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("1+2=\n"))
    assert cli_code(["chat", *asked, "--temperature", "0"]) == 0
    out, err = capsys.readouterr()
    assert out == by_option != "\n"
    assert "\x1b" not in out
    assert err == ""


def test_a_model_alone_is_talked_to_without_a_config(teacher_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code(["chat", f"model={teacher_dir}", "-p", "1+2=", "--max-tokens", "3", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert answer["model"] == str(teacher_dir)
    assert answer["tokens"] <= 3


class Keyboard(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("more", "says"),
    [(["--compare", "-p", "1"], "--compare: "), (["--json"], "--json: "), (["-p", ""], "the prompt is empty")],
)
def test_what_cannot_be_is_one_line(
    more: list[str], says: str, student_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Keyboard())
    assert cli_code(["chat", f"model={student_dir}", "data.template=plain", *more]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_before_after_and_teacher_are_compared_token_by_token(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = f"run={tmp_path / 'run'}"
    assert cli_code(["train", f"conf={config}", run, "-q", "steps=2", "optim.lr=0.1"]) == 0
    capsys.readouterr()
    for command in (["chat"], ["sample", "-n", "1"]):
        assert cli_code([*command, run, "-p", "1+2=", "--compare", "--json", "--max-tokens", "8"]) == 0
        said = json.loads(capsys.readouterr().out)
        (said,) = said if isinstance(said, list) else [said]
        assert [a["model"] for a in said["answers"]] == ["student before", "student after 2 steps", "teacher"]
        before, after, teacher = said["answers"]
        assert before["completion"] != after["completion"]
        assert abs(teacher["disagreement"]) < 1e-4 < abs(before["disagreement"])
        for answer in said["answers"]:
            assert answer["completion"] == "".join(p for p, _ in answer["pieces"]).removesuffix("<eos>")
    assert cli_code(["sample", run, "-p", "1+2=", "--compare"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("> 1+2=\nstudent before: ")
    assert "\x1b" not in out
