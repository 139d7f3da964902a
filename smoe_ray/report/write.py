"""Writing a report: figures and tables first, the page that shows them last."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from smoe_ray.errors import ResultsError
from smoe_ray.figures import render
from smoe_ray.published import TABLES, read_file
from smoe_ray.report import tables
from smoe_ray.report.evidence import Evidence
from smoe_ray.report.page import Asked, Page, Picture, Sheet, Shown, inline_svg, render_page, sheet
from smoe_ray.report.published import published_section
from smoe_ray.report.sections import Exhibit, Section, sections
from smoe_ray.report.verdicts import verdicts
from smoe_ray.results import Store, list_studies, to_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "index.html"


def write_report(
    out: str | Path,
    studies: Sequence[str],
    to: str | Path,
    compare: Literal["published"] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> str:
    """Write ``index.html``, ``figures/*.svg|pdf`` and ``tables/*.csv`` below `to`; each appears whole, the page last.

    Several studies are read as one table, so that their arms are compared (a study and its supervised baseline). The
    same results give the same bytes, with the same versions.

    Args:
        out: folder or URI of the results.
        studies: names of studies in `out`; none: all of them.
        to: folder or URI of the report, made when absent; files of the same name are replaced.
        compare: *published*: add a section with what arXiv:2509.10025 published.
        progress: is called with a line about each unreadable file, and before each section is made.

    Returns:
        Where the page is.

    Raises:
        ResultsError: no study, a study is absent or all its trials are unreadable, or `to` cannot be written.
    """
    studies = list(studies) or list_studies(out)
    if not studies:
        raise ResultsError(f"{out}: no study there; name the folder that 'smoe-ray run --out' was given")
    evidence = Evidence(out, studies)
    for problem in evidence.problems:
        progress(f"left out: {problem}")
    writer = _Writer(Store(to), progress)
    made = _how_it_was_made(evidence)
    page = Page(
        title=", ".join(studies),
        asked=tuple(Asked(study, evidence.question(study), file) for study, file in evidence.study_files().items()),
        verdicts=tuple(verdicts(evidence)),
        sections=tuple(writer.show(section) for section in sections(evidence)),
        made_by=_commands(evidence, to, compare),
        made=writer.show(made),
        version=importlib.metadata.version("smoe-ray"),
    )
    if compare is not None:
        page = page._replace(sections=(*page.sections, writer.show(published_section())))
        for name in TABLES:
            writer.store.write(f"tables/published/{name}", read_file(name))
    writer.store.write(PAGE, render_page(page).encode())
    return writer.store.path(PAGE)


class _Writer:
    """Makes exhibits, and keeps each as files below `store`."""

    def __init__(self, store: Store, progress: Callable[[str], None]) -> None:
        self.store = store
        self._progress = progress

    def show(self, section: Section) -> Shown:
        """The section with what could be made of it."""
        self._progress(f"{section.title} ...")
        items: list[Picture | Sheet] = []
        reasons: dict[str, list[str]] = {}
        for exhibit in section.exhibits:
            try:
                made = exhibit.make()
            except ResultsError as error:
                reasons.setdefault(str(error).rstrip("."), []).append(exhibit.title)
                continue
            items.append(self._table(exhibit, made) if isinstance(made, pd.DataFrame) else self._figure(exhibit, made))
        # Where the whole section is absent, the reasons say it all.
        absent = tuple(f"{', '.join(titles)}: {reason}" if items else reason for reason, titles in reasons.items())
        anchor = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")
        return Shown(anchor, section.title, section.reading if items else "", tuple(items), absent)

    def _figure(self, exhibit: Exhibit, figure: Figure) -> Picture:
        svg = render(figure, "svg")
        files = (f"figures/{exhibit.name}.svg", f"figures/{exhibit.name}.pdf")
        self.store.write(files[0], svg)
        self.store.write(files[1], render(figure, "pdf"))
        description = f"{exhibit.title}. {' '.join(figure.get_supxlabel().split())}"
        return Picture(exhibit.title, description, inline_svg(svg.decode(), exhibit.name, description), files)

    def _table(self, exhibit: Exhibit, frame: pd.DataFrame) -> Sheet:
        file = f"tables/{exhibit.name}.csv"
        self.store.write(file, to_csv(frame).encode())
        return sheet(exhibit.title, frame, (file,))


def _how_it_was_made(evidence: Evidence) -> Section:
    return Section(
        "How this was made",
        "",
        (
            Exhibit("versions", "Versions that made the trials", lambda: tables.versions(evidence)),
            Exhibit("not-finished", "Trials that are not finished, and why", lambda: tables.not_finished(evidence)),
        ),
    )


def _commands(evidence: Evidence, to: str | Path, compare: str | None) -> tuple[str, ...]:
    runs = (["run", f"{study}.yaml", "--out", evidence.out] for study in evidence.studies)
    extra = ["--compare", compare] if compare else []
    report = ["report", evidence.out, *evidence.studies, "--to", str(to), *extra]
    return tuple(shlex.join(["smoe-ray", *words]) for words in (*runs, report))
