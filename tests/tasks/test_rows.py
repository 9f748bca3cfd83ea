"""Files and datasets, their splits, and what is said of mistakes."""

import json
from pathlib import Path

import datasets
import pytest

from opd.data.prompts import Data
from opd.protocols import Task
from opd.tasks.files import load
from opd.tasks.text import Prompts
from opd.types import UserError
from tests.tiny import char_tokenizer

ROWS = [{"prompt": f"question {i}", "answer": str(i), "level": i % 3} for i in range(200)]


def jsonl(path: Path, rows=ROWS) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(params=["jsonl", "parquet", "saved", "saved_splits", "folder"])
def path(request, tmp_path: Path) -> str:
    table = datasets.Dataset.from_list(ROWS)
    target = str(tmp_path / "rows")
    if request.param == "jsonl":
        return jsonl(tmp_path / "rows.jsonl")
    if request.param == "parquet":
        table.to_parquet(tmp_path / "rows.parquet")
        return str(tmp_path / "rows.parquet")
    if request.param == "saved":
        table.save_to_disk(target)
    if request.param == "saved_splits":
        datasets.DatasetDict({"train": table, "test": table.select(range(3))}).save_to_disk(target)
    if request.param == "folder":
        (tmp_path / "rows").mkdir()
        table.to_parquet(tmp_path / "rows" / "train.parquet")
    return target


def test_every_kind_of_file_gives_the_same_rows(path: str) -> None:
    rows = load(path, columns=["prompt", "answer"], limit=50)
    assert [dict(row) for row in rows] == [{k: row[k] for k in ("prompt", "answer")} for row in ROWS[:50]]


def test_a_missing_column_names_those_there_and_the_nearest(path: str) -> None:
    with pytest.raises(
        UserError, match=r"no column 'promt', did you mean prompt\?; columns there: answer, level, prompt"
    ):
        load(path, columns=["promt"])


def test_splits_share_no_prompt_and_lose_none(tmp_path: Path) -> None:
    task = Prompts(path=jsonl(tmp_path / "a.jsonl", ROWS + ROWS[:20]), eval_fraction=0.2)
    train, held_out = ({e.messages[0]["content"] for e in task.examples(split)} for split in ("train", "eval"))
    assert not train & held_out
    assert len(train | held_out) == 200
    assert 20 <= len(held_out) <= 60


def test_all_of_a_file_may_be_for_evaluation(tmp_path: Path) -> None:
    task = Prompts(path=jsonl(tmp_path / "a.jsonl"), eval_fraction=1)
    assert (len(task.examples("train")), len(task.examples("eval"))) == (0, 200)


def test_a_longer_file_moves_no_earlier_prompt_to_another_split(tmp_path: Path) -> None:
    short = Prompts(path=jsonl(tmp_path / "a.jsonl", ROWS[:100]), eval_fraction=0.2).examples("eval")
    long = Prompts(path=jsonl(tmp_path / "b.jsonl", ROWS), eval_fraction=0.2).examples("eval")
    assert list(short) == list(long[: len(short)])


def test_ids_are_unique_even_where_prompts_are_not(tmp_path: Path) -> None:
    items = Prompts(path=jsonl(tmp_path / "a.jsonl", ROWS + ROWS), eval_fraction=0).examples("train")
    assert len({e.id for e in items}) == 400
    again = Prompts(path=jsonl(tmp_path / "a.jsonl", ROWS[::-1]), eval_fraction=0).examples("train")
    assert [e.id for e in again] == [e.id for e in items[:200]][::-1]


