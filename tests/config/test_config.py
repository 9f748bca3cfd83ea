"""Configs: every one that ships can be built, and every mistake in one is a line that names its key."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

from opd.config.catalog import groups, locate, options, shipped
from opd.config.compose import Composed, load, read_back
from opd.config.explain import explain
from opd.config.overrides import sweep
from opd.config.schema import plain
from opd.config.settings import Config
from opd.evaluation.evaluate import eval_sampling
from opd.needs import Needs, Provides
from opd.objectives import GKD, Gold, MiniLLM, ReverseKL, Term, Unsure, Weighted
from opd.rollout.hf import Hf
from opd.run.directory import RunFolder
from opd.tasks.arithmetic import Arithmetic
from opd.teachers.local import LocalTeacher
from opd.types import UserError

GIVEN = {
    "gsm8k": ["data.tasks.gsm8k.path=x.jsonl"],
    "math": ["data.tasks.math.path=x.jsonl"],
    "exact_match": ["data.tasks.exact_match.path=x.jsonl"],
    "multiple_choice": ["data.tasks.multiple_choice.path=x.jsonl"],
    "passages": ["data.tasks.passages.path=x.jsonl"],
    "rows": ["data.tasks={mine: {_target_: opd.tasks.text.Prompts, path: x.jsonl}}"],
    "own": ["student.model=s", "teacher.model=t"],
    "personalize_qwen_documents": ["data.tasks.documents.path=x.jsonl"],
}
"""What a config leaves to the user."""
LOCAL = "{_target_: opd.teachers.local.LocalTeacher, model: t}"
REPLAY = "source.tasks={handbook: {_target_: opd.sources.dataset.DatasetSource}}"
MIXED = "source.others={_target_: opd.sources.teacher_mixed.TeacherMixed}"
WITH_TEACHER = {("models", "quickstart"), ("models", "smollm2"), ("models", "sums99")}
FILLED = {
    **{f"data={name}": given for name, given in GIVEN.items()},
    "objective=gold": ["teacher=cross"],
    "objective=grpo_reference": [f"reference={LOCAL}"],
    "objective=minillm_corpus": ["source=by_task", REPLAY.replace("handbook", "corpus"), MIXED],
    "objective=personalize": ["source=by_task", REPLAY],
    "objective=stable": ["source=mixed", f"reference={LOCAL}"],
    "source=recorded": ["source.path=p"],
    "source=by_task": [REPLAY, "objective=gkd"],
    **{f"source={name}": ["objective=gkd"] for name in ("dataset", "mixed", "teacher")},
    "teacher=between": ["teacher.teacher.model=t"],
    "teacher=cached": ["teacher.path=p", "teacher.teacher.model=t"],
    "teacher=cross": ["teacher.model=t", "objective=gold"],
    "teacher=gemma": ["objective=gold"],
    "teacher=local": ["teacher.model=t"],
    "teacher=none": ["objective=sft"],
    "teacher=quickstart": ["data=arithmetic"],
    "teacher=quickstart_cross": ["data=arithmetic", "objective=gold"],
    "teacher=sums99": ["data=arithmetic"],
    "teacher=routed": ["teacher.routes={everyday: a}", f"teacher.teachers={{a: {LOCAL}}}"],
}
"""What an option of a group leaves to the user, and what has to go with it."""
PLACES = {"weight": "weight@objective.terms.all.tokens.first"}
WITHIN = {"weight": ["objective=share"]}
"""Where a group goes that is not the run's but a part's."""
TINY = """# A tiny run.
defaults:
  - base
  - override data: arithmetic
  - _self_
