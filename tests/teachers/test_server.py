"""A teacher on a server: what it says is the server's word, in order, however often it has to ask."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from opd.config.schema import build
from opd.learner.config import StudentConfig
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.needs import Needs
from opd.teachers import client
from opd.teachers.answers import FLOOR, judgement, likeliest
from opd.teachers.cached import CachedTeacher
from opd.teachers.said import Entry
from opd.teachers.server import ServerTeacher
from opd.teaching import Pupil
from opd.types import Rollout, RunError, UserError
from tests.teachers.served import DROP, Fake, Running, value
from tests.tiny import char_tokenizer, cli_code, rollouts

SHAPES = [(3, 5), (1, 1), (4, 0), (2, 9), (7, 2), (1, 12), (5, 5)]
LOGPROBS = Needs(logprobs=True)


@pytest.fixture
def server(teacher_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)
    running = Running(Fake(str(teacher_dir)))
    yield running
    running.close()


def test_a_cache_of_what_another_model_has_said_on_a_server_is_refused(server: Running, tmp_path: Path) -> None:
    def kept() -> list[list[float]]:
        teacher = ServerTeacher(url=server.url, patience=20, prompt="student")
        scorer = CachedTeacher(teacher=teacher, path=str(tmp_path / "c")).start(Pupil(char_tokenizer(), 45))
        try:
            return [j.logprobs.tolist() for j in scorer.score(rollouts(SHAPES), LOGPROBS)]
        finally:
            scorer.close()

    said = kept()
    server.fake.shift = -0.01  # rounding
    assert kept() == said
    server.fake.shift = -1.0
    with pytest.raises(UserError, match="written with another teacher"):
        kept()


def on_server(server: Running, config: Path) -> None:
    """Have the run of a config judged there."""
    text = config.read_text().replace("  - _self_", "  - override teacher: server\n  - _self_", 1)
    lines = [line for line in text.splitlines() if not line.startswith("teacher:")]
    config.write_text("\n".join([*lines, f"teacher: {{url: '{server.url}', prompt: student, top_k: 4}}", ""]))


def start(server: Running, **settings: Any) -> Any:
    return ServerTeacher(url=server.url, **({"patience": 20} | settings)).start(Pupil(char_tokenizer(), 45))


def expected(items: list[Rollout], shift: float = 0.0) -> list[list[float]]:
    prompt = char_tokenizer()("1+1:")["input_ids"]
    rows = []
    for r in items:
        ids = [*prompt, *r.tokens]
        rows.append([value(ids, i, ids[i]) + shift for i in range(len(prompt), len(ids))])
    return rows


def close_to(judged: list[Any], rows: list[list[float]]) -> bool:
    return all(j.logprobs.tolist() == pytest.approx(row, abs=1e-5) for j, row in zip(judged, rows, strict=True))


@pytest.mark.parametrize("concurrency", [1, 3, 64])
def test_scores_are_the_servers_in_order_after_the_teachers_own_prompt(server: Running, concurrency: int) -> None:
    server.fake.seconds = 0.01  # so that answers come out of order
    items = rollouts(SHAPES * 5)
    judged = start(server, concurrency=concurrency).score(items, LOGPROBS)
    assert close_to(judged, expected(items))
    assert all(j.top_ids is None and j.logprobs.dtype == torch.float32 for j in judged)
    assert server.fake.busiest <= concurrency


def test_requests_run_at_the_same_time(server: Running) -> None:
    server.fake.seconds = 0.05
    start(server, prompt="student").score(rollouts([(3, 3)] * 32), LOGPROBS)
    assert server.fake.busiest > 4


def test_the_students_prompt_can_be_used_as_it_is(server: Running) -> None:
    (r,) = rollouts([(6, 4)])
    (judged,) = start(server, prompt="student").score([r], LOGPROBS)
    ids = [*r.prompt.tokens, *r.tokens]
    assert judged.logprobs.tolist() == pytest.approx([value(ids, i, ids[i]) for i in range(6, 10)], abs=1e-5)


def test_the_likeliest_tokens_come_in_order_and_only_as_many_as_needed(server: Running) -> None:
    items = rollouts(SHAPES)
    judged = start(server).score(items, Needs(logprobs=True, top_k=4))
    assert close_to(judged, expected(items, shift=-3))
    for r, j in zip(items, judged, strict=True):
        assert j.top_ids.shape == j.top_logprobs.shape == (len(r.tokens), 4)
        assert bool((j.top_logprobs.diff(dim=-1) <= 0).all())
        assert all(len(set(row)) == 4 for row in j.top_ids.tolist())


def test_tokens_that_a_side_does_not_have_get_the_floor() -> None:
    rows = [{44: Entry(logprob=-0.5), 60: Entry(logprob=-0.1), 3: Entry(logprob=-9999.0)}]
    assert judgement(rows, [50], known=45, size=64, top_k=0).logprobs.tolist() == [FLOOR]
    assert judgement(rows, [3], known=45, size=64, top_k=0).logprobs.tolist() == [FLOOR]
    assert likeliest(rows[0], size=64, k=2) == [(60, -0.1), (44, -0.5)]
    assert likeliest(rows[0], size=45, k=2) == [(44, -0.5), (0, FLOOR)]


@pytest.mark.parametrize("faults", [[503, 503], [429], [500, 502, 503], [DROP, DROP], [DROP, 503, 429]])
def test_a_server_that_is_away_for_a_while_loses_nothing(server: Running, faults: list[int]) -> None:
    teacher, items = start(server), rollouts(SHAPES)
    server.fake.faults = list(faults)
    asked = server.fake.asked
    assert close_to(teacher.score(items, LOGPROBS), expected(items))
    assert server.fake.asked == asked + len([s for s in SHAPES if s[1]]) + len(faults) + 1  # the text of the start


def test_a_server_that_is_restarted_loses_nothing(server: Running) -> None:
    teacher, items = start(server), rollouts(SHAPES)
    server.close()
    timer = threading.Timer(0.5, server.open)
    timer.start()
    assert close_to(teacher.score(items, LOGPROBS), expected(items))
    timer.join()


@pytest.mark.parametrize(("shift", "other"), [(0.0, False), (-0.05, False), (-0.5, True)])
def test_another_model_under_the_same_name_is_noticed_before_anything_is_learned_from_it(
    server: Running, shift: float, other: bool
) -> None:
    teacher, items = start(server), rollouts(SHAPES)
    teacher.score(items, LOGPROBS)
    server.fake.shift = shift
    noticed = pytest.raises(RunError, match=r"by 0.5 nats a token on average, .* another model served as tiny\?")
    with noticed if other else nullcontext():
        teacher.score(items, LOGPROBS)


def test_another_model_that_answers_when_a_run_goes_on_is_told_of_once(
    server: Running, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_server(server, config)
    run, short = f"run={tmp_path / 'run'}", ["-q", "eval.every=0", "eval.size=2", "preflight.prompts=2"]

    def resumed(steps: int, shift: float) -> bool:
        server.fake.shift = shift
        capsys.readouterr()
        assert cli_code(["train", "--resume", run, "-q", f"steps={steps}"]) == 0
        return "warning: teacher: this is not the model that judged the first" in capsys.readouterr().err

    assert cli_code(["train", f"conf={config}", run, "steps=1", *short]) == 0
    assert [resumed(2, -0.05), resumed(3, -0.5), resumed(4, -0.5)] == [False, True, False]


def test_patience_ends(server: Running) -> None:
    teacher = start(server, patience=0.3)
    server.fake.faults = [503] * 10_000
    begin = time.monotonic()
    with pytest.raises(RunError, match=r"did not answer within teacher.patience=0.3 s \(status 503: on purpose\)"):
        teacher.score(rollouts(SHAPES), LOGPROBS)
    assert time.monotonic() - begin < 5


def test_the_person_is_told_once_what_is_waited_for(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    teacher = start(server)
    server.fake.faults = [503] * 5
    teacher.score(rollouts(SHAPES), LOGPROBS)
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        f"{server.url} does not answer (status 503: on purpose); trying again for up to 20 s"
    ]


def test_an_interrupt_ends_the_waiting_at_once(server: Running) -> None:
    teacher = start(server)
    server.fake.faults = [503] * 10_000
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            teacher.score(rollouts(SHAPES), LOGPROBS)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begin < 5


def test_a_request_that_takes_too_long_is_repeated_and_then_given_up(server: Running) -> None:
    teacher = start(server, timeout=0.2, patience=0.1, prompt="student")
    server.fake.seconds = 1.0
    items = [r for r in rollouts([(3, 3)] * 9) if r.prompt.tokens[0] % 3]
    with pytest.raises(RunError, match="no whole answer within"):
        teacher.score(items, LOGPROBS)


def test_connections_are_kept_between_calls_and_closed_in_the_end(server: Running) -> None:
    teacher = start(server, concurrency=2)
    for _ in range(5):
        assert close_to(teacher.score(rollouts(SHAPES), LOGPROBS), expected(rollouts(SHAPES)))
    assert server.fake.connections <= 2
    teacher.close()
    teacher.close()
    assert close_to(teacher.score(rollouts(SHAPES), LOGPROBS), expected(rollouts(SHAPES)))  # dialled anew
    assert 2 < server.fake.connections <= 4
    teacher.close()


def test_a_kept_connection_that_the_server_closed_is_dialled_anew_without_a_word(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    server.fake.hang_up = 0.05
    teacher = start(server, concurrency=4)
    for pause in (0.0, 0.2, 0.049, 0.051):
        time.sleep(pause)
        assert close_to(teacher.score(rollouts(SHAPES), LOGPROBS), expected(rollouts(SHAPES)))
    assert not caplog.records


def test_a_server_that_sends_elsewhere_is_not_followed_and_that_is_said(server: Running) -> None:
    teacher = start(server)
    server.fake.faults = [307]
    with pytest.raises(UserError, match="it sends elsewhere, and nobody is followed"):
        teacher.score(rollouts(SHAPES), LOGPROBS)


@pytest.mark.parametrize("ending", ["refusal", "interrupt"])
def test_what_ended_a_call_leaves_nothing_behind_for_the_next(server: Running, ending: str) -> None:
    teacher = start(server, concurrency=3)
    server.fake.seconds = 0.02
    if ending == "refusal":
        server.fake.faults = [400]
        with pytest.raises(UserError, match="on purpose"):
            teacher.score(rollouts(SHAPES * 10), LOGPROBS)
    else:
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            teacher.score(rollouts(SHAPES * 20), LOGPROBS)
        signal.signal(signal.SIGALRM, before)
    asked, items = -1, rollouts(SHAPES)
    while asked != server.fake.asked:  # what was on its way arrives, however busy the machine is
        asked = server.fake.asked
        time.sleep(0.3)
    assert close_to(teacher.score(items, LOGPROBS), expected(items))
    assert server.fake.asked == asked + len([s for s in SHAPES if s[1]]) + 1


def test_calls_of_several_threads_wait_for_each_other(server: Running) -> None:
    teacher, items = start(server, concurrency=3), rollouts(SHAPES * 3)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: teacher.score(items, LOGPROBS), range(8)))
    assert all(close_to(judged, expected(items)) for judged in found)
    assert server.fake.busiest <= 3


def samples(prompt: int, completion: int, n: int) -> list[Rollout]:
    """So many of one prompt."""
    first, *rest = rollouts([(prompt, completion)] * n)
    return [first, *(replace(r, prompt=first.prompt) for r in rest)]


def scores(items: list[Rollout]) -> list[list[float]]:
    """What the fake says after the student's own prompts."""
    whole = [(len(r.prompt.tokens), [*r.prompt.tokens, *r.tokens]) for r in items]
    return [[value(ids, i, ids[i]) for i in range(first, len(ids))] for first, ids in whole]


