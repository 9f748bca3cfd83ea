"""Settings that change nothing in what a command does are taken with a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from opd.commands.heeded import HEEDED, INSTEAD, unheeded
from opd.config.explain import explain
from tests.tiny import cli_code


@pytest.fixture
def run(config: Path, tmp_path: Path) -> Path:
    """One of two steps."""
    folder = tmp_path / "run"
    assert cli_code(["train", f"conf={config}", f"run={folder}", "steps=2", "eval.every=0", "--quiet"]) == 0
    return folder


OF = {"models": "name", "source": "source.max_turns source=multi_turn"}
"""Settings that not every config has."""


@pytest.mark.parametrize("key", sorted({k for keys in HEEDED.values() for k in keys}
                                       | {k for own in INSTEAD.values() for pair in own.items() for k in pair
                                          if not k.startswith("-")}))  # fmt: skip
def test_all_that_is_named_are_settings(key: str) -> None:
    name, *overrides = OF.get(key, key).split()
    assert explain(name, "quickstart", overrides)


@pytest.mark.parametrize(
    ("command", "text", "said"),
    [
        ("export", "data.system=hi", True),
        ("export --format gguf", "data.system=hi", False),
        ("export", "optim.lr=1", True),
        ("export", "data.tasks.a.path=there.jsonl", False),
        ("export", "data=everyday", False),
        ("eval", "source.parts.talking.max_turns=3", False),
        ("eval", "objective.coef=2", True),
        ("sample", "sampling.temperature=0.5", True),
        ("sample", "sampling.max_tokens=5", False),
        ("chat", "sampling.temperature=0.5", False),
        ("chat", "rollout=hf", True),
        ("eval", "sampling.n=2", True),
        ("eval", "eval.every=2", True),
        ("eval", "eval=standard", False),
        ("eval", "source=multi_turn", False),
        ("eval", "+student.device=cpu", False),
        ("eval", "~data.tasks.a", False),
    ],
)
def test_a_command_goes_by_some_settings_and_not_by_others(command: str, text: str, said: bool) -> None:
    assert bool([*unheeded(command, [text])]) == said


def test_it_is_said_once_with_what_is_set_instead(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code(["sample", f"run={run}", "-p", "1+1", "sampling.temperature=0.5", "sampling.max_tokens=2"]) == 0
    err = capsys.readouterr().err
    assert err.count("warning: ") == 1
    assert "sampling.temperature=0.5: opd sample does not go by it, and does the same without it; here it is" in err


def test_what_is_typed_at_an_export_is_not_told_as_what_the_run_was_trained_with(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli_code(["export", f"run={run}", "optim.lr=0.5", "steps=77", f"--out={out}", "--dtype=float32"]) == 0
    assert "optim.lr=0.5: opd export does not go by it" in capsys.readouterr().err
    card = (out / "README.md").read_text()
    assert "learning rate 0.003" in card
    assert "77" not in card