name: tiny
steps: 6
student: {model: s}
teacher: {model: t}
sampling: {max_tokens: 12}
"""
Write = Callable[[str, str], str]


@dataclass(frozen=True, kw_only=True)
class Blind(LocalTeacher):
    """A teacher that only gives log-probs."""

    @property
    def provides(self) -> Provides:
        return Provides(logprobs=True)


@dataclass(frozen=True, kw_only=True)
class Wants(ReverseKL):
    """An objective that wants the whole distribution."""

    @property
    def needs(self) -> Needs:
        return Needs(logprobs=True, distribution=True)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a config into the working directory; returns its name."""
    monkeypatch.chdir(tmp_path)

    def file(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return name

    return file


@pytest.fixture
def tiny(write: Write) -> str:
    return write("tiny.yaml", TINY)


def refusal(name: str, *overrides: str) -> str:
    """The message that a config is refused with."""
    with pytest.raises(UserError) as caught:
        load(name, overrides)
    return str(caught.value)


# What works


@pytest.mark.parametrize("name", shipped())
def test_every_config_that_ships_is_built_and_read_back_the_same(name: str, write: Write) -> None:
    made = load(name, GIVEN.get(name, []))
    again = load(write("again.yaml", made.yaml))
    assert again.config == made.config
    assert again.settings == made.settings


@pytest.mark.parametrize(("group", "option"), [(g, o) for g in groups() for o in options(g)])
def test_every_option_of_every_group_is_built(group: str, option: str, write: Write) -> None:
    whole = write("whole.yaml", "defaults: [base, {models: own}, _self_]\nname: whole\n")
    own = [] if group == "models" and option != "own" else ["student.model=s"]
    teacher = [] if group == "teacher" or (group, option) in WITH_TEACHER else ["teacher.model=t"]
    config = load(
        whole,
        [
            *WITHIN.get(group, []),
            f"{PLACES.get(group, group)}={option}",
            *own,
            *teacher,
            *FILLED.get(f"{group}={option}", []),
        ],
    ).config
    assert isinstance(config, Config)


def test_names_of_configs_groups_and_settings_do_not_collide() -> None:
    assert not set(shipped()) & {*groups(), *(f.name for f in fields(Config))}
    assert all(shipped().values()), "every config says in its first line what it is"


def test_a_setting_that_the_yaml_leaves_to_its_default_can_be_given(tiny: str) -> None:
    config = load(tiny, ["optim.eps=1e-6", "optim.betas=[0.8,0.9]", "student.lora.rank=8"]).config
    assert config.optim.eps == 1e-6
    assert config.optim.betas == (0.8, 0.9)
    assert config.student.lora is not None
    assert config.student.lora.rank == 8


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_a_plus_before_a_key_changes_nothing(plus: str, tiny: str) -> None:
    assert load(tiny, [f"{plus}steps=9"]).config.steps == 9


def test_a_key_that_is_left_out_has_its_default(tiny: str) -> None:
    assert load(tiny, ["optim.weight_decay=0.5", "~optim.weight_decay", "~log"]).config.optim.weight_decay == 0.0


def test_numbers_may_be_written_in_every_way(tiny: str, write: Write) -> None:
    own = write("own.yaml", "defaults: [tiny, _self_]\noptim: {lr: 1e-4, eps: '1e-6', weight_decay: 1}\nname: 2024\n")
    config = load(own, ["steps=1e3"]).config
    assert (config.optim.lr, config.optim.eps, config.optim.weight_decay) == (1e-4, 1e-6, 1.0)
    assert config.steps == 1000
    assert config.name == "2024"


def test_a_file_of_the_users_builds_on_one_that_ships(write: Write) -> None:
    own = write("own.yaml", "defaults: [smollm2, {override student: lora}, {override rollout: hf}, _self_]\nsteps: 3\n")
    config = load(own, ["student.lora.rank=4"]).config
    assert config.steps == 3
    assert config.name == "smollm2"
    assert isinstance(config.rollout, Hf)
    assert config.student.lora is not None
    assert config.student.lora.rank == 4


def test_a_file_is_found_by_its_path_from_anywhere(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "it's, a [place]"
    odd.mkdir()
    (odd / "my.own.yaml").write_text(TINY)
    monkeypatch.chdir("/")
    assert load(str(odd / "my.own.yaml"), ["rollout=hf"]).config.steps == 6


def test_a_group_of_the_users_lies_beside_the_config(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "mine.yaml").write_text("lr: 5e-5\n")
    assert load(tiny, ["optim=mine"]).config.optim.lr == 5e-5
    assert load(tiny, ["optim=adamw"]).config.optim.lr == 1e-4
    assert "mine" in refusal(tiny, "optim=mien")


def test_an_evaluation_that_was_published_holds_whatever_the_config_says_of_its_own(tiny: str, write: Write) -> None:
    own = write("own.yaml", TINY + "eval: {size: 7, n: 3, every: 2}\n")
    for name in (own, write("config.yaml", load(own).yaml)):
        found = load(name, ["eval=aime"]).config.eval
        assert (found.every, found.size, found.n, found.temperature, found.max_tokens) == (2, 90, 64, 0.6, 38912)
        assert load(name, ["eval=aime", "eval.n=4"]).config.eval.n == 4
    assert load(own).config.eval.n == 3


def test_data_is_evaluated_as_published_unless_something_else_is_said(tiny: str, write: Write) -> None:
    def found(name: str, *overrides: str) -> tuple[int, int, float]:
        e = load(name, overrides, published=True).config.eval
        return (e.size, e.n, e.temperature)

    aime, standard = (90, 64, 0.6), (200, 1, None)
    run = write("config.yaml", load(tiny).yaml)
    for name in (tiny, run, "quickstart", "math_qwen"):
        assert found(name, "data=aime") == aime
        assert found(name, "data=aime", "eval.n=4") == (90, 4, 0.6)
        assert found(name, "data=aime", "eval=standard") == standard
    assert found(tiny) == found(tiny, "data=everyday") == standard  # there is no such protocol
    own = write("own.yaml", TINY.replace("arithmetic", "aime"))
    assert found(own) == aime
    assert found(own, "data=arithmetic") == standard
    assert found(write("more.yaml", TINY.replace("arithmetic", "aime") + "eval: {n: 4}\n")) == (90, 4, 0.6)
    assert load(tiny, ["data=gsm8k", *GIVEN["gsm8k"]]).config.eval.temperature is None  # training looks at the KL too


@pytest.mark.parametrize("name", ["quickstart", "math_qwen", "math_qwen_full", "personalize"])
def test_data_that_is_chosen_to_evaluate_on_has_no_task_of_the_run(name: str, write: Write) -> None:
    run = write("config.yaml", load(name).yaml)
    for config in (name, run):
        data = load(config, ["data=aime", "data.weights={aime24: 1}"], published=True).config.data
        assert set(data.tasks) == {"aime24", "aime25", "aime26"}
        assert data.weights == {"aime24": 1}
    assert data.template == load(run).config.data.template  # the way that the model was asked stays


def test_tasks_that_were_only_evaluated_do_not_stay_beside_data_that_is_chosen(tiny: str, write: Write) -> None:
    own = TINY + "data:\n  tasks: {more: {_target_: opd.tasks.arithmetic.Arithmetic}}\n  evaluated: [more]\n"
    run = write("config.yaml", load(write("own.yaml", own)).yaml)
    data = load(run, ["data=aime"], published=True).config.data
    assert (data.evaluated, data.weights) == ((), None)


OWN = """
defaults:
  - base
  - models: quickstart
  - override objective: reverse_kl_grpo
  - override source: filtered
  - _self_
name: own
steps: 3
teacher: {temperature: 0.7}
reference: {temperature: 0.6}
source: {spread: 0.1, lowest: 0.2}
objective: {terms: {reward: {weight: 0.1}, teacher: {weight: 0.3, objective: {discount: 0.9}}}}
sampling: {max_tokens: 8, n: 4, temperature: 0.7}
"""
INTO_PLACES = [
    "+teacher@reference=self_base",
    "+source@source.source=gated",
    "objective@objective.terms.teacher.objective=gkd",
]


@pytest.mark.parametrize("run", [False, True], ids=["a file of one's own", "a run's"])
def test_an_option_that_is_put_into_a_place_leaves_all_else_as_the_file_has_it(
    run: bool, write: Write, tmp_path: Path
) -> None:
    path = tmp_path / "own.yaml"
    first = ["+teacher@reference=quickstart"] if run else []
    path.write_text(OWN.replace("reference: {temperature: 0.6}", "") if run else OWN)
    if run:  # without a list of defaults, all of it resolved
        path.write_text(load(str(path), [*first, "+source@source.source=curriculum"]).yaml)
    made = load(str(path), INTO_PLACES).config
    assert (type(made.teacher).__name__, made.teacher.temperature) == ("LocalTeacher", 0.7)
    assert (type(made.reference).__name__, made.reference.temperature) == ("SelfTeacher", 1.0 if run else 0.6)
    assert (made.source.spread, made.source.lowest) == (0.1, 0.2)
    assert type(made.source.source).__name__ == "Gated"
    terms = {name: (type(t.objective).__name__, t.weight) for name, t in made.objective.terms.items()}
    assert terms == {"teacher": ("GKD", 0.3), "reward": ("GRPO", 0.1)}


def test_an_option_made_from_another_one_is_read_with_what_that_brings(tiny: str, write: Write, tmp_path: Path) -> None:
    run = write("config.yaml", load(tiny).yaml)
    (task,) = load(run, ["data=sums99"], published=True).config.data.tasks.values()
    assert (task.max_operations, task.max_value) == (5, 99)
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "mine.yaml").write_text("defaults: [quickstart]\nmicro_tokens: 77\n")
    teacher = load(write("own.yaml", TINY.replace("model: t", "temperature: 0.5")), ["teacher=mine"]).config.teacher
    assert (teacher.micro_tokens, teacher.temperature) == (77, 0.5)  # of one class, so that the file's own word stays


def test_a_config_or_option_named_like_the_one_it_starts_from_is_one_line(write: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"smollm2\.yaml: defaults: they lead back to where they began.*another name"):
        load(write("smollm2.yaml", "defaults:\n  - smollm2\n  - _self_\nsteps: 3\n"))
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "quickstart.yaml").write_text("defaults: [quickstart]\nmicro_tokens: 77\n")
    with pytest.raises(UserError, match="an option of a group"):
        load(write("own.yaml", TINY), ["teacher=quickstart"])