def test_where_chosen_tokens_are_scored_a_prompt_is_read_once_and_not_sent_back(server: Running) -> None:
    items = samples(41, 6, 8)
    plain = start(server, prompt="student", concurrency=1)
    server.fake.sent = 0
    assert close_to(plain.score(items, LOGPROBS), scores(items))
    before, server.fake.scores_chosen = server.fake.sent, True
    teacher = start(server, prompt="student", concurrency=1)
    server.fake.sent = server.fake.read = 0
    assert close_to(teacher.score(items, LOGPROBS), scores(items))
    assert server.fake.read == 47 + 7 * (47 - 40)
    assert server.fake.sent < before / 3  # of which a part is the text of the start


@pytest.mark.parametrize("prompt", [8, 5])
def test_completions_that_begin_alike_are_scored_all_the_same(server: Running, prompt: int) -> None:
    server.fake.scores_chosen = True
    teacher = start(server, prompt="student")
    items = samples(prompt, 9, 4)
    items = [replace(r, tokens=(*items[0].tokens[: 3 * i], *r.tokens[3 * i :])) for i, r in enumerate(items)]
    for _ in range(2):
        assert close_to(teacher.score([*items, *rollouts([(3, 0)])], LOGPROBS), [*scores(items), []])


def test_a_server_whose_chosen_log_probs_are_others_is_asked_as_before(server: Running) -> None:
    server.fake.scores_chosen, server.fake.off = True, 0.5
    teacher = start(server)
    server.fake.read = 0
    assert close_to(teacher.score(rollouts(SHAPES), LOGPROBS), expected(rollouts(SHAPES)))
    assert not server.fake.read
    assert teacher.unable == "they are 0.5 nats from its prompt_logprobs"


