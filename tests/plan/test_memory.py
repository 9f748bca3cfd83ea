"""Bytes by phase: the sum of an update against what torch holds at its most, and what advice makes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from opd.config.compose import load
from opd.learner.config import Lora
from opd.plan.advice import changes, layouts, mended
from opd.plan.cards import card
from opd.plan.forecast import Forecast, forecast
from opd.plan.layout import Layout, layout_of
from opd.plan.memory import PARTS, token_bytes
from opd.plan.shape import read_shape
from opd.plan.work import Lengths
from opd.types import Pretrained, UserError
from tests.plan import peak
from tests.tiny import cli_code, save_config, save_model


def on_h100(conf: str, *settings: str, ranks: int = 1, shard: int | None = None) -> Forecast:
    config = load(conf, settings).config
    return forecast(config, card("h100"), Layout(ranks, shard=shard), Lengths.of(config, None, None), "bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "adapted", "again"),
    [("float32", False, False), ("float32", False, True), ("bfloat16", False, False), ("bfloat16", True, False)],
)
def test_an_update_takes_about_what_torch_allocates(dtype: str, adapted: bool, again: bool) -> None:
    plan, real = peak.both(dtype, adapted, again)
    assert plan == pytest.approx(real, rel=0.3)


WIDE = {
    "float32": ("llama", "float32", {"hidden": 768, "layers": 6}),
    "bfloat16": ("llama", "bfloat16", {"hidden": 768, "layers": 6}),
    "experts": ("mixtral", "bfloat16", {"hidden": 384, "layers": 6}),
    "embedding": ("llama", "bfloat16", {"hidden": 256, "layers": 3, "vocab": 16384, "tied": False}),
}
"""Models by what weighs most in them: kind, computing type, sizes."""


@pytest.fixture(scope="module", params=WIDE)
def wide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One of them, and its computing type."""
    kind, dtype, sizes = WIDE[request.param]
    return save_model(tmp_path_factory.mktemp("wide"), kind, seed=0, **({"tied": True} | sizes)), dtype


@pytest.mark.slow
@pytest.mark.parametrize(("size", "shard"), [(2, 2), (2, 1), (4, 2)])
def test_weights_and_gradients_that_a_rank_has_whole_take_what_torch_allocates(
    wide: tuple[Path, str], size: int, shard: int
) -> None:
    plan, real = peak.of_rank(*wide, size, shard)
    assert plan == pytest.approx(real, rel=0.15)


def test_the_field_s_run_fits_on_no_card_and_says_what_would() -> None:
    found = on_h100("math_qwen")
    assert not found.fits
    better = mended(found)
    assert better is not None
    settings, fitting = better
    assert fitting.fits
    assert on_h100("math_qwen", *settings.split()).fits
    assert on_h100("math_qwen", ranks=8).fits


def test_shards_are_fewer_bytes_and_engines_stay_whole() -> None:
    (one,), (eight,) = (on_h100("math_qwen_full", ranks=n).devices for n in (1, 8))
    first, last = one.phases["update"], eight.phases["update"]
    for part in ("weights", "gradients", "optimizer"):
        assert last[part] == pytest.approx(first[part] / 8, rel=0.001)
    assert last["engine weights"] == first["engine weights"]
    assert "gathered shards" in last
    assert set(first) | set(last) <= set(PARTS)


def test_a_teacher_in_between_is_the_two_that_it_is_between() -> None:
    far = "teacher.teacher.model=Qwen/Qwen3-32B"
    (one,), (two,) = (on_h100("math_qwen_full", *t).devices for t in ((), ("teacher=between", far)))
    more = two.phases["score"]["teacher"] - one.phases["score"]["teacher"]
    assert more == pytest.approx(16.4e9, rel=0.02)  # the student as it began, a frozen copy


def test_offloading_leaves_the_card_to_the_student() -> None:
    (here,), (away,) = (on_h100("math_qwen", f"teacher.offload={x}").devices for x in ("false", "true"))
    assert away.phases["score"] == here.phases["score"]
    assert away.phases["update"]["teacher"] < 0.05 * here.phases["update"]["teacher"]


def test_a_teacher_on_another_gpu_is_a_device_of_its_own() -> None:
    student, teacher = on_h100("math_qwen", "teacher.device=cuda:1").devices
    assert student.phases["score"]["teacher"] == 0
    assert teacher.phases["score"]["teacher"] == pytest.approx(65.5e9, rel=0.01)


