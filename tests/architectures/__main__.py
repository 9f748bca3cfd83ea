"""`make architectures`: every architecture through a run, with both engines, into the table of the docs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.architectures.chain import BROKEN, REFUSED, WORKS, Outcome, as_json, chain
from tests.architectures.configs import ARCHITECTURES
from tests.tiny import save_model

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
BEGIN, END = "<!-- made by make architectures -->", "<!-- end -->"
SECONDS = 300
"""For the first of a process's architectures, which includes its start; half of that for each further one."""
AT_ONCE = {"hf": 15, "vllm": 3}
"""Architectures that a process takes on, one after the other: imports take longer than most of them."""


def several(names: Sequence[str], rollout: str) -> None:
    """The work of a process of its own: some architectures with one engine; prints each outcome as JSON."""
    with tempfile.TemporaryDirectory() as scratch:
        teacher = save_model(Path(scratch) / "teacher", "llama", seed=2, tied=False, vocab=48)
        for name in names:
            print(json.dumps(as_json(chain(name, teacher, Path(scratch) / name, rollout))), flush=True)


def ask(names: Sequence[str], rollout: str) -> list[Outcome]:
    """Start that process and wait for it; what broke it is found, and the others are asked again."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.architectures", *names, rollout]
    patience = SECONDS * (1 + len(names)) / 2
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, env=environment, check=False)
        said = done.stdout
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode()
    found = [Outcome(**json.loads(line)) for line in said.splitlines() if line.startswith("{")]
    if len(found) == len(names):
        return found
    broken = Outcome(BROKEN, "its process ended or took too long")
    rest = names[len(found) + 1 :]
    return [*found, broken, *(ask(rest, rollout) if rest else [])]


def row(name: str, hf: Outcome, vllm: Outcome) -> str:
    """A line of the table."""
    notes = [f"{engine}: {outcome.said}" for engine, outcome in (("hf", hf), ("vLLM", vllm)) if outcome.state != WORKS]
    note = "; ".join(notes).replace("|", "\\|").replace(str(Path.home()), "~")
    both = hf.state, vllm.state if hf.state == WORKS else "-"
    return f"| `{name.removesuffix('Config')}` | {' | '.join(both)} | {shorter(note)} |"


def shorter(note: str) -> str:
    """A note without folders of this machine, and not too long to be read."""
    words = ["..." if "/tmp" in word else word for word in note.split()]
    text = " ".join(words)
    return text if len(text) <= 180 else text[:177] + "..."


def main() -> None:
    """Run all, two at a time, and write the table."""
    names, found = list(ARCHITECTURES), {}
    with ThreadPoolExecutor(int(os.environ.get("JOBS", "2"))) as pool:
        for rollout, size in AT_ONCE.items():
            parts = [names[i : i + size] for i in range(0, len(names), size)]
            outcomes = [o for part in pool.map(lambda part, r=rollout: ask(part, r), parts) for o in part]
            found[rollout] = dict(zip(names, outcomes, strict=True))
    rows = [row(name, found["hf"][name], found["vllm"][name]) for name in ARCHITECTURES]
    states = [found[r][n].state for n in ARCHITECTURES for r in ("hf", "vllm")]
    versions = ", ".join(f"{p} {version(p)}" for p in ("transformers", "torch", "vllm"))
    both = sum(found["hf"][n].state == found["vllm"][n].state == WORKS for n in ARCHITECTURES)
    table = [
        f"{len(ARCHITECTURES)} architectures, {both} with both engines, "
        f"{sum(found['hf'][n].state == WORKS for n in ARCHITECTURES)} with `rollout=hf`; {versions}.", "",
        "| architecture | `rollout=hf` | vLLM on CPU | |", "| --- | --- | --- | --- |", *rows,
    ]  # fmt: skip
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{chr(10).join(table)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    print("\n".join(table))
    print({state: states.count(state) for state in (WORKS, REFUSED, BROKEN)})


def version(package: str) -> str:
    """Of a package, also where vLLM's CPU build has a name of its own."""
    names = [package, f"{package}-cpu"]
    return next((importlib.metadata.version(n) for n in names if n in installed()), "?").split("+")[0]


def installed() -> set[str]:
    """Names of the packages that are there."""
    return {str(d.metadata["Name"]) for d in importlib.metadata.distributions()}


if __name__ == "__main__":
    several(sys.argv[1:-1], sys.argv[-1]) if len(sys.argv) > 1 else main()
