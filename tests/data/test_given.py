"""Completions that the data gives are read before the first step: bad ones by row, losses counted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from opd.data.given import Characters, look_through
from opd.sources.by_task import ByTask
from opd.sources.dataset import DatasetSource
from opd.sources.mixed import Mixed
from opd.sources.student import StudentSource
from opd.text.vocabulary import unknown_ids
from opd.types import Example, Prompt, Rollout, Sampling, UserError
from tests.sources.desks import make_desk, tables
from tests.tiny import char_tokenizer, cli_code

GOOD = [{"prompt": f"{i}+1", "completion": str(i + 1)} for i in range(300)]
SET = [
    "data.tasks={mine: {_target_: opd.tasks.text.Prompts, path: FILE, completion_column: completion}}",
    "source=dataset", "objective=sft", "data.prompts_per_step=2", "sampling.n=1", "steps=1", "eval.every=0",
]  # fmt: skip
LEFT_OUT = (
    "{% for m in messages %}{{ m['content'].split('#')[0] }}{% endfor %}{% if add_generation_prompt %}:{% endif %}"
)


def train(config: Path, tmp_path: Path, rows: list[Mapping[str, Any]], *more: str) -> int:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [s.replace("FILE", str(file)) for s in SET]
    return cli_code(["train", f"conf={config}", f"run={tmp_path / 'run'}", "~data.tasks", *settings, *more])


@pytest.mark.parametrize(
    "source", [[], ["source=mixed", "source.shares={student: 0.9, dataset: 0.1}", "objective=gkd"]]
)
@pytest.mark.parametrize(
    ("completion", "says"),
    [(None, "has no completion to train on"), ("", "has no completion"), ("1<eos>2", "'<eos>' in its midst")],
)
def test_one_bad_row_of_many_ends_the_run_before_step_1_by_its_line(
    source: list[str], completion: str | None, says: str, config: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    rows = [*GOOD[:250], {"prompt": "1+1=", "completion": completion}, *GOOD[250:]]
    assert train(config, tmp_path, rows, "-q", "data.tasks.mine.eval_fraction=0", *source) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "data.tasks.mine" in line
    assert f"{tmp_path / 'rows.jsonl'}, line 251" in line
    assert says in line
    assert not (tmp_path / "run").exists()


def test_what_is_cut_and_what_no_token_says_is_counted_before_the_run(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*GOOD, {"prompt": "long", "completion": "1" * 30}, {"prompt": "odd", "completion": "1é"}]
    assert train(config, tmp_path, rows, "data.tasks.mine.eval_fraction=0") == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "1 of 302 given completions are cut at sampling.max_tokens=8" in said
    assert "raise it, to 31 for all" in said
    assert "1 of 302 given completions have characters that the student's tokenizer does not know, such as 'é'" in said
    assert "line 301" in said
    assert "line 302" in said


def rollout(text: str, tokens: tuple[int, ...]) -> Rollout:
    prompt = Prompt(
        Example("a/1", ({"role": "user", "content": "1"},), task="a", completion=text, where="f, line 7"), (3,)
    )
    return Rollout(prompt, tokens, (float("nan"),) * len(tokens), truncated=False, origin="dataset", writers=())


def test_completions_that_lose_nothing_are_not_spoken_of() -> None:
    sampling = Sampling(max_tokens=3, stop=(1,))
    assert look_through([rollout("12", (3, 4, 1))], char_tokenizer(), sampling, 45) == []
    assert look_through([], char_tokenizer(), sampling, 45) == []


def test_an_id_that_the_student_does_not_have_is_refused_by_row() -> None:
    with pytest.raises(UserError, match=r"data\.tasks\.a: f, line 7: the student has 45 tokens, and .* id 45"):
        look_through([rollout("12", (45,))], char_tokenizer(), Sampling(max_tokens=3, stop=(1,)), 45)


def test_unknown_characters_are_those_that_become_the_unknown_token_or_nothing() -> None:
    tokenizer = char_tokenizer()
    assert unknown_ids(tokenizer) == {0}
    assert Characters(tokenizer).unknown("1é\n2ß1é") == ["é", "ß"]


def test_of_a_mixture_the_parts_of_the_data_alone_give_completions() -> None:
    desk = make_desk(tables()[0])
    prompt = rollout("12", ()).prompt
    sampling = Sampling(max_tokens=9, stop=(1,))
    for source, count in (
        (Mixed(parts={"x": DatasetSource(), "y": StudentSource()}, shares={"x": 1, "y": 1}), 1),
        (Mixed(parts={"x": DatasetSource(), "y": StudentSource()}, shares={"x": 0, "y": 1}), 0),
        (ByTask(tasks={}, others=DatasetSource()), 1),
        (ByTask(tasks={}, others=StudentSource()), 0),
    ):
        assert len(list(source.start(desk).given([prompt], sampling))) == count