@pytest.fixture
def learner(student_dir: Path) -> Student:
    return Student.load(StudentConfig(model=str(student_dir), dtype="float32"), Optim(micro_tokens=24), 0.7)


def test_a_server_is_asked_for_the_students_likeliest_tokens(server: Running, learner: Student) -> None:
    server.fake.scores_chosen = True
    pupil = Pupil(char_tokenizer(), 45, learner=learner)
    teacher = ServerTeacher(url=server.url, prompt="student").start(pupil)
    items = rollouts(SHAPES)
    judged = teacher.score(items, Needs(logprobs=True, student_top_k=3, top_k=4))
    assert close_to(judged, scores(items))
    likeliest = ServerTeacher(url=server.url, prompt="student").start(pupil).score(items, Needs(top_k=4))
    assert all(torch.equal(a.top_ids, b.top_ids) for a, b in zip(judged, likeliest, strict=True))
    for r, j in zip(items, judged, strict=True):
        ids = [*r.prompt.tokens, *r.tokens]
        assert j.asked_ids.shape == j.asked_logprobs.shape == (len(r.tokens), 3)
        assert j.top_ids.shape == j.top_logprobs.shape == (len(r.tokens), 4)  # the teacher's own beside them
        if r.tokens:
            own = learner.model(input_ids=torch.tensor([ids])).logits[0, len(r.prompt.tokens) - 1 : -1]
            assert torch.equal(j.asked_ids, own.topk(3).indices)
        for t, (some, values) in enumerate(zip(j.asked_ids.tolist(), j.asked_logprobs.tolist(), strict=True)):
            assert values == pytest.approx([value(ids, len(r.prompt.tokens) + t, v) for v in some], abs=1e-5)