def test_every_published_evaluation_is_that_of_some_data() -> None:
    assert {*options("eval")} - {"standard"} <= {*options("data")}


@pytest.mark.parametrize("year", ["24", "25", "26"])
def test_each_year_of_aime_can_be_had_alone_from_the_hub_or_from_a_file(tiny: str, year: str, tmp_path: Path) -> None:
    chosen = ["data=aime", f"data.weights={{aime{year}: 1}}"]
    data = load(tiny, chosen).config.data
    assert data.weights == {f"aime{year}": 1}
    assert data.tasks[f"aime{year}"].path == f"math-ai/aime{year}"
    file = tmp_path / "aime.jsonl"
    answer = data.tasks[f"aime{year}"].answer_column
    file.write_text(json.dumps({"problem": "1+1?", answer: "So it is $\\boxed{2}$."}) + "\n")
    task = load(tiny, [*chosen, f"data.tasks.aime{year}.path={file}"]).config.data.tasks[f"aime{year}"]
    (example,) = task.examples("eval")
    assert (len(task.examples("train")), example.answer, task.verify(example, "\\boxed{2}")) == (0, "2", 1.0)


def test_a_folder_with_the_name_of_a_setting_is_no_group(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "name").mkdir()
    assert load(tiny, ["runs=elsewhere", "name=x"]).config.runs == "elsewhere"


