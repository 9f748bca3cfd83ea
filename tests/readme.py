"""Every figure of the README, measured and written by one script: `python -m tests.readme` (`make readme`).

Half an hour on two cores. What was measured is kept in `readme.json`; `--write` only writes the README from that again.
"""

from __future__ import annotations

import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from fcntl import ioctl
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from opd.run.metrics import read_metrics
from tests.test_methods import ENGINE, METHODS, SMALL

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
KEPT = Path(__file__).with_name("readme.json")
SEEDS = (0, 1, 2)
SHOWN_STEP = 89
"""The step that the panel is shown at: late enough for curves, before the last."""
TRANSCRIPT = re.compile(r"(<!-- transcript of the quickstart.*?-->\n```console\n).*?(```)", re.DOTALL)
TABLE = re.compile(r"(<!-- table of methods.*?-->\n)(.*?)(?=\n\n)", re.DOTALL)
OF_SEEDS = re.compile(r"(of the run went from\s+).*?(,\s+in )", re.DOTALL)
OF_METHODS = re.compile(r"(from a reverse KL of )[\d.]+(\s+nats a token and )[\d.]+%")
TUNING = ROOT / "docs" / "tuning.md"
QUOTED = re.compile(r"(\| accuracy after 30 steps, .*?\| )[\d.]+%( \| )[\d.]+%")
ROWS = {
    "on-policy distillation, the reference recipe": "reverse_kl",
    "the same with a detached baseline (same mean, less variance)": "reverse_kl baseline",
    "the same over the whole vocabulary": "reverse_kl exact",
    "GKD: half student, half dataset (lambda is in `source.shares`)": "gkd",
    "GKD with `seq_kd`: the teacher writes": "gkd seq_kd",
    "the teacher's 20 likeliest tokens and a tail": "top_k of the teacher",
    "the student's 5 likeliest, and the sampled tail": "top_k of the student",
    "MiniLLM, teacher-mixed sampling": "minillm",
    "SFT on the dataset's completions": "sft",
    "sequence-level distillation": "sft on the teacher's",
    "GOLD: a teacher that reads pairs of characters": "gold",
    "RL with a verifiable reward (GRPO)": "grpo",
    "teacher and reward together": "reverse_kl and reward",
}
"""What the table says of a method, and its name in the tests."""
SIZES = ("sampling.n=", "data.prompts_per_step=")
"""Settings that keep the samples of a step as many for every method; the table does without."""