def test_the_students_likeliest_tokens_are_refused_where_they_cannot_be_had(server: Running, learner: Student) -> None:
    pupil = Pupil(char_tokenizer(), 45, learner=learner)
    needs = Needs(logprobs=True, student_top_k=3)
    with pytest.raises(UserError, match=r"objective.of=student: .*V2 model runner.*GPU.*or use objective.of=teacher"):
        ServerTeacher(url=server.url).start(pupil).score(rollouts(SHAPES), needs)
    server.fake.scores_chosen, server.fake.cap = True, 3
    teacher = ServerTeacher(url=server.url, top_k=3).start(pupil)
    with pytest.raises(UserError, match=r"gives 3 tokens at a place.*objective.k=2, or .*--max-logprobs 4.*--top-k 3"):
        teacher.score(rollouts(SHAPES), needs)


def test_a_run_learns_from_the_students_likeliest_tokens_at_a_server(
    server: Running, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_server(server, config)
    run = [f"conf={config}", "-q", "steps=2", "objective=top_k", "objective.of=student", "objective.k=4"]
    assert cli_code(["train", *run, f"run={tmp_path / 'refused'}"]) == 2
    assert "objective.of=student" in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()
    server.fake.scores_chosen = True
    assert cli_code(["train", *run, f"run={tmp_path / 'run'}"]) == 0
    assert cli_code(["train", *run, f"run={tmp_path / 'more'}", "objective.k=5"]) == 2
    assert "teacher.top_k=5" in capsys.readouterr().err
    assert cli_code(["train", *run, f"run={tmp_path / 'union'}", "objective.of=union"]) == 0
    other = [*run[:-2], "objective=top_k_baseline", "objective.of=union", "objective.k=4"]
    assert cli_code(["train", *other, f"run={tmp_path / 'baseline'}"]) == 0


def test_no_server_says_how_to_start_one(server: Running) -> None:
    server.close()
    try:
        with pytest.raises(UserError, match=rf"teacher.url={server.url}: no server answers .*opd serve-teacher MODEL"):
            start(server)
    finally:
        server.open()


def test_a_wrong_model_is_refused_with_the_nearest(server: Running) -> None:
    server.fake.models = ["tiny-instruct", "other"]
    with pytest.raises(UserError, match=r"teacher.model=tiny-instuct: .*did you mean tiny-instruct\?.*other"):
        start(server, model="tiny-instuct")
    with pytest.raises(UserError, match=r"teacher.model: say which one; .* tiny-instruct, other"):
        start(server)
    assert start(server, model="other").model == "other"


def test_a_model_that_is_gone_after_a_restart_is_an_error_at_once(server: Running) -> None:
    teacher = start(server)
    server.fake.models = ["other"]
    with pytest.raises(UserError, match=r"`tiny` does not exist.*still served"):
        teacher.score(rollouts(SHAPES), LOGPROBS)


def test_a_wrong_tokenizer_is_refused(server: Running, tmp_path: Path) -> None:
    char_tokenizer("abcdefghijklmnopqrstuvwxyz 0123456789+-*=;:").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="do not share a vocabulary"):
        start(server, tokenizer=str(tmp_path))
    with pytest.raises(UserError, match=r"teacher.tokenizer=/nowhere: model /nowhere: there is no such folder"):
        start(server, tokenizer="/nowhere")
    server.fake.other_ids = True
    with pytest.raises(UserError, match="reads a text as other ids"):
        start(server)