def test_the_yaml_suffix_of_a_config_that_ships_may_be_given(write: Write) -> None:
    assert locate("smollm2.yaml") == locate("smollm2")
    (Path.cwd() / "smollm2.yaml").write_text(TINY)
    assert locate("smollm2.yaml") == Path.cwd() / "smollm2.yaml"


def test_a_resolved_config_takes_another_engine_and_other_settings(tiny: str, write: Write) -> None:
    whole = write("config.yaml", load(tiny, ["rollout.max_num_seqs=7", "log.rollouts_every=3"]).yaml)
    config = load(whole, ["rollout=hf", "log=tensorboard", "student=lora"]).config
    assert isinstance(config.rollout, Hf)
    assert len(config.log.trackers) == 1
    assert config.log.rollouts_every == 3
    assert config.student.model == "s"
    assert config.student.lora is not None


@pytest.mark.parametrize("text", ["${x}", "a \\${b", "\\\\${c}$", "1e-4", "null", "a: 'b'\n", "été", "???x"])
def test_every_text_survives_being_written_and_read(text: str, tiny: str, write: Write) -> None:
    made = load(tiny).config
    changed = replace(made, data=replace(made.data, system=text))
    whole = write("config.yaml", Composed(changed, plain(changed, Config), ()).yaml)
    assert load(whole).config == changed


def test_a_part_may_come_from_a_module_in_the_working_directory(tiny: str, write: Write) -> None:
    write(
        "my_task_xyz.py",
        "from dataclasses import dataclass\nfrom opd.tasks.arithmetic import Arithmetic\n"
        "@dataclass(frozen=True)\nclass Mine(Arithmetic):\n    extra: int = 1\n",
    )
    config = load(tiny, ["data.tasks.arithmetic._target_=my_task_xyz.Mine", "data.tasks.arithmetic.extra=5"]).config
    task = config.data.tasks["arithmetic"]
    assert isinstance(task, Arithmetic)
    assert task.extra == 5


def test_a_sweep_is_every_combination_in_order() -> None:
    assert sweep(["optim.lr=1e-4,1e-5", "seed=range(0,2)", "name=x"]) == [
        ["optim.lr=0.0001", "seed=0", "name=x"],
        ["optim.lr=0.0001", "seed=1", "name=x"],
        ["optim.lr=1e-05", "seed=0", "name=x"],
        ["optim.lr=1e-05", "seed=1", "name=x"],
    ]


def test_a_text_may_be_empty_where_that_says_something(tiny: str) -> None:
    config = load(tiny, ["data.system=", "teacher.system=", "data=countdown", "data.tasks.countdown.suffix="]).config
    assert config.data.system == config.data.tasks["countdown"].suffix == ""
    assert load(tiny, ["data.system=null"]).config.data.system is None


# What is refused: the override, how the message begins, what else it says.

