"""The data configs that ship."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from opd.config.files import option_alone
from opd.config.schema import build
from opd.data.prompts import Data
from tests.text.test_chat import tokenizer

CONFIGS = sorted(p for p in (Path(__file__).parents[2] / "conf" / "data").glob("*.yaml") if p.stem != "rows")
"""All but the one whose tasks are to be named."""
ROW = {
    "question": "One and one?", "answer": "#### 2", "final_answer": "2", "problem": "1+1?", "prompt": "1+1=",
    "choices": ["#### 2", "3"], "solution": "So \\boxed{2}", "context": "", "response": "2",
}  # fmt: skip


def numbered(i: int) -> dict[str, object]:
    """Prompts in every column that one is read from."""
    turns = [{"role": "user", "content": f"{i}"}, {"role": "assistant", "content": "2"}]
    thoughts = [{"from": "human", "value": f"{i}"}, {"from": "gpt", "value": "2"}]
    texts = dict.fromkeys(("question", "problem", "prompt", "instruction"), f"{i}")
    return {**texts, "text": f"{i} " * 20, "messages": turns, "conversations": thoughts}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_builds_and_gives_prompts(path: Path, tmp_path: Path) -> None:
    assert path.read_text().startswith("# ")
    node = OmegaConf.to_container(option_alone("data", path.stem, path.parent))
    assert isinstance(node, dict)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({**ROW, **numbered(i)}) + "\n" for i in range(600)))
    for task in node["tasks"].values():
        if "path" in task and not str(task["path"]).startswith("pkg://"):
            task["path"] = str(rows)
            task["eval_fraction"] = max(task["eval_fraction"], 0.02)  # there are few rows
    to_train = all(task.get("eval_fraction") != 1 for task in node["tasks"].values())
    data = build(Data, node, "data").start(tokenizer(), 0, train=to_train)
    assert not to_train or len(data.take(3)) == node["prompts_per_step"]
    assert len({p.example.id for p in data.eval_prompts(3)}) == 3
