"""Write the predicted tables of recipes/FULL_SIZE.md: `python -m tests.plan.full_size`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from opd.config.compose import load
from opd.config.settings import Config
from opd.plan.advice import mended
from opd.plan.cards import card
from opd.plan.forecast import Forecast, forecast
from opd.plan.layout import Layout
from opd.plan.work import Lengths

PAGE = Path(__file__).parents[2] / "recipes" / "FULL_SIZE.md"
BEGIN, END = "<!-- predicted: python -m tests.plan.full_size -->", "<!-- end of what is predicted -->"
CONFIGS = (
    "math_qwen_sft", "math_qwen", "math_qwen_full", "math_qwen_teachers", "personalize_qwen_documents",
    "personalize_qwen", "gold_countdown", "gkd_gsm8k", "minillm_dolly_sft", "minillm_dolly",
)  # fmt: skip
GIVEN = {"personalize_qwen_documents": ["data.tasks.documents.path=passages.jsonl"]}
"""Settings without which a config is none."""
CARD = "h100"
CURVE = tuple(2**k for k in range(11))
PROMPT, MEAN = 128, 0.25
"""Assumed tokens of a prompt, and share of `sampling.max_tokens` that completions take on average."""


def page() -> str:
    """FULL_SIZE.md with what is predicted now."""
    made = "\n".join([BEGIN, *table(), "", *curve(), END])
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: made, PAGE.read_text(), flags=re.DOTALL)


def predicted(config: Config, ranks: int) -> Forecast:
    """On so many H100, with the mean lengths that are assumed here."""
    lengths = Lengths.of(config, min(PROMPT, config.data.max_prompt_tokens), MEAN * config.sampling.max_tokens)
    return forecast(config, card(CARD), Layout(ranks), lengths, "bfloat16")


def fewest(config: Config) -> tuple[str, Forecast]:
    """The fewest GPUs that it fits on, as it is or with the nearest settings, which are named."""
    for ranks in CURVE:
        found = predicted(config, ranks)
        if found.fits:
            return "", found
        if better := mended(found, dearest=1):
            return better
    raise ValueError(f"{config.name} fits nowhere")


def three(value: float) -> str:
    """Three digits, in words of a table."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table() -> Iterator[str]:
    """A row a config: what one GPU would have to hold, and the fewest that do."""
    yield "| config | GB, all on one | of it exact | fewest H100 | with | s/step | GPU hours |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name in CONFIGS:
        config = load(name, GIVEN.get(name, [])).config
        (one, *_) = predicted(config, 1).devices
        exact = sum(one.phases["update"].get(part, 0) for part in ("weights", "gradients", "optimizer"))
        setting, found = fewest(config)
        cells = (
            f"`{name}`", f"{one.peak / 1e9:.0f}", f"{exact / 1e9:.1f}", str(found.gpus),
            f"`{setting}`" if setting else "", three(found.step), three(found.hours * found.gpus),
        )  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def curve() -> Iterator[str]:
    """`math_qwen` as it ships on 1 to 1,024 GPUs, in ranks."""
    config = load("math_qwen").config
    yield "| H100 | GB of each | fits | generate | score | update | s/step | hours | GPU hours | of linear scaling |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    best = 0.0
    for ranks in CURVE:
        found = predicted(config, ranks)
        held = found.hours * found.gpus
        best = best or (held if found.fits else 0.0)
        p = found.phases
        scaling = f"{best / held:.0%}" if best else ""
        cells = (
            f"{ranks:,}", f"{found.devices[0].peak / 1e9:.0f}", "yes" if found.fits else "no",
            *(f"{p[k]:,.0f}" for k in ("generate", "score", "update")), f"{found.step:,.0f}", f"{found.hours:,.1f}",
            f"{held:,.0f}", scaling,
        )  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Write them."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