KEYS = [
    ("optim.lrr=0.1", "optim.lrr=0.1:", "did you mean lr?"),
    ("optmi.lr=1", "optmi.lr=1:", "did you mean optim?"),
    ("lr=1e-5", "lr=1e-05:", "did you mean optim.lr?"),
    ("max_tokens=5", "max_tokens=5:", "did you mean sampling.max_tokens or eval.max_tokens?"),
    ("teachr=local", "teachr=local:", "did you mean teacher?"),
    ("+new.key=1", "new.key=1:", "allowed here: name, steps"),
    ("++optim.new=1", "optim.new=1:", "allowed here: lr, betas"),
    ("teacher.modle=x", "teacher.modle=x:", "did you mean model?"),
    ("student.lora.rnk=3", "student.lora.rnk=3:", "did you mean rank?"),
    ("data.tasks.arithmetic.oprators=x", "data.tasks.arithmetic.oprators=x:", "did you mean operators?"),
    ("data.tasks.arithmetc.operators=x", "data.tasks.arithmetc=", "did you mean arithmetic?"),
    ("data.weights={arithmetc: 1}", "data.weights.arithmetc", "did you mean arithmetic?"),
    ("_target_=os.path", "_target_=os.path:", "no such setting"),
    ("hydra.job.name=x", "hydra.job.name=x:", "no such setting"),
    ("~optim.lrr", "~optim.lrr:", "did you mean lr?"),
    ("~optm", "~optm:", "did you mean optim?"),
    ("~steps", "steps:", "must be given"),
    ("~teacher", "teacher:", "must be given"),
    ("student.model=???", "student.model:", "must be given"),
]
VALUES = [
    ("steps=abc", "steps=abc:", "allowed is a whole number from 1"),
    ("steps=1.5", "steps=1.5:", "allowed is a whole number from 1"),
    ("steps=true", "steps=true:", "allowed is a whole number from 1"),
    ("steps=null", "steps=null:", "allowed is a whole number from 1"),
    ("steps=0", "steps=0:", "allowed is a whole number from 1"),
    ("seed=-1", "seed=-1:", "allowed is a whole number from 0"),
    ("optim.lr=", 'optim.lr="":', "allowed is a number above 0"),
    ("optim.lr=abc", "optim.lr=abc:", "allowed is a number above 0"),
    ("optim.lr=true", "optim.lr=true:", "allowed is a number above 0"),
    ("optim.lr=inf", "optim.lr=Infinity:", "allowed is a number above 0"),
    ("optim.lr=nan", "optim.lr=NaN:", "allowed is a number above 0"),
    ("optim.lr={a: 1}", 'optim.lr={"a": 1}:', "allowed is a number above 0"),
    ("optim.betas=[0.9]", "optim.betas=[0.9]:", "a list of 2, each of it a number from 0, below 1"),
    ("optim.betas=[0.9,2]", "optim.betas=[0.9, 2]:", "a list of 2"),
    ("optim.schedule=cosin", "optim.schedule=cosin:", "constant or linear or cosine, did you mean cosine?"),
    ("rollout.dtype=float23", "rollout.dtype=float23:", "did you mean float32?"),
    ("log.exact_kl=maybe", "log.exact_kl=maybe:", "allowed is true or false"),
    ("preflight.max_gap=0", "preflight.max_gap=0:", "allowed is a number above 0 or null"),
    ("student.model=null", "student.model=null:", "allowed is a text or a mapping whose _target_"),
    ("student.lora=5", "student.lora=5:", "a mapping of rank, alpha, dropout, targets or null"),
    ("sampling=5", "sampling=5:", "a mapping of max_tokens"),
    ("data.tasks=5", "data.tasks=5:", "a mapping of names"),
    ("data.tasks.x=5", "data.tasks.x", "_target_"),
    ("data.weights={arithmetic: -1}", 'data.weights={"arithmetic": -1}:', "from 0"),
    ("log.trackers=[{_target_: opd.learner.optim.Optim}]", "log.trackers=", "of the kind TrackerConfig"),
    ("name=a/b", "name=a/b:", "allowed are letters"),
    ("name=${nope.x}", "name=${nope.x}:", "no such key"),
    ("name=${teacher.modle}", "name=${teacher.modle}:", "did you mean teacher.model?"),
    ("steps.x=1", 'steps={"x": 1}:', "a whole number"),
    ("steps=1e23", "steps=1e+23:", "up to 1000000000"),
    ("steps=1e12", "steps=1000000000000.0:", "up to 1000000000"),
    ("sampling.temperature=1e23", "sampling.temperature=1e+23:", "up to 100"),
    ("optim.lr=1e23", "optim.lr=1e+23:", "up to 10"),
    ("data.tasks.arithmetic.seed=1e23", "data.tasks.arithmetic.seed=1e+23:", "a whole number"),
    ("student.model=", 'student.model="":', "a text that is not empty"),
    ('student.model=" "', 'student.model=" ":', "a text that is not empty"),
    ("runs=", 'runs="":', "a text that is not empty"),
    ("student.device=", 'student.device="":', "a text that is not empty"),
    ('student.model="${"', "student.model:", "write \\${"),
    ('student.model="a${b"', "student.model:", "write \\${"),
    ("student.model=${a:b}", "student.model:", "no such function"),
    ("student.model=${oc.env:NOPE_XYZ}", "student.model:", "no environment variable NOPE_XYZ"),
    ("student.model=${student.model}", "student.model:", "refers to itself"),
    ("eval.k=[${x}]", "eval.k[0]=${x}:", "no such key"),
    ("optim=[1]", "optim:", "a list is given where a mapping"),
    ("optim.betas.x=1", "optim.betas.x=1:", "optim.betas is a list"),
    ("optim.betas[0]=1", "optim.betas[0]=1:", "give the list"),
    ("data.tasks.arithmetic=null", "data.tasks.arithmetic:", "got null"),
]
CHOICES = [
    ("teacher=locla", "teacher=locla:", "did you mean local? there are between, cached"),
    ("rollout=vlm", "rollout=vlm:", "did you mean vllm? there are hf, vllm"),
    ("optim=5", "optim=5:", "there are adamw"),
    ("student=null", "student=null:", "there are full, lora"),
    ("teacher._target_=opd.learner.optim.Optim", "teacher.", "no such setting"),
    ("objective={_target_: opd.nope.X}", "objective._target_=opd.nope.X:", "no such module"),
    (
        "teacher._target_=opd.teachers.locl.X",
        "teacher._target_=opd.teachers.locl.X:",
        "did you mean opd.teachers.local?",
    ),
    ("teacher._target_=opd.teachers.local.LocalTeachr", "teacher._target_=", "did you mean LocalTeacher?"),
    ("teacher._target_=opd.teachers.local.FLOOR", "teacher._target_=", "no such dataclass"),
    ("teacher._target_=LocalTeacher", "teacher._target_=LocalTeacher:", "dotted path"),
    ("teacher._target_=null", "teacher._target_=null:", "dotted path"),
    ("teacher._target_=nopkg.sub.X", "teacher._target_=nopkg.sub.X:", "no such module"),
    ("data.tasks.arithmetic._target_=broken_xyz.X", "data.tasks.arithmetic._target_=", "SyntaxError"),
]
SPELLING = [
    ("steps", "steps:", "KEY=VALUE"),
    ("=5", "=5:", "KEY=VALUE"),
    ("1+1=", "1+1=:", "a prompt or another text needs its flag"),
    ("steps = 3", "steps = 3:", "without spaces"),
    ("optim.betas=[0.9,", "optim.betas=[0.9,:", "brackets"),
    ("steps={", "steps={:", "brackets"),
    ("name=${teacher.model", "name=${teacher.model:", "brackets"),
    ("student.model=/a=b", "student.model=/a=b:", "quoted twice"),
    ("optim.lr=1e-4,1e-5", "optim.lr=1e-4,1e-5:", "--multirun"),
]
TOGETHER = [
    ("eval.k=[4]", "eval.k=[4]:", "eval.n=1"),
    ("sampling.top_p=0.9", "sampling.top_p=0.9:", "eval.top_p is free"),
    ("sampling.min_p=0.1", "sampling.min_p=0.1:", "eval.min_p is free"),
    ("optim.steps_per_batch=1000", "optim.steps_per_batch=1000:", "data.prompts_per_step * sampling.n = 256"),
    ("data.tasks.arithmetic.max_operations=1", "data.tasks.arithmetic.max_operations", "min_operations"),
]


