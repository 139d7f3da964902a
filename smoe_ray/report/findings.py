"""Key findings of a study in plain sentences, shown first in the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from smoe_ray.analysis import ArmComparison, Difference, arm_summary, posterior_warning
from smoe_ray.columns import count, format_cell
from smoe_ray.errors import ResultsError
from smoe_ray.report.evidence import Evidence

_MOST_SENTENCES = 6
"""Per question; more are summarised as counts."""


class Finding(NamedTuple):
    """Sentences that answer one question."""

    question: str
    sentences: tuple[str, ...]


def findings(evidence: Evidence) -> Iterator[Finding]:
    """Recommended number of experts, comparison of arms, experts in use: each if the results allow; before them, the
    files that could not be read.
    """
    if evidence.problems:
        more = len(evidence.problems) - _MOST_SENTENCES
        yield Finding(
            "Left out: trials with unreadable files",
            evidence.problems[:_MOST_SENTENCES] + ((f"{more} more.",) if more > 0 else ()),
        )
    if evidence.has_several_datasets:
        yield Finding("Do several experts pay off on each dataset?", tuple(_datasets(evidence)))
    if evidence.notices:
        more = len(evidence.notices) - _MOST_SENTENCES
        yield Finding(
            "Older trials, and damaged files",
            evidence.notices[:_MOST_SENTENCES] + ((f"{more} more.",) if more > 0 else ()),
        )
    for question, say in (
        ("How many experts?", _recommended),
        ("Which arm is better?", _compared),
        ("Do the experts stay in use?", _alive),
    ):
        try:
            yield Finding(question, tuple(say(evidence)))
        except ResultsError as error:
            yield Finding(question, (f"No answer: {str(error).rstrip('.')}.",))
    if warning := posterior_warning(evidence.results):
        yield Finding("Is the latent vector in use?", (f"Warning: {warning}.",))


def _datasets(evidence: Evidence) -> list[str]:
    try:
        found = evidence.datasets
    except ResultsError as error:
        return [f"No answer: {str(error).rstrip('.')}."]
    return [*(verdict.sentence for verdict in found.verdicts), *([f"{found.caution}."] if found.caution else [])]


def _recommended(evidence: Evidence) -> list[str]:
    found = evidence.recommendations
    sentences = found.sentence.splitlines()
    more = len(sentences) - _MOST_SENTENCES
    return sentences[:_MOST_SENTENCES] + ([f"{count(more, 'more arm')}: see the table below."] if more > 0 else [])


def _compared(evidence: Evidence) -> list[str]:
    found = evidence.comparison
    if len(found.differences) <= _MOST_SENTENCES:
        return [verdict_sentence(difference, found.measure, found) for difference in found.differences]
    number = Counter(difference.verdict.partition(" (")[0] for difference in found.differences)
    told = ", ".join(f"{verdict} in {number[verdict]}" for verdict in ("lower", "higher", "not distinguishable"))
    return [
        f"Of {len(found.differences)} differences in {found.measure} from {found.reference}: {told} "
        f"(probability of any false verdict at most {100 * found.alpha:g} %)."
    ]


def verdict_sentence(difference: Difference, measure: str, of: ArmComparison) -> str:
    """A difference as a sentence: which arm is lower, by how much and how certainly, if any."""
    cell = "" if difference.label == "all trials" or len(of.differences) == 1 else f" at {difference.label}"
    runs = (
        f"{count(difference.n_arm, 'pair')} of the same seed"
        if difference.paired
        else f"{difference.n_arm} against {count(difference.n_reference, 'run')}"
    )
    means = [format_cell("mean_arm", mean) for mean in (difference.mean_arm, difference.mean_reference)]
    mean = f"mean {means[0]} against {means[1]}"
    if difference.interval == "none":
        return f"{difference.arm} and {difference.reference}{cell}: {difference.verdict}; {mean}, {runs}."
    ends = f"{format_cell('estimate', difference.low)} to {format_cell('estimate', difference.high)}"
    p = format_cell("p_holm", difference.p_holm)
    numbers = (
        f"{measure} {mean}, difference {format_cell('estimate', difference.estimate)} "
        f"({100 * difference.level:.3g} % interval {ends}), p {p if p.startswith('<') else f'= {p}'}, {runs}"
    )
    if not difference.distinguishable:
        return f"{difference.arm} and {difference.reference}{cell}: not distinguishable; {numbers}."
    return f"{difference.arm} is {difference.verdict} than {difference.reference}{cell}: {numbers}."


def _alive(evidence: Evidence) -> list[str]:
    summary = arm_summary(evidence.results)
    summary = summary[summary["finished"] > 0]
    if summary.empty:
        raise ResultsError("no finished trial")
    if len(summary) <= _MOST_SENTENCES:
        return [_kept(row) for row in summary.itertuples()]
    by_share = summary.assign(share=summary["active"] / summary["configured"]).sort_values("share", kind="stable")
    least, *_, most = by_share.itertuples()
    return [f"Lowest share of {len(summary)} arms: {_kept(least)}", f"Highest share: {_kept(most)}"]


def _kept(arm: Any) -> str:
    kept = format_cell("active", arm.active, arm.active_sd)
    return f"{arm.arm}: {kept} of {arm.configured:.0f} experts stay active (n = {arm.finished})."