def opd(*arguments: str, cwd: Path) -> str:
    """What a command shows on a terminal of 128 columns, without colours."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 128, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "opd", *arguments], cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs,
        env=os.environ | {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(theirs)
    said = bytearray()
    while True:
        try:
            said += os.read(ours, 65536)
        except OSError:  # the terminal's other end is closed
            break
    assert process.wait() == 0, said.decode(errors="replace")[-3000:]
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode()).replace("\r\n", "\n")


def lines(text: str, *patterns: str) -> list[str]:
    """The last line that each pattern is found in."""
    ends = [line.rsplit("\r")[-1].rstrip() for line in text.split("\n")]  # what was written over is not seen
    return [[line for line in ends if re.search(p, line)][-1] for p in patterns]


def panel(text: str) -> list[str]:
    """The first frame of the panel at the step that is shown, or after it."""
    for frame in re.findall(r"╭─.*?─╯", text, re.DOTALL):
        step = re.search(r"step (\d+) of", frame)
        if step and int(step[1]) >= SHOWN_STEP:
            rows = [line.strip() for line in frame.replace("\r", "").split("\n") if line.strip()]
            return [
                row for row, after in pairwise([*rows, ""]) if row.strip("│ ") or after.strip("│ ")[:1] not in ("", "╰")
            ]
    raise ValueError("no frame of the panel so late")


def quickstart(folder: Path) -> dict[str, Any]:
    """The three commands of the quickstart as they are shown, and what the other seeds came to."""
    trained = opd("train", "conf=quickstart", cwd=folder)
    exported, evaluated = opd("export", cwd=folder), opd("eval", cwd=folder)
    rule = next(i for i, line in enumerate(evaluated.split("\n")) if "──" in line)
    table = [line.rstrip() for line in evaluated.split("\n")[rule - 2 : rule + 4]]
    shown = {
        "opd train conf=quickstart": [*lines(trained, "✓ models", "preflight: "), *panel(trained)],
        "opd export": [line.replace(f"{folder}/", "") for line in lines(exported, "^parity", "^exported")],
        "opd eval": table,
    }
    runs = list((folder / "runs").iterdir())
    for seed in SEEDS[1:]:
        runs.append(folder / f"seed{seed}")
        opd("train", "conf=quickstart", f"run={runs[-1]}", f"seed={seed}", cwd=folder)
    return {"shown": shown, "seeds": [ends(run)["accuracy"] for run in runs]}


def ends(run: Path) -> dict[str, list[float]]:
    """Exact KL and accuracy of the first evaluation and of the last."""
    rows = [row for row in read_metrics(run / "metrics.jsonl") if "eval/kl" in row]
    return {name: [float(row[f"eval/{name}"]) for row in (rows[0], rows[-1])] for name in ("kl", "accuracy")}


def method(name: str, folder: Path) -> dict[str, list[float]]:
    """The same of thirty steps of a method."""
    given, own = METHODS[name][:1], METHODS[name][1:]
    run = f"{len(list(folder.iterdir()))}"
    opd("train", *given, f"run={run}", *SMALL, *ENGINE[True], *own, cwd=folder)
    return ends(folder / run)


def transcript(shown: Mapping[str, list[str]]) -> str:
    """The commands with what they show."""
    return "".join(f"$ {command}\n" + "".join(f"{line}\n" for line in said) for command, said in shown.items())


def table(measured: Mapping[str, Mapping[str, list[float]]]) -> str:
    """The table of methods."""
    head = ["| method | config | KL after | accuracy after |", "| --- | --- | --- | --- |"]
    usual = measured["reverse_kl"]["kl"][0]
    out = []
    for says, name in ROWS.items():
        (first, kl), (_, accuracy) = measured[name]["kl"], measured[name]["accuracy"]
        config = " ".join(s for s in METHODS[name] if not s.startswith(SIZES) or "n=4" in s)
        other = f"{first:.3f} to " if abs(first - usual) > 0.02 * usual else ""  # it begins elsewhere: another measure
        out.append(f"| {says} | `{config}` | {other}{kl:.3f} | {accuracy:.1%} |")
    out.append("| several teachers, each for its task | `conf=multi_teacher` | not measured as it stands | |")
    return "\n".join([*head, *out])


def written(readme: str, kept: Mapping[str, Any]) -> str:
    """The README with what was measured in its places."""
    first, last = zip(*kept["quickstart"]["seeds"], strict=True)
    of_seeds = "\nto ".join(", ".join(f"{v:.3f}".lstrip("0") for v in values) for values in (first, last))
    start = kept["methods"]["reverse_kl"]
    for pattern, text in (
        (TRANSCRIPT, rf"\g<1>{_literal(transcript(kept['quickstart']['shown']))}\g<2>"),
        (TABLE, rf"\g<1>{_literal(table(kept['methods']))}"),
        (OF_SEEDS, rf"\g<1>{of_seeds}\g<2>"),
        (OF_METHODS, rf"\g<1>{start['kl'][0]:.3f}\g<2>{start['accuracy'][0]:.1%}"),
    ):
        readme, found = pattern.subn(text, readme)
        assert found == 1, pattern.pattern
    return readme


def quoting(page: str, kept: Mapping[str, Any]) -> str:
    """The page on tuning with what it says again of the README."""
    sampled, exact = (kept["methods"][name]["accuracy"][1] for name in ("reverse_kl", "reverse_kl exact"))
    page, found = QUOTED.subn(rf"\g<1>{sampled:.1%}\g<2>{exact:.1%}", page)
    assert found == 1
    return page


def _literal(text: str) -> str:
    return text.replace("\\", r"\\")


def main() -> None:
    """Measure, keep and write."""
    if "--write" not in sys.argv:
        with TemporaryDirectory() as name:
            folder = Path(name)
            kept = {"quickstart": quickstart(folder), "methods": {m: method(m, folder) for m in ROWS.values()}}
        KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    README.write_text(written(README.read_text(encoding="utf-8"), kept), encoding="utf-8")
    TUNING.write_text(quoting(TUNING.read_text(encoding="utf-8"), kept), encoding="utf-8")


if __name__ == "__main__":
    main()