def test_a_group_that_goes_into_a_part_is_refused_with_its_place(tiny: str) -> None:
    assert "allowed is objective=share weight@objective.terms.all.tokens.first=cap" in refusal(tiny, "weight=cap")


@pytest.mark.parametrize(("override", "start", "says"), [*KEYS, *VALUES, *CHOICES, *SPELLING, *TOGETHER])
def test_a_mistake_is_one_line_with_its_key(override: str, start: str, says: str, tiny: str, write: Write) -> None:
    write("broken_xyz.py", "x = (")
    before = sorted(p.name for p in Path.cwd().iterdir())
    message = refusal(tiny, override)
    assert message.startswith(start)
    assert says in message
    assert "\n" not in message
    assert len(message) < 400
    assert sorted(p.name for p in Path.cwd().iterdir() if p.name != "__pycache__") == before


@pytest.mark.parametrize(
    "objective",
    [["objective=reverse_kl"], ["objective=stable", "source=mixed", "+teacher@reference=quickstart"]],
    ids=["alone", "of a part of the source"],
)
def test_dropout_of_adapters_is_refused_where_a_policy_gradient_is_taken(objective: list[str], tiny: str) -> None:
    load(tiny, [*objective, "student=lora"])
    assert "allowed is 0 with this objective" in refusal(tiny, *objective, "student=lora", "student.lora.dropout=0.1")
    given = ["objective=gkd", "student=lora", "student.lora.dropout=0.1"]
    assert load(tiny, given).config.student.lora.dropout == 0.1


def test_a_key_is_said_once(tiny: str) -> None:
    for override in ("eval.k=[4]", "optim.steps_per_batch=1000", "data.tasks.arithmetic.max_operations=1", "~steps"):
        key = override.split("=")[0].removeprefix("~")
        assert refusal(tiny, override).count(key) == 1