def test_a_server_without_its_own_tokenizer_is_taken_at_its_word(server: Running) -> None:
    server.fake.no_tokenize = True
    assert start(server).notes([]) == []


def test_an_answer_without_log_probs_is_refused(server: Running) -> None:
    server.fake.mute = True
    with pytest.raises(UserError, match="lacks prompt_logprobs; allowed is vLLM's"):
        start(server)


def test_logits_instead_of_log_probs_are_refused(server: Running) -> None:
    server.fake.shift = 9.0
    with pytest.raises(UserError, match="--logprobs-mode raw_logprobs"):
        start(server)


def test_no_more_likeliest_tokens_are_asked_for_than_there_are(server: Running) -> None:
    server.fake.cap = 45  # of so many tokens; vLLM's engine dies of more
    items = rollouts(SHAPES)
    judged = start(server, top_k=60).score(items, Needs(logprobs=True, top_k=60))
    assert [j.top_ids.shape for j in judged] == [(len(r.tokens), 45) for r in items]


def test_a_cap_on_top_k_says_what_to_change(server: Running) -> None:
    server.fake.cap = 5
    with pytest.raises(
        UserError, match=r"teacher.top_k=8: the server gives at most 5.*opd serve-teacher MODEL --top-k 8"
    ):
        start(server, top_k=8)
    assert start(server, top_k=5)


def test_more_tokens_than_the_server_takes_are_refused(server: Running) -> None:
    server.fake.max_len = 10
    teacher = start(server, prompt="student")
    assert len(teacher.score(rollouts([(5, 4)]), LOGPROBS)) == 1
    with pytest.raises(UserError, match=r"are 10 tokens, and the server takes 9; .*--max-model-len 11"):
        teacher.score(rollouts([(5, 5)]), LOGPROBS)
    with pytest.raises(UserError, match=r"are 10 tokens, and the server takes 9"):  # before the first step
        ServerTeacher(url=server.url).start(Pupil(char_tokenizer(), 45, longest=10))


def test_a_key_comes_from_the_environment_only(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    server.fake.key = "secret"
    with pytest.raises(UserError, match=r"Unauthorized.*name the variable"):
        start(server)
    with pytest.raises(UserError, match=r"teacher.api_key_env=OPD_KEY: there is no such environment variable"):
        start(server, api_key_env="OPD_KEY")
    monkeypatch.setenv("OPD_KEY", "secret")
    assert start(server, api_key_env="OPD_KEY")
    with pytest.raises(ValueError, match="not the key itself") as caught:
        ServerTeacher(api_key_env="sk-123")
    assert "sk-123" not in str(caught.value)


def test_a_password_in_an_address_is_refused_and_not_said() -> None:
    with pytest.raises(UserError, match=r"name that by api_key_env") as told:
        build(object, {"_target_": "opd.teachers.server.ServerTeacher", "url": "http://me:secret@h:1/v1"}, "teacher")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "http://", "ftp://host", "http://host:port:1/ x", "http://h:99999", "http://h:0/v1"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=r"teacher.url=.*allowed is http://HOST:PORT"):
        build(object, {"_target_": "opd.teachers.server.ServerTeacher", "url": url}, "teacher")


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_address_may_name_the_version_of_the_api(server: Running, suffix: str) -> None:
    assert ServerTeacher(url=server.url + suffix).start(Pupil(char_tokenizer(), 45)).model == "tiny"
