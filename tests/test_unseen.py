"""What only others need of a library does not slow the start of `opd`, and is there for whoever asks for it."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import pytest

from opd import unseen
from opd.unseen import UNSEEN, Unseen, hidden

ASKING = """
from importlib.util import find_spec
found = find_spec("opd_heavy")
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "opd_heavy.py").write_text("")
    (tmp_path / "opd_asking.py").write_text(ASKING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(UNSEEN, "opd_asking", "opd_heavy")
    monkeypatch.setattr(sys, "meta_path", [Unseen(), *sys.meta_path])
    for name in ("opd_heavy", "opd_asking"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("packages")
def test_a_package_is_hidden_from_one_that_is_imported_and_from_nobody_afterwards() -> None:
    asking = importlib.import_module("opd_asking")
    assert asking.found is None
    assert type(asking.__loader__).__name__ == type(asking.__spec__.loader).__name__ == "SourceFileLoader"
    assert find_spec("opd_heavy") is not None
    importlib.import_module("opd_heavy")


@pytest.mark.usefixtures("packages")
def test_a_package_that_is_there_already_is_left_alone() -> None:
    heavy = importlib.import_module("opd_heavy")
    with hidden("opd_heavy"):
        assert sys.modules["opd_heavy"] is heavy
    assert importlib.import_module("opd_asking").found is not None


@pytest.mark.parametrize(("imported", "error"), [("", None), ("\n1 / 0", ZeroDivisionError)])
def test_nobody_searches_for_garbage_while_something_large_is_imported_and_does_so_afterwards(
    imported: str, error: type[Exception] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "opd_large.py").write_text(f"import gc, sys\nsys.opd_searched = gc.isenabled(){imported}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "opd_searched", True, raising=False)
    monkeypatch.setattr(unseen, "LARGE", ("opd_large",))
    monkeypatch.delitem(sys.modules, "opd_large", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Unseen(), *sys.meta_path])
    with pytest.raises(error) if error else nullcontext():
        importlib.import_module("opd_large")
    assert not sys.opd_searched
    assert gc.isenabled()


REAL = """
import sys
from opd.unseen import LARGE, UNSEEN, leave_out
leave_out()
import datasets, peft
from transformers import AutoModelForCausalLM, utils
AutoModelForCausalLM.from_config
import opd.loop, opd.learner.lora
from transformers import LlamaConfig
shape = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
opd.learner.lora.with_lora(AutoModelForCausalLM.from_config(shape), opd.learner.lora.Lora(rank=1), None)
assert {*UNSEEN, *LARGE} - {"vllm.entrypoints.llm"} <= set(sys.modules)
print(*sorted(set(UNSEEN.values()) & set(sys.modules)))
from importlib.util import find_spec
assert utils.is_bitsandbytes_available() == bool(find_spec("bitsandbytes"))
"""


@pytest.mark.slow
def test_what_extras_bring_is_not_imported_by_the_libraries_that_a_run_needs() -> None:
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], "")


BARS = """
import os, sys
from opd.run.startup import hush
hush()
import datasets, warnings
warnings.warn("for developers")
from tqdm.auto import tqdm
list(tqdm(range(2)))
made = datasets.load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=sys.argv[2])
print(len(made.map(lambda row: row)))
"""


@pytest.mark.slow
def test_no_bar_and_no_warning_of_a_library_is_seen(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n')
    arguments = [sys.executable, "-c", BARS, str(tmp_path / "rows.jsonl"), str(tmp_path / "cache")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