def test_an_objective_that_needs_more_than_the_teacher_has_is_refused(tiny: str) -> None:
    message = refusal(tiny, f"teacher._target_={__name__}.Blind", f"objective._target_={__name__}.Wants")
    assert message.startswith(f"objective={__name__}.Wants:")
    assert "distribution" in message
    assert f"teacher={__name__}.Blind" in message


FILES = [
    ("steps: [1\nname: x", "conf=", "line 2"),
    ("a:\n\t- b", "conf=", "line 2"),
    ("- a\n- b\n", "conf=", "allowed is a mapping"),
    ("hello", "conf=", "own.yaml: it holds a word, allowed is a mapping"),
    ("5", "conf=", "own.yaml: it holds a word, allowed is a mapping"),
    ("", "conf=", "own.yaml: it is empty"),
    ("null", "conf=", "own.yaml: it holds a word"),
    ("\0", "conf=", "own.yaml: it cannot be read"),
    ("name: ${", "conf=", "own.yaml: name: a ${ begins"),
    ("name: x\nstudent: {model: 'a ${ b'}\n", "conf=", "own.yaml: student.model: a ${ begins"),
    ("name: ${oc.env:NOPE_XYZ}", "conf=", "own.yaml: name: there is no environment variable NOPE_XYZ"),
    ("defaults: [quickstart, _self_]\noptim: [1]\n", "conf=", "own.yaml: optim: a list is given where"),
    ("defaults: [quickstart, _self_]\neval: {k: {a: 1}}\n", "conf=", "own.yaml: eval.k: a list is given where"),
    ("defaults: [quickstart, _self_]\nsteps: 0\n", "steps=0:", "own.yaml)"),
    ("defaults: [quickstart, _self_]\noptim: {lr: -1}\n", "optim.lr=-1:", "own.yaml)"),
    ("name: a\nname: b\n", "conf=", "duplicate key name"),
    ("defaults: [quickstart, _self_]\nsteps: 010\n", "conf=", "line 2: 010 is read in base 8 or 60"),
    ("defaults: [quickstart, _self_]\nthreads: 1:30\n", "conf=", "line 2: 1:30 is read in base 8 or 60"),
    ("hydra: {searchpath: [x]}", "conf=", "hydra: no such setting"),
    ("defaults: [smollm2]\nsteps: 3\n", "conf=", "_self_"),
    ("defaults: 5", "conf=", "_self_"),
    ("defaults: [bse, _self_]", "conf=", "did you mean base?"),
    ("defaults: [base, {override teacher: locl}, _self_]", "conf=", "did you mean local?"),
    ("defaults: [base, {override techer: local}, _self_]", "conf=", "did you mean teacher?"),
    ("name: x\nsteps: 3\n", "student:", "must be given"),
    ("defaults: [base, _self_]\n", "name:", "student.model too"),
]


@pytest.mark.parametrize(("text", "start", "says"), FILES)
def test_a_file_that_is_no_config_is_one_line(text: str, start: str, says: str, write: Write) -> None:
    message = refusal(write("own.yaml", text))
    assert message.startswith(start)
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("math_qwn", "did you mean math_qwen?"),
        ("tiny", "did you mean tiny.yaml?"),
        ("tiyn.yaml", "did you mean tiny.yaml?"),
        ("nope/x.yaml", "there are"),
        ("a.yml", "ends in .yaml"),
        (".", "this is a folder"),
        ("", "must be given"),
    ],
)
def test_a_config_that_is_not_there_is_one_line(name: str, says: str, tiny: str, write: Write) -> None:
    write("a.yml", "name: x")
    message = refusal(name)
    assert message.startswith(f"conf={name}:")
    assert says in message


def test_a_name_that_no_disk_takes_is_one_line(tiny: str) -> None:
    assert "at most 100" in refusal(tiny, f"name={'a' * 300}")
    with pytest.raises(UserError, match=r"run=a+: File name too long; name another folder"):
        RunFolder.at("a" * 300)
    assert RunFolder.at("~nobody-of-this-name/run").path == Path("~nobody-of-this-name/run")


def test_bytes_that_are_no_text_are_one_line(write: Write) -> None:
    Path(write("own.yaml", "")).write_bytes(b"\xff\xfe\x00a: \x80")
    assert refusal("own.yaml").startswith("conf=")


DATASET = "{_target_: opd.sources.dataset.DatasetSource}"
OTHER = "{_target_: opd.sources.student.StudentSource}"


