"""Which trials of a study belong together: those of its present data, numerics and plug-ins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from smoe_ray.columns import count
from smoe_ray.results.record import TrialRecord


def current_trials(records: Iterable[TrialRecord]) -> tuple[list[TrialRecord], list[str]]:
    """The trials that may be averaged with the newest one, in the given order, and one line per reason for others.

    A trial is left out if a trial that started later has other data under the same `data` of its spec, another
    ``versions.numerics``, or another version of one of its plug-ins. (Trials of other specs, such as those of an
    earlier version of the study's axes, are other arms, and stay.)
    """
    given = [(record, _made_of(record)) for record in records]
    newest: dict[tuple[str, str], str] = {}
    for _, made_of in sorted(given, key=lambda pair: pair[0].timings.started_at):
        newest |= made_of
    kept, reasons = [], Counter[str]()
    for record, made_of in given:
        changed = [what for (what, name), made in made_of.items() if newest[what, name] != made]
        if changed:
            reasons[changed[0]] += 1
        else:
            kept.append(record)
    return kept, [f"{count(number, 'older trial')} left out: {_WHY[what]}" for what, number in reasons.items()]


_WHY = {
    "data": "the data have changed since",
    "numerics": "another version of smoe-ray computed them, whose numbers differ (versions.numerics)",
    "plugin": "a plug-in has changed since",
}


def _made_of(record: TrialRecord) -> dict[tuple[str, str], str]:
    """What a trial's numbers come from beside its spec: (what, its name) -> version."""
    made = {("numerics", ""): str(record.versions.numerics)}
    if record.data is not None:
        made["data", record.spec.data.model_dump_json()] = record.data.fingerprint
    return made | {("plugin", name): version for name, version in record.versions.plugins.items()}