def test_shards_stay_on_their_devices_and_heads_are_whole() -> None:
    away, here = (on_h100("math_qwen", f"teacher.offload={x}", ranks=8).devices[0] for x in ("true", "false"))
    assert away == here
    head = 151_936 * 5120 * 2
    assert here.phases["score"]["teacher"] == pytest.approx((65.5e9 - head) / 8 + head, rel=0.01)
    base, body = 151_936 * 4096 * 2, 2 * 8.19e9
    assert here.phases["update"]["weights"] == pytest.approx((body - base + 1.4e9) / 8 + base, rel=0.01)
    assert on_h100("math_qwen", "teacher.device=cuda:1", ranks=8).gpus == 8
    assert "offload" not in " ".join(c.setting for c in changes(load("math_qwen").config, Layout(8)))


def test_layers_are_gathered_in_bfloat16_and_their_gradients_summed_in_float32() -> None:
    (device,) = on_h100("math_qwen_full", ranks=8).devices
    (frozen,) = on_h100("math_qwen", ranks=8).devices
    head, layer = 151_936 * 4096 * 4, 0.193e9
    whole = device.phases["update"]["gathered shards"]
    moments = (2 * head, 2 * head + (2 + 2 + 2 + 4) * layer, 2 * head + 2.125 * head)
    assert any(whole == pytest.approx(moment, rel=0.01) for moment in moments)
    assert 0 < frozen.phases["update"]["gathered shards"] < 8 * layer


def test_ranks_keep_no_copies_of_layers_that_are_gathered_in_the_computing_type() -> None:
    settings = "student.gradient_checkpointing=false"
    (one,), (eight,) = (on_h100("math_qwen_full", settings, ranks=n).devices for n in (1, 8))
    assert one.phases["update"]["cast weights"] == pytest.approx(36 * 0.193e9 * 2, rel=0.01)
    assert eight.phases["update"]["cast weights"] == 0


def test_only_layers_of_linear_layers_and_transformers_own_norms_are_gathered_in_the_computing_type(
    tmp_path: Path,
) -> None:
    def narrow(kind: str, lora: Lora | None = None) -> set[str]:
        model = str(save_model(tmp_path / kind, kind, seed=0, tied=True))
        return {w.group for w in read_shape(Pretrained(model), lora).weights if w.narrow}

    assert narrow("qwen3") == narrow("llama") == {"layer 0", "layer 1"}
    assert narrow("qwen3_moe") == {"layer 1"}, "the other one has experts"
    assert narrow("gpt2") == narrow("mixtral") == narrow("llama", Lora(rank=2)) == set()


def test_copies_of_the_weights_take_as_much_as_fewer_ranks_do() -> None:
    (two,), (copies,) = (on_h100("math_qwen_full", ranks=n, shard=s).devices for n, s in ((2, None), (8, 2)))
    for part in ("weights", "gradients", "optimizer", "teacher", "gathered shards"):
        assert copies.phases["update"][part] == two.phases["update"][part]


def test_nothing_is_gathered_for_the_engine_where_a_rank_has_all_weights() -> None:
    one, alone, cut = (
        on_h100("math_qwen_full", ranks=n, shard=s).devices[0].phases["push"]["transfer"]
        for n, s in ((1, None), (8, 1), (8, None))
    )
    assert one == alone < cut


def test_every_rank_reads_all_of_a_model_into_the_host() -> None:
    eight, quantized = on_h100("math_qwen", ranks=8), on_h100("math_qwen", "teacher.quantization=int8", ranks=8)
    assert (eight.host.model, eight.host.processes) == ("teacher", 8)
    assert eight.host.loading == pytest.approx(8 * 65.5e9, rel=0.01)
    assert quantized.host.model == "student"
    assert on_h100("math_qwen", ranks=64).host.processes == 8
    assert on_h100("math_qwen", "teacher.offload=true").host.staying == pytest.approx(65.5e9, rel=0.01)


def test_engines_apart_have_devices_of_their_own() -> None:
    settings = ("devices=apart", "devices.engines=3", "devices.ahead=1")
    config = load("math_qwen", settings).config
    layout = layout_of(config, None)
    assert (layout, layout.setting) == (Layout(1, 3, 1), " ".join(settings))
    found = forecast(config, card("h100"), layout, Lengths.of(config, None, None), "bfloat16")
    learner, engine = found.devices
    (one,) = on_h100("math_qwen").devices
    assert (learner.count, engine.count, found.gpus) == (1, 3, 4)
    assert not {"engine weights", "KV cache"} & set(learner.phases["update"])
    assert set(engine.phases["update"]) == {"engine weights", "KV cache", "engine work"}
    for part, size in one.phases["update"].items():
        assert size == (engine if part in engine.phases["update"] else learner).phases["update"][part]
    assert found.host.staying == pytest.approx(3 * 8.19e9 * 2, rel=0.01)
    with pytest.raises(UserError, match=r"--gpus 3: devices\.engines=3 takes 4"):
        layout_of(config, 3)


