"""Key findings of a study in plain sentences, shown first in the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from smoe_ray.analysis import (
    ArmComparison,
    Difference,
    arm_summary,
    arms,
    compare_style_agreement,
    expert_deaths,
    experts_per_style,
    posterior_warning,
    style_agreements,
)
from smoe_ray.columns import count, format_cell, listed
from smoe_ray.errors import ResultsError
from smoe_ray.report.evidence import Evidence

if TYPE_CHECKING:
    import pandas as pd

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
        yield Finding("Left out: trials with unreadable files", _first(evidence.problems))
    if evidence.has_several_datasets:
        yield Finding("Do several experts pay off on each dataset?", tuple(_datasets(evidence)))
    if evidence.notices:
        yield Finding("Older trials, and damaged files", _first(evidence.notices))
    by_label = (("Does unsupervised routing beat routing by label?", _label_routing),)
    for question, say in (
        ("How many experts?", _recommended),
        *(by_label if evidence.has_label_routing else ()),
        ("Which arm is better?", _compared),
        *((("What do the two layers of a hierarchical gate divide?", _trees),) if evidence.has_trees else ()),
        *((("Do experts follow styles?", _styles),) if evidence.has_styles else ()),
        ("Do the experts stay in use?", _alive),
        *((("What do the experts encode (arXiv:2605.20610)?", _encoding),) if evidence.has_probes else ()),
    ):
        try:
            yield Finding(question, tuple(say(evidence)))
        except ResultsError as error:
            yield Finding(question, (f"No answer: {str(error).rstrip('.')}.",))
    if warning := posterior_warning(evidence.results):
        yield Finding("Is the latent vector in use?", (f"Warning: {warning}.",))


def _first(lines: tuple[str, ...]) -> tuple[str, ...]:
    more = len(lines) - _MOST_SENTENCES
    return lines[:_MOST_SENTENCES] + ((f"{more} more.",) if more > 0 else ())


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


def _label_routing(evidence: Evidence) -> list[str]:
    return list(evidence.label_routing.sentences)


def _compared(evidence: Evidence) -> list[str]:
    return [*_differences(evidence.comparison), *_changed_margin(evidence)]


def _trees(evidence: Evidence) -> list[str]:
    return [f"{arm}: {tree.sentence}." for arm, tree in evidence.tree_routings.items()]


def _encoding(evidence: Evidence) -> list[str]:
    found = evidence.encoding_findings
    arm = "" if len(found) == 1 else "{}: "
    return [f"{arm.format(label)}{finding.sentence}" for label, three in found.items() for finding in three]


def _styles(evidence: Evidence) -> list[str]:
    sentences = [f"{line.sentence}." for line in experts_per_style(evidence.with_styles)]
    agreements = style_agreements(evidence.with_styles)
    if len(agreements) == 1:
        [arm] = agreements
        return [*sentences, f"{arm.label}: AMI of experts with styles {arm.style_ami}, n = {arm.style_ami.n}."]
    return [*sentences, *_differences(compare_style_agreement(evidence.with_styles), "AMI of experts with styles")]


def _changed_margin(evidence: Evidence) -> list[str]:
    margins = Counter(record.equivalence_margin for record in evidence.records if record.status == "finished")
    now = evidence.equivalence_margin
    earlier = {margin: trials for margin, trials in margins.items() if margin != now}
    if now is None or not earlier:
        return []
    told = listed(
        f"{count(trials, 'trial')} with {'none' if margin is None else f'{margin:g}'}"
        for margin, trials in earlier.items()
    )
    return [f"The margin of equivalence, {now:g}, was not fixed before the study ran: {told} had finished."]


def _differences(found: ArmComparison, measure: str | None = None) -> list[str]:
    measure = measure or found.measure
    if len(found.differences) <= _MOST_SENTENCES:
        return [verdict_sentence(difference, measure, found) for difference in found.differences]
    number = Counter(difference.verdict.partition(" (")[0] for difference in found.differences)
    rarer = [verdict for verdict in ("equivalent", "cannot tell") if number[verdict]]
    verdicts = ("lower", "higher", "not distinguishable", *rarer)
    told = ", ".join(f"{verdict} in {number[verdict]}" for verdict in verdicts)
    return [
        f"Of {len(found.differences)} differences in {measure} from {found.reference}: {told} "
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
    mean = f"{measure} mean {means[0]} against {means[1]}"
    if difference.interval == "none":
        return f"{difference.arm} and {difference.reference}{cell}: {difference.verdict}; {mean}, {runs}."
    ends = f"{format_cell('estimate', difference.low)} to {format_cell('estimate', difference.high)}"
    p = format_cell("p_holm", difference.p_holm)
    numbers = (
        f"{mean}, difference {format_cell('estimate', difference.estimate)} "
        f"({100 * difference.level:.3g} % interval {ends}), p {p if p.startswith('<') else f'= {p}'}, {runs}"
    )
    if not difference.distinguishable:
        return f"{difference.arm} and {difference.reference}{cell}: {difference.verdict}; {numbers}."
    return f"{difference.arm} is {difference.verdict} than {difference.reference}{cell}: {numbers}."


def _alive(evidence: Evidence) -> list[str]:
    summary = arm_summary(evidence.results)
    summary = summary[summary["finished"] > 0]
    if summary.empty:
        raise ResultsError("no finished trial")
    summary = summary.join(_not_alive(evidence.results), on="arm")
    if len(summary) <= _MOST_SENTENCES:
        return [_kept(row) for row in summary.itertuples()]
    by_share = summary.assign(share=summary["active"] / summary["configured"]).sort_values("share", kind="stable")
    least, *_, most = by_share.itertuples()
    return [f"Lowest share of {len(summary)} arms: {_kept(least)}", f"Highest share: {_kept(most)}"]


def _kept(arm: Any) -> str:
    kept = format_cell("active", arm.active, arm.active_sd)
    ends = ((arm.dead, "died"), (arm.never_used, "were never used"))
    others = "".join(f", {format_cell('active', mean)} {end}" for mean, end in ends if mean > 0)
    return f"{arm.arm}: {kept} of {arm.configured:.0f} experts are active at the end{others} (n = {arm.finished})."


def _not_alive(results: pd.DataFrame) -> pd.DataFrame:
    """By arm, the mean number of experts per finished trial that died, and that were never used."""
    experts = expert_deaths(results[results["status"] == "finished"], arms(results))
    by_arm = experts.assign(dead=experts["state"] == "dead", never_used=experts["state"] == "never used").groupby(
        "arm", observed=True
    )
    return by_arm[["dead", "never_used"]].sum().div(by_arm["trial_id"].nunique(), axis=0)
