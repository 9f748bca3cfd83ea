"""What only others need of a library does not slow the start of `opd`, and is there for whoever asks for it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

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


REAL = """
import sys
from opd.unseen import UNSEEN, leave_out
leave_out()
import peft
from transformers import AutoModelForCausalLM, utils
AutoModelForCausalLM.from_config
import opd.loop, opd.learner.lora
assert set(UNSEEN) <= set(sys.modules), UNSEEN
print(*sorted(set(UNSEEN.values()) & set(sys.modules)))
from importlib.util import find_spec
assert utils.is_bitsandbytes_available() == bool(find_spec("bitsandbytes"))
"""


@pytest.mark.slow
def test_what_extras_bring_is_not_imported_by_the_libraries_that_a_run_needs() -> None:
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
