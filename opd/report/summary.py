"""What happened in a run, in a few sentences: a change is called one where it is larger than its noise."""

from __future__ import annotations

from opd.console import figures
from opd.console.tables import accuracy
from opd.report.record import Record
from opd.run.course import Row, course
from opd.run.health import ERRORS
from opd.run.results import unequal


def told(record: Record) -> str:
    """How far it came, what became of the divergence, and of what is right."""
    return " ".join(filter(None, (_taken(record), _divergence(record), _right(record))))


def _taken(r: Record) -> str:
    objective, source = (r.settings.get(f"{part}._target_", "").rpartition(".")[2] for part in ("objective", "source"))
    method = f" of {objective} on what {source} gives" if objective and source else ""
    cost = {"cost/total_s": figures.seconds, "cost/update_tokens": lambda v: f"{figures.count(v)} tokens trained"}
    spent = [write(r.last[name]) for name, write in cost.items() if name in r.last]
    return (
        f"{r.last['step']:g} of {r.settings.get('steps', '?')} steps{method}{': ' if spent else ''}{', '.join(spent)}."
    )


def _divergence(r: Record) -> str:
    name = "kl/exact" if any("kl/exact" in row for row in r.rows) else "kl/sampled"
    kl = course(r.rows, name)
    if kl is None:
        there = [row[name] for row in r.rows if name in row]
        return f"Reverse KL was last {there[-1]:.3g} nats a token; so few steps show no trend." if there else ""
    if abs(kl.last - kl.start) <= ERRORS * kl.spread and abs(kl.last - kl.first) <= ERRORS * kl.error:
        return f"Reverse KL stayed where it was, at {kl.last:.3g} nats a token."
    way = "fell" if kl.last < kl.start else "rose"
    return f"Reverse KL {way} from {kl.start:.3g} to {kl.last:.3g} nats a token (mean of the last fifth of the steps)."


def _right(r: Record) -> str:
    rows = [row for row in r.rows if "eval/accuracy" in row]
    if not rows:
        return _reward(r)
    if len(rows) == 1 or unequal(r.measured):
        why = "; it was measured in other ways before" if len(rows) > 1 else ""
        return f"Accuracy on held-out prompts is {accuracy(rows[-1])} at step {rows[-1]['step']:g}{why}."
    first, last = rows[0], rows[-1]
    ends = f"{accuracy(first)} to {accuracy(last)}"
    if _apart(first, last):
        way = "rose" if last["eval/accuracy"] > first["eval/accuracy"] else "fell"
        return f"Accuracy on held-out prompts {way} from {ends}."
    return f"Accuracy on held-out prompts did not change beyond its 95% interval: {ends}."


def _apart(one: Row, other: Row) -> bool:
    """Whether the intervals of two evaluations have nothing in common."""
    ends = [(row.get("eval/accuracy_low"), row.get("eval/accuracy_high")) for row in (one, other)]
    (low, high), (least, most) = ends
    if low is None or high is None or least is None or most is None:
        return False
    return high < least or most < low


def _reward(r: Record) -> str:
    reward = course(r.rows, "rollout/reward")
    if reward is None:
        return ""
    if abs(reward.last - reward.first) <= ERRORS * reward.error:
        return f"The reward stayed where it was, at {reward.last:.3g}."
    return f"The reward went from {reward.first:.3g} to {reward.last:.3g}, means of the first and last fifth."
