"""What a run keeps of its rollouts reads back as it was."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from opd.needs import ALTERNATIVES
from opd.run.transcripts import read_rows, read_transcripts, recorded_steps, step_file, write_transcripts
from opd.text.chat import decode
from opd.text.pieces import token_texts
from opd.types import Judgement, Scored, UserError
from tests.tiny import char_tokenizer, rollouts, scored
from tests.tokenizers import byte_level


def with_top(items: list[Scored], k: int) -> list[Scored]:
    """The same with the ids 2, 3, ... as the likeliest of every token."""
    ids, values = torch.arange(2, 2 + k), -torch.arange(1.0, k + 1)
    return [
        replace(s, teacher=Judgement(s.teacher.logprobs, None, ids.repeat(n, 1), values.repeat(n, 1)))
        for s in items
        for n in [len(s.rollout.tokens)]
    ]


def save(folder: Path, items: list[Scored], tokenizer=None, step: int = 3) -> None:
    tokenizer = tokenizer or char_tokenizer()
    write_transcripts(folder / "rollouts", step, items, tokenizer, partial(token_texts, tokenizer))


def test_tokens_come_back_with_their_texts_log_probs_and_alternatives(tmp_path: Path) -> None:
    items = with_top(scored(rollouts([(3, 4), (2, 0), (2, 5)])), k=7)
    save(tmp_path, items)
    back = read_transcripts(tmp_path / "rollouts", 3)
    for s, t in zip(items, back, strict=True):
        assert "".join(token.text for token in t.tokens) == char_tokenizer().decode(s.rollout.tokens)
        assert [token.logprob for token in t.tokens] == list(s.rollout.logprobs)
        assert [token.teacher_logprob for token in t.tokens] == s.teacher.logprobs.tolist()
        assert (t.reward, t.truncated, t.id) == (s.reward, s.rollout.truncated, s.rollout.prompt.example.id)
        assert all(len(token.alternatives) == ALTERNATIVES for token in t.tokens)
    assert back[0].tokens[0].alternatives[:2] == (("0", -1.0), ("1", -2.0))


def test_a_completion_is_kept_as_its_tokens_are_also_where_a_tokenizer_would_tidy_it_up(tmp_path: Path) -> None:
    tokenizer = char_tokenizer("a ,")
    tokenizer.clean_up_tokenization_spaces = True  # as Llama 3's
    (item,) = scored(rollouts([(2, 4)]))
    tokens = (*tokenizer("a ,")["input_ids"], 1)
    save(tmp_path, [replace(item, rollout=replace(item.rollout, tokens=tokens))], tokenizer)
    (row,) = read_rows(tmp_path / "rollouts", 3)
    assert row["completion"] == "a ,<eos>"
    assert decode(tokenizer, tokens) == "a ,"


def test_a_teacher_that_gave_no_alternatives_leaves_none(tmp_path: Path) -> None:
    save(tmp_path, scored(rollouts([(3, 4)])))
    (back,) = read_transcripts(tmp_path / "rollouts", 3)
    assert {token.alternatives for token in back.tokens} == {()}


def test_files_of_an_earlier_version_have_ids_for_texts(tmp_path: Path) -> None:
    items = scored(rollouts([(3, 4)]))
    save(tmp_path, items)
    file = step_file(tmp_path / "rollouts", 3)
    table = pq.read_table(file).drop_columns(["texts", "teacher_top", "teacher_top_logprobs"])
    pq.write_table(table, file)
    (back,) = read_transcripts(tmp_path / "rollouts", 3)
    assert [t.text for t in back.tokens] == [f"[{i}]" for i in items[0].rollout.tokens]


def test_a_character_that_is_split_over_tokens_shows_its_bytes(tmp_path: Path) -> None:
    tokenizer = byte_level()
    (item,) = scored(rollouts([(1, 1)]))
    ids = tuple(tokenizer("a\u2603")["input_ids"])
    rollout = replace(item.rollout, tokens=ids, logprobs=(-1.0,) * len(ids))
    save(tmp_path, [Scored(rollout, Judgement(torch.zeros(len(ids))))], tokenizer)
    (back,) = read_transcripts(tmp_path / "rollouts", 3)
    assert "".join(t.text for t in back.tokens) == r"a\xe2\x98\x83"
    assert back.completion == "a\u2603"


def test_only_trained_tokens_that_both_judged_have_a_disagreement(tmp_path: Path) -> None:
    (item,) = scored(rollouts([(1, 4)]))
    rollout = replace(item.rollout, logprobs=(-1.0, -1.0, math.nan, -1.0), trained=(True, False, True, True))
    save(tmp_path, [Scored(rollout, Judgement(torch.tensor([-3.0, -3.0, -3.0, math.nan])))])
    (back,) = read_transcripts(tmp_path / "rollouts", 3)
    assert [t.disagreement for t in back.tokens] == pytest.approx([2.0, math.nan, math.nan, math.nan], nan_ok=True)


def test_steps_are_listed_in_order_and_without_what_is_no_file_of_a_step(tmp_path: Path) -> None:
    for step in (20, 1, 100):
        save(tmp_path, scored(rollouts([(1, 1)])), step=step)
    (tmp_path / "rollouts" / "step_000030.part").write_bytes(b"PAR1")
    for name in ("x", "²", "¼", "٣"):
        (tmp_path / "rollouts" / f"step_{name}.parquet").write_bytes(b"")
    assert recorded_steps(tmp_path / "rollouts") == [1, 20, 100]
    assert recorded_steps(tmp_path / "nowhere") == []


@pytest.mark.parametrize("rows", [10**7, 3])
def test_a_small_file_that_unpacks_to_more_than_there_can_be_is_refused_before_it_is_read(
    tmp_path: Path, rows: int
) -> None:
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, "int32")), pa.array(["x"]))
    (tmp_path / "rollouts").mkdir()
    pq.write_table(pa.table({"id": column}), step_file(tmp_path / "rollouts", 3), compression="zstd")
    with pytest.raises(UserError, match="it has 10000000 values in" if rows > 3 else "there is no column"):
        read_transcripts(tmp_path / "rollouts", 3)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "rollouts").mkdir()
    os.mkfifo(step_file(tmp_path / "rollouts", 3))
    with pytest.raises(UserError, match="it is no file"):
        read_transcripts(tmp_path / "rollouts", 3)
