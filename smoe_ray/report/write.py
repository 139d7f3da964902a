"""Writing a report: figures and tables first, then the page that refers to them."""

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
from smoe_ray.report.findings import findings
from smoe_ray.report.page import (
    FigureItem,
    Page,
    RenderedSection,
    ReportedStudy,
    TableItem,
    inline_svg,
    render_page,
    table_item,
)
from smoe_ray.report.published import published_section
from smoe_ray.report.sections import Exhibit, Section, sections
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
    dataset: str | None = None,
) -> str:
    """Write ``index.html``, ``figures/*.svg|pdf`` and ``tables/*.csv`` below `to`; each atomically, the page last.

    Several studies are read as one table, so that their arms are compared (e.g. a study and its supervised baseline).
    The same results and versions give the same bytes.

    Args:
        out: folder or URI of the results.
        studies: names of studies in `out`; empty: all of them.
        to: folder or URI of the report, created if absent; files of the same name are replaced.
        compare: *published*: add a section with what arXiv:2509.10025 published.
        progress: called with a line about each unreadable file, and with the title of each section before it is made.
        dataset: name of the only dataset to report on; None: all.

    Returns:
        Path or URI of the page.

    Raises:
        ResultsError: no study, a study is absent or all its trials are unreadable, or `to` cannot be written.
    """
    studies = list(studies) or list_studies(out)
    if not studies:
        raise ResultsError(f"{out}: no study found; pass the folder given to 'smoe-ray run --out'")
    pages = Store(to)
    pages.refuse_file("choose another folder")
    evidence = Evidence(out, studies, dataset)
    for problem in evidence.problems:
        progress(f"left out: {problem}")
    for notice in evidence.notices:
        progress(f"note: {notice}")
    writer = _Writer(pages, progress)
    made = _how_it_was_made(evidence)
    page = Page(
        title=", ".join(studies),
        studies=tuple(
            ReportedStudy(study, evidence.question(study), file) for study, file in evidence.study_files.items()
        ),
        findings=tuple(findings(evidence)),
        sections=tuple(writer.show(section) for section in sections(evidence)),
        made_by=_commands(evidence, to, compare, dataset),
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
    """Makes exhibits and writes each to files in `store`."""

    def __init__(self, store: Store, progress: Callable[[str], None]) -> None:
        self.store = store
        self._progress = progress

    def show(self, section: Section) -> RenderedSection:
        """The section with the exhibits that could be made."""
        self._progress(f"{section.title} ...")
        items: list[FigureItem | TableItem] = []
        reasons: dict[str, list[str]] = {}
        for exhibit in section.exhibits:
            try:
                made = exhibit.make()
            except ResultsError as error:
                reasons.setdefault(str(error).rstrip("."), []).append(exhibit.title)
                continue
            items.append(self._table(exhibit, made) if isinstance(made, pd.DataFrame) else self._figure(exhibit, made))
        # If the whole section is absent, titles of exhibits are redundant.
        absent = tuple(f"{', '.join(titles)}: {reason}" if items else reason for reason, titles in reasons.items())
        anchor = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")
        return RenderedSection(anchor, section.title, section.reading if items else "", tuple(items), absent)

    def _figure(self, exhibit: Exhibit, figure: Figure) -> FigureItem:
        svg = render(figure, "svg")
        files = (f"figures/{exhibit.name}.svg", f"figures/{exhibit.name}.pdf")
        self.store.write(files[0], svg)
        self.store.write(files[1], render(figure, "pdf"))
        description = f"{exhibit.title}. {' '.join(figure.get_supxlabel().split())}"
        return FigureItem(exhibit.title, description, inline_svg(svg.decode(), exhibit.name, description), files)

    def _table(self, exhibit: Exhibit, frame: pd.DataFrame) -> TableItem:
        file = f"tables/{exhibit.name}.csv"
        self.store.write(file, to_csv(frame).encode())
        return table_item(exhibit.title, frame, (file,))


def _how_it_was_made(evidence: Evidence) -> Section:
    exhibits = [
        Exhibit("versions", "Software versions of the trials", lambda: tables.versions(evidence)),
        Exhibit("not-finished", "Unfinished trials, and why", lambda: tables.not_finished(evidence)),
    ]
    if any(record.imported is not None for record in evidence.records):
        title = "Imported trials: weights that were trained elsewhere"
        exhibits.append(Exhibit("imported", title, lambda: tables.imported(evidence)))
    return Section("Reproducibility", "", tuple(exhibits))


def _commands(evidence: Evidence, to: str | Path, compare: str | None, dataset: str | None) -> tuple[str, ...]:
    imports = [
        [
            "import-checkpoint",
            imported.file,
            f"{record.study}.yaml",
            "--out",
            evidence.out,
            "--seed",
            f"{record.spec.seed}",
        ]
        for record in evidence.records
        if (imported := record.imported) is not None
    ]
    imported_alone = {record.study for record in evidence.records}
    imported_alone -= {record.study for record in evidence.records if record.imported is None}
    runs = (
        ["run", f"{study}.yaml", "--out", evidence.out] for study in evidence.studies if study not in imported_alone
    )
    extra = [*(["--compare", compare] if compare else []), *(["--dataset", dataset] if dataset else [])]
    report = ["report", evidence.out, *evidence.studies, "--to", str(to), *extra]
    return tuple(shlex.join(["smoe-ray", *words]) for words in (*runs, *imports, report))