@pytest.mark.parametrize(
    ("source", "samples"),
    [
        (["source=dataset"], 1),
        (["source=filtered", f"source.source={DATASET}"], 1),
        (["source=by_task", f"source.tasks={{everyday: {DATASET}}}", f"source.others={DATASET}"], 1),
        (["source=by_task", f"source.tasks={{everyday: {DATASET}}}", f"source.others={OTHER}"], 4),
        (["source=mixed", "source.shares={student: 0, dataset: 1}"], 1),
        (["source=mixed", "source.shares={student: 1, dataset: 1}"], 4),
        (["source=student"], 4),
    ],
)
def test_completions_that_are_given_are_taken_once_each_and_that_is_said(source: list[str], samples: int) -> None:
    made = load("own", ["student.model=s", "teacher.model=t", "objective=gkd", "sampling.n=4", *source])
    assert made.config.sampling.n == made.settings["sampling"]["n"] == samples
    assert [note.partition(" is 1 here")[0] for note in made.notes] == ["sampling.n=4"] * (samples == 1)
    again = read_back(made.yaml)
    assert (again.config, again.notes) == (made.config, ())
    other = load("own", ["student.model=s", "teacher.model=t", "objective=gkd", "sampling.n=4"])
    given = other.with_parts(source=made.config.source)
    assert given.config.sampling.n == samples, "of an object, too"


@pytest.mark.parametrize("other", ["services: {web: 1}\n", "- a list\n", "defaults: [base, _self_]\n", "a: [\n", ""])
@pytest.mark.parametrize("overrides", [(), ("objective=gkd", "source=mixed"), ("optim=mine",)])
def test_a_file_beside_a_config_is_not_taken_for_the_base_of_all(
    other: str, overrides: Sequence[str], tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("defaults: [quickstart, _self_]\nname: mine\n")
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "mine.yaml").write_text("lr: 0.5\n")
    before = load(str(path), overrides)
    (tmp_path / "base.yaml").write_text(other)
    assert load(str(path), overrides) == before
    explain("optim.lr", str(path), overrides)


def test_a_base_of_ones_own_that_is_passed_over_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "defaults: [base, _self_]\nname: x\nsteps: 1\nsampling: {max_tokens: 8}\n"
        "student: {model: s}\nteacher: {model: t}\n"
    )
    assert load(str(path)).notes == ()
    (tmp_path / "base.yaml").write_text("seed: 3\n")
    made = load(str(path))
    assert made.config.seed == 0
    (note,) = made.notes
    assert note == f"defaults: base is the one that ships; to start from {tmp_path}/base.yaml, give it another name"


def test_of_an_option_whose_settings_the_file_has_itself_it_is_said_which_stay(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("defaults: [quickstart, _self_]\nteacher: {model: x, temperature: 0.7}\noptim: {lr: 0.5}\n")
    made = load(str(file), ["teacher=quickstart"])
    assert made.config.teacher.model == "x"
    assert made.notes == ("teacher=quickstart: teacher.model=x stay as mine.yaml has them; type others to change them",)
    for typed in ([], ["objective=gkd"], ["teacher=self_base"], ["teacher=quickstart", "teacher.model=y"]):
        assert not [note for note in load(str(file), typed).notes if "stay as" in note]


@pytest.mark.parametrize(
    ("given", "student"),
    [
        ([], None),
        (["optim.steps_per_batch=2"], "now"),
        (["optim.steps_per_batch=2", "objective.student=sampled"], "sampled"),
        (["devices=apart", "devices.ahead=1"], "now"),
        (["source={_target_: opd.sources.recorded.Recorded, path: p, model: m}"], "now"),
    ],
)
def test_the_student_of_now_is_judged_wherever_samples_are_of_older_weights(
    config: Path, given: list[str], student: str | None
) -> None:
    objective = load(str(config), ["objective=reverse_kl", *given]).settled().config.objective
    assert getattr(objective, "student", "none") == student


def test_a_divergence_over_one_vocabulary_is_refused_with_another_tokenizer_also_within_a_sum() -> None:
    made = load("gold").config
    for other in (GKD(), Unsure(), MiniLLM(long_term=False)):
        nested = Weighted(terms={"inner": Term(Weighted(terms={"gold": Term(Gold()), "other": Term(other)}))})
        for objective in (other, Weighted(terms={"gold": Term(Gold()), "other": Term(other)}), nested):
            with pytest.raises(ValueError, match=r"objective=[\w.]+: its divergence is over one vocabulary, .*=gold"):
                replace(made, objective=objective)
    replace(made, objective=Weighted(terms={"gold": Term(Gold()), "hybrid": Term(Gold(method="hybrid"))}))


def test_a_quick_look_is_at_the_temperature_of_training_and_what_was_published_at_its_own(config: Path) -> None:
    for given, temperature in (([], 0.7), (["eval.temperature=0"], 0.0), (["eval=aime"], 0.6)):
        made = load(str(config), ["sampling.temperature=0.7", *given]).config
        assert eval_sampling(made, ()).temperature == temperature