def test_an_engine_on_several_devices_has_a_part_of_its_model_on_each_and_more_room_for_the_cache() -> None:
    beside = ["devices=apart", "devices.engines=2"]
    configs = [load("math_qwen", [*beside, f"devices.tensor_parallel={spread}"]).config for spread in (1, 4)]
    one, four = (
        forecast(config, card("h100"), layout_of(config, None), Lengths.of(config, None, None), "bfloat16")
        for config in configs
    )
    assert (one.gpus, four.gpus) == (3, 9)
    assert four.devices[0].phases == one.devices[0].phases
    (whole, part) = (found.devices[1].phases["generate"] for found in (one, four))
    assert part["engine weights"] == whole["engine weights"] // 4
    assert part["KV cache"] - whole["KV cache"] == whole["engine weights"] - part["engine weights"]
    assert one.phases["generate"] / 8 < four.phases["generate"] < one.phases["generate"]
    (engine, *_) = four.crew.engines
    assert [token_bytes(engine) / token_bytes(engine, n) for n in (2, 8, 32)] == [2, 8, 8]  # it has 8 heads of keys
    with pytest.raises(UserError, match=r"--gpus 8: devices\.engines=2 takes 9, devices\.tensor_parallel=4 for each"):
        layout_of(four.crew.config, 8)


def test_on_a_processor_the_parts_of_an_engine_hold_its_weights_once_and_a_cache_each() -> None:
    config = load("math_qwen", ["devices=apart", "devices.tensor_parallel=2"]).config
    machine = replace(card("h100"), name="cpu")
    one, two = (
        forecast(config, machine, replace(layout_of(config, None), spread=n), Lengths.of(config, None, None), "float32")
        for n in (1, 2)
    )
    whole, parts = (found.devices[0].phases["generate"] for found in (one, two))
    assert parts["engine weights"] == pytest.approx(whole["engine weights"], rel=1e-6)
    assert parts["KV cache"] == 2 * whole["KV cache"] > 0


def test_engines_that_fit_on_no_single_card_are_advised_on_as_few_as_they_fit_on() -> None:
    config = load("math_qwen", ["student.model=Qwen/Qwen3-32B"]).config
    found = forecast(config, card("h100"), Layout(8), Lengths.of(config, None, None), "bfloat16")
    assert [x.setting for x in layouts(found, 8) if x.engines * x.spread == 4] == [
        "devices=apart devices.ranks=4 devices.engines=1 devices.ahead=1 devices.tensor_parallel=4"
    ]
    small = on_h100("math_qwen", ranks=8)
    assert {x.spread for x in layouts(small, 8)} == {1}


def test_ranks_beside_engines_apart_have_what_ranks_have_but_for_an_engine() -> None:
    config = load("math_qwen", ["devices=apart", "devices.ranks=null", "devices.engines=3"]).config
    layout = layout_of(config, 8)
    assert layout == Layout(5, 3)
    found = forecast(config, card("h100"), layout, Lengths.of(config, None, None), "bfloat16")
    learner, engine = found.devices
    (rank,) = on_h100("math_qwen", ranks=5).devices
    assert (learner.count, engine.count, found.gpus) == (5, 3, 8)
    for part, size in rank.phases["update"].items():
        assert size == (engine if part in engine.phases["update"] else learner).phases["update"][part]
    with pytest.raises(UserError, match=r"--gpus 8: devices\.engines=3 takes 9, one for each engine and .* 6 ranks"):
        layout_of(load("math_qwen", ["devices=apart", "devices.ranks=6", "devices.engines=3"]).config, 8)


def test_ranks_and_engines_that_ray_places_are_planned_as_those_of_one_machine() -> None:
    beside = ["devices.ranks=4", "devices.shard=2", "devices.engines=3", "devices.ahead=2"]
    ray, apart = (layout_of(load("math_qwen", [f"devices={kind}", *beside]).config, 16) for kind in ("ray", "apart"))
    assert ray == apart == Layout(4, 3, 2, 2)
    assert layout_of(load("math_qwen", ["devices=ray", "devices.engines=3"]).config, 16) == Layout(13, 3)
    assert layout_of(load("math_qwen", ["devices=ray"]).config, 16) == Layout(16)