def test_an_eval_file_is_used_and_its_prompts_are_not_trained_on(tmp_path: Path) -> None:
    task = Prompts(path=jsonl(tmp_path / "a.jsonl"), eval_path=jsonl(tmp_path / "b.jsonl", ROWS[:5]))
    assert len(task.examples("eval")) == 5
    assert len(train := task.examples("train")) == 195
    assert "5 of the 200 prompts" in train.note  # nothing is left out in silence


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "prompt;answer\n1;2\n", "separated by ';'; allowed is ','"),
        ("a.csv", "prompt\tanswer\n1\t2\n", "rename it to .tsv"),
        ("a.tsv", "prompt,answer\n1,2\n", "separated by ','"),
        ("a.jsonl", '{"messages": []}\n', "prompt_column=messages"),
        ("a.txt", "x", "allowed are .jsonl, .json, .csv, .tsv, .parquet, also packed as .gz, .zst, .bz2"),
        ("a.ndjson", "{}", "allowed are .jsonl"),
        ("a.jsonl.xz", "", "allowed are .jsonl"),
    ],
)
def test_a_file_of_a_near_kind_says_what_to_change(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as error:
        load(str(tmp_path / name), columns=["prompt"])
    assert says in str(error.value)


def test_a_path_that_is_not_there_asks_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", None)
    for path in (f"{tmp_path}/rows", "./rows", "~nobody-of-this-name/rows", "rows.txt", "a/b/c"):
        with pytest.raises(UserError, match="does not exist"):
            load(path, columns=["prompt"])


def test_rows_of_which_none_is_left_to_train_on_say_why(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl")
    for settings, says in (
        ({"eval_path": file}, f"eval_path={file}: each of the 200 prompts of {file} is in it too"),
        ({"eval_fraction": 1}, f"eval_fraction=1: it holds out each of the 200 prompts of {file}; lower it"),
    ):
        task = Prompts(path=file, **settings)
        assert len(task.examples("eval")) == 200  # `opd eval` asks for no more
        data = Data(tasks={"mine": task})
        with pytest.raises(UserError) as error:
            data.start(char_tokenizer(), 0)
        assert str(error.value).startswith(f"data.tasks.mine.{says}")


def test_an_eval_split_of_a_dataset_is_used(tmp_path: Path) -> None:
    table = datasets.Dataset.from_list(ROWS)
    whole = datasets.DatasetDict({"train": table.select(range(10, 200)), "test": table.select(range(10))})
    whole.save_to_disk(tmp_path / "d")
    task = Prompts(path=str(tmp_path / "d"), eval_split="test")
    assert (len(task.examples("train")), len(task.examples("eval"))) == (190, 10)
    with pytest.raises(UserError, match=r"no split 'tests', did you mean test\?; splits there: test, train"):
        Prompts(path=str(tmp_path / "d"), eval_split="tests").examples("eval")


def test_suffix_and_meta_columns_are_carried_into_the_example(tmp_path: Path) -> None:
    task = Prompts(path=jsonl(tmp_path / "a.jsonl"), suffix=" Why?", meta_columns=("level",), eval_fraction=0, limit=3)
    examples = task.examples("train")
    assert isinstance(task, Task)
    assert [e.messages for e in examples][2] == ({"role": "user", "content": "question 2 Why?"},)
    assert [e.meta for e in examples] == [{"level": 0}, {"level": 1}, {"level": 2}]
    assert task.verify(examples[0], "anything") is None


def test_messages_are_kept_up_to_the_turn_that_is_to_be_answered(tmp_path: Path) -> None:
    turns = [{"role": r, "content": c} for r, c in [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")]]
    file = jsonl(tmp_path / "a.jsonl", [{"chat": [*turns, {"role": "assistant", "content": "d"}]}])
    (example,) = Prompts(path=file, prompt_column="chat", eval_fraction=0).examples("train")
    assert list(example.messages) == turns
    assert example.completion == "d"


def test_completions_come_from_their_column_or_from_the_closing_turns(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [{"prompt": "q", "said": "yes"}, {"prompt": "r", "said": None}])
    given = Prompts(path=file, completion_column="said", eval_fraction=0).examples("train")
    assert [e.completion for e in given] == ["yes", ""]
    assert [e.completion for e in Prompts(path=file, eval_fraction=0).examples("train")] == ["", ""]
    with pytest.raises(UserError, match=r"no column 'sad', did you mean said\?"):
        Prompts(path=file, completion_column="sad").examples("train")


@pytest.mark.parametrize("cell", [None, 3, [], [{"role": "assistant", "content": "x"}], [{"from": "human"}]])
def test_a_cell_that_is_no_prompt_is_named(tmp_path: Path, cell) -> None:
    task = Prompts(path=jsonl(tmp_path / "a.jsonl", [ROWS[0], {"prompt": cell}]))
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: column"):
        task.examples("train")


def test_a_missing_file_names_its_nearest_neighbour(tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl")
    with pytest.raises(UserError, match=r"tran\.jsonl does not exist, did you mean train\.jsonl\?"):
        Prompts(path=str(tmp_path / "tran.jsonl")).examples("train")


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "x"}\n{"prompt": \n')
    with pytest.raises(UserError, match="line 2 is not JSON"):
        load(str(tmp_path / "a.jsonl"), columns=["prompt"])
    (tmp_path / "a.jsonl").write_text("3\n")
    with pytest.raises(UserError, match="line 1 is not an object but 3"):
        load(str(tmp_path / "a.jsonl"), columns=["prompt"])


def test_a_line_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes('{"prompt": "é"}\n{"prompt": "'.encode() + b'\xe9"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 2 is not UTF-8"):
        load(str(tmp_path / "a.jsonl"), columns=["prompt"])
    assert load(str(tmp_path / "a.jsonl"), columns=["prompt"], limit=1) == [{"prompt": "é"}]


def test_empty_and_foreign_files_are_refused(tmp_path: Path) -> None:
    for name, words in [("a.jsonl", "has no rows"), ("a.parquet", "not a parquet file"), ("a.txt", "no known kind")]:
        (tmp_path / name).write_text("")
        with pytest.raises(UserError, match=words):
            load(str(tmp_path / name), columns=["prompt"])


def test_a_dataset_that_cannot_be_had_is_a_users_error(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="path: no-one/nothing, subset None, split train"):
        load("no-one/nothing", columns=["prompt"])


def test_eval_splits_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="is the train split"):
        Prompts(path="some/dataset", eval_split="train")
    with pytest.raises(ValueError, match="cannot be had from a file"):
        Prompts(path="rows.jsonl", eval_split="test")


def test_the_everyday_prompts_ship_and_are_all_different() -> None:
    rows = load("pkg://opd/data/everyday.jsonl", columns=["prompt"])
    texts = [" ".join(row["prompt"].casefold().split()) for row in rows]
    assert len(texts) == len(set(texts)) == 392
    assert all(len(text) < 500 for text in texts)


def test_both_layouts_of_chat_messages_are_read_alike(tmp_path: Path) -> None:
    said = [("system", "be kind"), ("user", "hi"), ("assistant", "hello")]
    names = {"user": "human", "assistant": "gpt"}
    one = [{"role": role, "content": text} for role, text in said]
    other = [{"from": names.get(role, role), "value": text} for role, text in said]
    read = [
        Prompts(path=jsonl(tmp_path / f"{i}.jsonl", [{"prompt": cell}]), eval_fraction=0).examples("train")[0]
        for i, cell in enumerate((one, other))
    ]
    assert read[0] == read[1]
    assert read[0].messages == tuple(one[:2])
    assert read[0].completion == "hello"


def test_a_system_column_is_the_system_turn_of_its_row(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    rows = [
        {"prompt": "q", "system": "s"},
        {"prompt": chat, "system": "s"},
        {"prompt": chat},
        {"prompt": chat[1:], "system": "s"},
        {"prompt": "q", "system": None},
        {"prompt": "q", "system": ""},
    ]
    read = Prompts(path=jsonl(tmp_path / "a.jsonl", rows), suffix="?", eval_fraction=0).examples("train")
    asked = {"role": "user", "content": "q?"}
    assert [e.messages for e in read] == [(chat[0], asked)] * 4 + [(asked,)] * 2
    two = Prompts(path=jsonl(tmp_path / "b.jsonl", [{"prompt": chat, "system": "t"}]), eval_fraction=0)
    with pytest.raises(UserError, match=r"b\.jsonl, line 1: column 'system' and the system turn of column 'prompt'"):
        two.examples("train")[0]


@pytest.mark.parametrize("setting", ["tools_column", "system_column"])
def test_a_column_that_is_named_and_in_no_row_is_said(tmp_path: Path, setting: str) -> None:
    with pytest.raises(UserError, match=f"{setting}: no row of .* has a column 'sytem'"):
        Prompts(path=jsonl(tmp_path / "a.jsonl"), **{setting: "sytem"}).examples("train")


def test_a_completion_may_repeat_the_prompt_before_its_answer(tmp_path: Path) -> None:
    asked, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "d"}
    other = {"role": "user", "content": "another"}
    rows = [{"prompt": p, "chosen": [asked, answer]} for p in ("q", [asked])]  # as data of preferences has it
    task = Prompts(path=jsonl(tmp_path / "a.jsonl", rows), completion_column="chosen", eval_fraction=0)
    assert [e.completion for e in task.examples("train")] == ["d", "d"]
    file = jsonl(tmp_path / "b.jsonl", [{"prompt": "q", "chosen": [other, answer]}])
    with pytest.raises(UserError, match="a completion is a text or turns of the assistant, and one is of user"):
        Prompts(path=file, completion_column="chosen", eval_fraction=0).examples("train")[0]


def test_a_completion_may_be_turns_and_two_that_differ_are_refused(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "d", "reasoning_content": "t"}
    asked = {"role": "user", "content": "q"}
    same = [{"prompt": [asked, answer], "said": [answer]}, {"prompt": "q", "said": [answer]}]
    task = Prompts(path=jsonl(tmp_path / "a.jsonl", same), completion_column="said", eval_fraction=0)
    assert [(e.completion, e.closing) for e in task.examples("train")] == [("d", {"reasoning_content": "t"})] * 2
    for said, says in (("e", "ends with an answer, and"), ([asked], "one is of user")):
        file = jsonl(tmp_path / "b.jsonl", [{"prompt": [asked, answer], "said": said}])
        with pytest.raises(UserError, match=rf"b\.jsonl, line 1: .*{says}"):
            Prompts(path=file, completion_column="said", eval_fraction=0).examples("train")[0]
