"""Overrides and paths that nobody can mean, as they are typed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tests.faults.bad_configs import DIGITS, LONG, typed
from tests.faults.inputs import Bad, Place


def cases() -> Iterator[Bad]:
    """All of them."""
    lines = ["a", "=", "=1", "a=", "optim.lr", "optim..lr=1", ".optim.lr=1", "optim.=1", "optim.lr=[", "optim.lr={",
        "optim.lr=${", "optim.lr=$", "optim.lr=\\",
             "optim.lr='", 'optim.lr="', "optim.lr=1,2", "optim.lr=range(1,3)", "optim.lr=choice(1,2)",
             "optim.lr=glob(*)", "optim.lr=interval(0,1)",
             "optim.lr=sort(3,2)", "optim.lr=int(x)", "optim.lr=json_str(1)", "++optim.lr=x", "+optim.lr=x", "~steps",
             "~nothing", "~optim", "~", "~=", "+=", "++",
             "@=1", "a@b=1", "data@x=everyday", "data=nothing", "data=", "data=../data/everyday", "data=/etc/passwd",
             "hydra.run.dir=x", "hydra=x", "defaults=[]",
             "+defaults=[a]", "optim=[adamw]", "optim={}", "optim=null", "_target_=os.system", "+_target_=x.Y",
             "steps=9" + DIGITS, f"optim.lr=1e{DIGITS}", f"{LONG}=1",
             f"optim.{LONG}=1", f"data={LONG}", "seed=" + "[" * 1000, "seed=" + "[" * 20_000,
             "seed=" + "[" * 1000 + "]" * 1000, "seed=" + "{a:" * 1000 + "1" + "}" * 1000,
             "seed=" + "(" * 5000, "seed=" + "a" * 120_000, "seed=" + "," * 5000, "seed=" + "${" * 2000,
             "seed=" + "\\" * 5001, "a." * 5000 + "b=1", "~" * 5000,
             "optim.betas[0]=1", "optim.betas.0=1", "optim.betas=[0.9]", "optim.betas=[a,b]", "optim.lr.x=1",
             "steps.x=1", "\ud800=1", "seed=\ud800", "seed=\x1b[2J",
             "\x1b[2J=1", "seed=\u202e1", "seed=１", "seed=1_0x", "seed=0x1G", "seed=nan", "optim.lr=inf",
             "optim.lr=-inf", "optim.lr=nan", "seed=1e3", "seed=true",
             "run=a", "conf=x", "conf=", "step=1", "model=x", "teacher=none", "teacher=nothing", "rollout=nothing",
             "student.lora.rank=0",
             "student.lora.rank=99999999999", "data.tasks={}", "data.tasks.arithmetic=null", "data.tasks.arithmetic=3",
             "data.tasks=[]", "data.tasks.x={_target_:x}",
             "student.model.x=1", "student.model=[a]", "student.model={_target_:opd.types.Pretrained}",
             "devices.ranks=99", "sampling.temperature=0",
             "student.device=cuda:99", "student.device=mps", "student.device=meta", "student.device=xla",
             "student.device=cpu:7x",
             "student.device=hpu", "student.attention=flash_attention_2", "student.attention=flash_attention_9",
             "student.attention=x", "teacher.attention=flash_attention_3",
             "teacher.attention=flex_attention:x", "student.attention=kernels-community/flash-attn",
             "teacher.device=vulkan", "teacher.device=cuda",
             "rollout=vllm rollout.x=1", "student.dtype=int8", "student.dtype=float64x", "student.dtype=complex64",
             "teacher.dtype=float8_e4m3fn"]  # fmt: skip
    fine = ("optim.lr=json_str(1)", "teacher=none", "run=a", "data.tasks={}", "seed=1e3", "~optim", "optim={}")
    for text in lines:
        yield Bad("overrides", text[:40], typed(text), harmless=text in fine)
    for text in (
        LONG,
        LONG * 20,
        "\ud800",
        "~nobodyhere/x.yaml",
        "/dev/null",
        "/dev/zero",
        "/proc/self/mem",
        ".",
        "..",
        "/",
        "a\x1b[2J",
        "a" * 10**5 + ".yaml",
        "\n",
        " ",
    ):
        yield Bad("paths", f"conf={text[:30]!r}", lambda _, t=text: ["train", f"conf={t}"])
    for place in ("run", "runs"):
        for text in (
            LONG,
            LONG * 20,
            "~nobodyhere/x",
            "/dev/null/x",
            "/proc/x",
            "/dev/full",
            "a/" * 3000,
            "\ud800",
            "/proc/1/root/x",
        ):
            yield Bad(
                "paths",
                f"{place}={text[:30]!r}",
                partial(_placed, f"{place}={text}"),
                harmless=text in ("~nobodyhere/x",),
            )


def _placed(text: str, place: Place) -> list[str]:
    return ["train", f"conf={place.config()}", text]