def test_on_a_processor_the_engines_are_counted_once_whoever_learns() -> None:
    config = load("quickstart").config
    machine = replace(card("h100"), name="cpu")
    (one,), (two,) = (
        forecast(config, machine, Layout(ranks, 4), Lengths.of(config, None, None), "float32").devices
        for ranks in (1, 2)
    )
    for part in ("engine weights", "KV cache"):
        assert two.count * two.phases["generate"][part] == one.phases["generate"][part] > 0


def test_layouts_are_powers_of_two_up_to_what_is_there() -> None:
    found = on_h100("math_qwen_sft")
    shown = layouts(found, 16)
    assert [x.ranks for x in shown if not (x.engines or x.shard)] == [1, 2, 4, 8, 16]
    assert [(x.ranks, x.engines) for x in shown if x.engines] == [(1, 1), (1, 3), (1, 7), (2, 2), (4, 4)]
    assert [x.engines for x in layouts(found, 2) if x.engines] == [1]
    assert not any(x.engines for x in layouts(found, 1))
    assert layout_of(load("quickstart", ["devices=ranks"]).config, 4) == Layout(4)
    assert layout_of(load("quickstart", ["devices=ranks", "devices.ranks=2"]).config, 4) == Layout(2)


def test_ranks_that_nobody_counts_are_those_that_run_or_could_here_else_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ranks, beside = (
        load("quickstart", kind).config for kind in (["devices=ranks"], ["devices=apart", "devices.ranks=null"])
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert (layout_of(ranks, None), layout_of(beside, None)) == (Layout(3), Layout(2, 1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for config in (ranks, beside):
        with pytest.raises(UserError, match=r"devices.ranks=null: .* as in --gpus 8, or give devices.ranks"):
            layout_of(config, None)
    for name, value in {"RANK": "1", "WORLD_SIZE": "5", "MASTER_ADDR": "head"}.items():
        monkeypatch.setenv(name, value)
    assert (layout_of(ranks, None), layout_of(beside, None)) == (Layout(5), Layout(5, 1))


def test_a_layout_s_setting_is_read_as_that_layout() -> None:
    several = Layout(2, 2, 0), Layout(4, 3, 1, shard=2), Layout(2, 2, 1, spread=2)
    for layout in (Layout(), Layout(4), Layout(4, shard=1), Layout(8, shard=4), Layout(1, 3, 1), *several):
        assert layout_of(load("quickstart", layout.setting.split()).config, None) == layout
    assert layout_of(load("quickstart", ["devices=ranks", "devices.shard=4"]).config, 4) == Layout(4)
    with pytest.raises(UserError, match=r"devices.shard=3: 8 ranks"):
        layout_of(load("quickstart", ["devices=ranks", "devices.shard=3"]).config, 8)


def test_copies_of_the_weights_are_advised_where_they_fit_and_save_time() -> None:
    config = load("gkd_gsm8k").config
    found = forecast(config, card("l40s"), Layout(8), Lengths.of(config, 128, 64), "bfloat16")
    advised = [x for x in layouts(found, 8) if x.shard]
    assert Layout(8, shard=4) in advised
    for layout in advised:
        tried, whole = (forecast(config, found.card, x, found.lengths) for x in (layout, Layout(layout.ranks)))
        assert tried.fits
        assert tried.step < whole.step


def test_the_command_prints_tables_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = (save_model(tmp_path / n, "qwen3", seed=1, tied=True) for n in ("s", "t"))
    conf = save_config(tmp_path / "tiny.yaml", *models)
    assert cli_code(["plan", f"conf={conf}", "--gpu", "l40s", "--gpus", "2"]) == 0
    said = capsys.readouterr().out
    assert "memory of l40s" in said
    assert "devices=ranks devices.ranks=2" in said
    assert cli_code(["plan", f"conf={conf}", "--gpu", "l40s", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["fits"]
    assert record["devices"][0]["bytes"]["update"]["gradients"] > 0
    assert cli_code(["train", f"conf={conf}", "steps=3", "--dry-run"]) == 0
    assert f"opd plan conf={conf} steps=3" in capsys.readouterr().out
    assert cli_code(["plan", f"conf={conf}", "--gpu", "l41"]) == 2
    assert cli_code(["plan", f"conf={conf}", "--gpu", "l4", "--prompt", "inf"]) == 2
    assert cli_code(["plan", f"conf={conf}", "student.model=nobody/nothing", "--gpu", "l4"]) == 2
    assert "nobody/nothing" in capsys.readouterr().err
