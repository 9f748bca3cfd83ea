"""Stages in processes of their own: order, cores, failures, signals, and going on."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path

import pytest
from rich.console import Console

from opd.recipe import Work, runner
from opd.recipe.claim import claimed
from opd.recipe.process import How
from opd.recipe.stage import Stage
from opd.recipe.watch import Watch
from opd.run.interrupt import Interrupted
from opd.types import RunError, UserError
from tests.recipe.stages import Script, traced


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.setattr(runner, "POLL", 0.01)
    (tmp_path / "work").mkdir()
    return Work(tmp_path / "work")


def run(work: Work, *stages: Stage, jobs: int = 1, held: tuple[int, ...] = ()) -> str:
    """Run stages of a recipe that lies beside the work folder; gives what people see."""
    said, how = io.StringIO(), How(jobs, held)
    with Watch(Console(file=said, width=200)) as watch:
        runner.run_stages(stages, work.path.parent / "run.py", work, how, watch)
    return said.getvalue()


def trace(work: Work) -> list[str]:
    """Names in the order in which stages wrote them."""
    file = work.path / "trace"
    return file.read_text().split() if file.exists() else []


def test_what_is_done_is_not_done_again(work: Work) -> None:
    run(work, traced("a"), traced("b"))
    assert "2 of them done before" in run(work, traced("a"), traced("b"), traced("c"))
    assert trace(work) == ["a", "b", "c"]
    assert work.stamps.seconds("a") >= 0


def test_a_failed_stage_lets_others_end_starts_no_more_and_names_its_log(work: Work) -> None:
    slow = traced("slow", "time.sleep(0.5)")
    bad = Script("bad", "sys.exit('no such sum')")
    with pytest.raises(RunError, match=r"bad failed: no such sum; .*logs/bad\.log; the others stay done"):
        run(work, slow, bad, traced("never"), jobs=2)
    assert trace(work) == ["slow"]
    assert "sys.exit" in work.log("bad").read_text()  # the command stands above what it said
    run(work, slow, traced("bad"), traced("never"), jobs=2)
    assert sorted(trace(work)) == ["bad", "never", "slow"]


def test_a_stage_done_with_other_settings_is_refused_before_anything_starts(work: Work) -> None:
    run(work, traced("a"))
    with pytest.raises(UserError, match=r"(?s)done/a\.json: this stage was done as .*take another --work folder"):
        run(work, traced("b"), traced("a", "time.sleep(0)"))
    assert trace(work) == ["a"]


def test_the_advice_to_remove_a_stamp_does_the_stage_again_and_all_that_come_after_it(work: Work) -> None:
    stages = traced("a"), traced("b", after=("a",)), traced("c", after=("b",)), traced("beside")
    run(work, *stages)
    (work.path / "done" / "a.json").unlink()
    bad = Script("a", "sys.exit(1)")
    with pytest.raises(RunError):  # stopped in between, b and c are still not taken as done
        run(work, bad, *stages[1:])
    run(work, traced("a", "time.sleep(0)"), *stages[1:])
    assert trace(work) == ["a", "b", "c", "beside", "a", "b", "c"]


def test_what_a_stage_has_half_done_goes_where_one_that_it_comes_after_is_done_again(work: Work) -> None:
    half = "os.makedirs('b', exist_ok=True); print(os.listdir('b'), file=open('seen', 'a')); open('b/half', 'w')"
    bad = Script("b", f"import os; {half}; raise SystemExit(1)", after=("a",))
    for _ in range(2):
        with pytest.raises(RunError):
            run(work, traced("a"), bad)
    (work.path / "done" / "a.json").unlink()
    with pytest.raises(RunError):
        run(work, traced("a"), bad)
    assert (work.path / "seen").read_text().split("\n") == ["[]", "['half']", "[]", ""]


@pytest.mark.parametrize("kind", ["started", "done"])
def test_a_stage_that_begins_anew_for_want_of_a_whole_stamp_says_so(work: Work, kind: str) -> None:
    run(work, traced("a"))
    (work.path / "done" / "a.json").unlink()
    (work.path / kind / "a.json").write_text('{"says": "on')
    said = run(work, traced("a"))
    assert said.count(f"warning: {work.path}/{kind}/a.json is damaged: what is in {work.path}/a is removed") == 1
    assert trace(work) == ["a", "a"]
    assert "damaged" not in run(work, traced("a"))


def test_a_folder_that_is_not_of_a_stage_is_refused_before_anything_starts(work: Work) -> None:
    (work.path / "b").mkdir()
    with pytest.raises(UserError, match="no stamp says that this stage was begun"):
        run(work, traced("a"), traced("b"))
    assert trace(work) == []
    assert (work.path / "b").is_dir()


def test_a_stage_inherits_the_lock(work: Work) -> None:
    looks = (
        "lock = os.stat('.lock').st_ino\n"
        "def inode(fd):\n"
        "    try: return os.fstat(fd).st_ino\n"
        "    except OSError: return None\n"
        "print(sum(inode(fd) == lock for fd in range(64)))"
    )
    with claimed(work.path) as held:
        run(work, Script("looks", looks, prints_json=True), held=(held,))
    assert work.json("looks") == 1


@pytest.mark.parametrize("code", [129, 130, 143])
def test_a_stage_that_ends_as_if_by_a_signal_that_nobody_has_sent_has_failed(work: Work, code: int) -> None:
    with pytest.raises(RunError, match="ends failed: enough; all it said"):
        run(work, Script("ends", f"print('enough', file=sys.stderr); sys.exit({code})"), traced("never"))
    assert trace(work) == []


def test_a_stage_killed_by_a_signal_says_so(work: Work) -> None:
    with pytest.raises(RunError, match="dies failed: killed by signal 9;"):
        run(work, Script("dies", "os.kill(os.getpid(), signal.SIGKILL)"))


def test_a_stage_that_says_nothing_does_not_fail_with_its_command_line(work: Work) -> None:
    with pytest.raises(RunError, match="mute failed: it said nothing and ended with exit code 3;"):
        run(work, Script("mute", "sys.exit(3)"))


def test_a_stage_waits_for_those_that_it_needs(work: Work) -> None:
    run(work, traced("first", "time.sleep(0.4)"), traced("last", after=("first",)), traced("beside"), jobs=2)
    assert trace(work) == ["beside", "first", "last"]


@pytest.mark.skipif(sys.platform != "linux", reason="cores can only be set on Linux")
def test_jobs_share_the_cores_out_among_themselves(work: Work) -> None:
    mine = os.sched_getaffinity(0)
    if len(mine) < 2:
        pytest.skip("one core cannot be shared out")
    code = "time.sleep(0.3); print(sorted(os.sched_getaffinity(0)))"
    run(work, Script("a", code, prints_json=True), Script("b", code, prints_json=True), jobs=2)
    a, b = set(work.json("a")), set(work.json("b"))
    assert a
    assert b
    assert not a & b
    assert a | b == mine == os.sched_getaffinity(0)


def test_a_result_is_only_there_when_it_is_whole(work: Work) -> None:
    with pytest.raises(RunError):
        run(work, Script("found", "print('[1,', flush=True); sys.exit(1)", prints_json=True))
    assert not (work.path / "found.json").exists()
    run(work, Script("found", "print('[1, 2]')", prints_json=True))
    assert work.json("found") == [1, 2]


def test_a_signal_is_handed_on_and_the_same_command_goes_on(work: Work) -> None:
    saves = Script(
        "saves",
        "if os.path.exists('state'): open('trace', 'a').write('saves '); sys.exit()\n"
        "def save(*_): open('state', 'w').close(); sys.exit(130)\n"
        "signal.signal(signal.SIGINT, save)\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
        "time.sleep(30)",
    )
    with pytest.raises(Interrupted, match="go on with the same command") as stopped:
        run(work, saves, traced("later"))
    assert stopped.value.signal == signal.SIGINT
    assert trace(work) == []
    run(work, saves, traced("later"))
    assert trace(work) == ["saves", "later"]


def test_a_second_signal_ends_what_runs_at_once(work: Work) -> None:
    deaf = Script(
        "deaf",
        "signal.signal(signal.SIGINT, lambda *_: os.kill(os.getppid(), signal.SIGINT))\n"
        "open('pid', 'w').write(str(os.getpid()))\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
        "for _ in range(300): time.sleep(0.1)",
    )
    with pytest.raises(KeyboardInterrupt):
        run(work, deaf)
    with pytest.raises(ProcessLookupError):
        os.kill(int((work.path / "pid").read_text()), 0)


def test_what_lies_beside_a_recipe_can_be_imported_by_its_stages(work: Work) -> None:
    (work.path.parent / "of_its_own.py").write_text("SUM = 3\n")
    run(work, Script("asks", "print(of_its_own.SUM)", prints_json=True, modules=("of_its_own",)))
    assert work.json("asks") == 3
