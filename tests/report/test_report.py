"""The report as a reader gets it: one page that needs nothing else, every section there or its reason, files beside."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from smoe_ray.columns import COLUMNS, format_cell
from smoe_ray.errors import ResultsError
from smoe_ray.report import tables, write_report
from smoe_ray.report.evidence import Evidence
from smoe_ray.report.findings import findings
from smoe_ray.report.page import table_item
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.testing.toy_training import Toy, toy_grid
from support.planted_folder import plant

VOID = {"meta", "br", "image", "path", "use", "rect", "link"}


class Checked(HTMLParser):
    """Collects what a browser would fetch, ids, headings and text; fails on tags that do not close."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name == "href" and tag == "a":
                self.links.append(value or "")
            elif name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.fetched.append(value or "")
            assert not name.startswith("on")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "title"):
            self.text += f" {' '.join(data.split())}"


def section(page: str, anchor: str) -> str:
    found = re.search(rf'<section id="{anchor}">.*?</section>', page, re.DOTALL)
    assert found is not None, f"no section {anchor}"
    return found[0]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Report of two objectives at three seeds, one trial failed and one pruned."""
    out = tmp_path_factory.mktemp("small")
    ends = ({"status": "failed", "error": "the loss diverged in epoch 2", "error_kind": "DivergedError"},)
    ends += ({"status": "pruned", "reason": "worse than the median"},)
    plant(out / "out", "small", experts=(4,), ends=ends)
    page = write_report(out / "out", [], out / "report")
    return out / "report", Path(page).read_text()


def test_the_page_is_whole_and_fetches_nothing(small: tuple[Path, str]) -> None:
    _, page = small
    seen = Checked(page)
    assert "script" not in seen.tags
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in seen.fetched)
    assert "://" not in page
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", page)
    assert not re.search(r"@import|<link|<iframe", page)


def test_ids_are_unique_and_every_reference_inside_the_page_leads_somewhere(small: tuple[Path, str]) -> None:
    _, page = small
    seen = Checked(page)
    assert len(seen.ids) == len(set(seen.ids))
    inside = [value[1:] for value in (*seen.fetched, *seen.links) if value.startswith("#")]
    inside += re.findall(r"url\(#([\w-]+)\)", page)
    assert len(inside) > 100
    assert set(inside) <= set(seen.ids)


def test_every_linked_file_is_there_and_every_file_is_linked(small: tuple[Path, str]) -> None:
    folder, page = small
    linked = {link for link in Checked(page).links if not link.startswith("#")}
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"index.html"}
    assert linked == there
    assert {path.rpartition(".")[2] for path in there} == {"svg", "pdf", "csv"}
    for path in folder.rglob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF")


def test_sections_are_there_or_say_why_not(small: tuple[Path, str]) -> None:
    _, page = small
    for anchor, figures in {
        "arms": 1, "loss-against-experts-data-and-samples": 1, "comparison-of-arms": 1, "collapse-of-experts": 3,
        "routing-against-classes": 2, "what-can-be-read-from-the-latent-space": 3, "images-by-expert": 6,
    }.items():  # fmt: skip
        assert section(page, anchor).count("<svg") == figures, anchor
        assert "How to read this." in section(page, anchor)
    assert "vary data.fraction" in section(page, "loss-against-experts-data-and-samples")
    for anchor, why in {
        "recommended-number-of-experts": "a fit needs 4 counts of active experts",
        "homogeneity": "no finished trials of 1 expert",
    }.items():
        assert "<svg" not in section(page, anchor)
        assert "How to read this." not in section(page, anchor)
        assert re.search(f"Not shown: .*{why}", section(page, anchor))
    assert "published" not in page


def test_the_verdict_stands_first(small: tuple[Path, str]) -> None:
    _, page = small
    text = Checked(page).text
    places = [text.index(word) for word in ("Does it hold?", "How many experts?", "Which arm is better?", "Arms")]
    assert places == sorted(places)
    assert "the study cannot tell the best number of active experts" in text[: places[-1]]
    assert "of 4 experts are active at the end" in text[: places[-1]]


def test_how_it_was_made_is_told(small: tuple[Path, str]) -> None:
    folder, page = small
    made = Checked(section(page, "reproducibility")).text
    assert f"smoe-ray run small.yaml --out {folder.parent / 'out'}" in made
    assert f"smoe-ray report {folder.parent / 'out'} small --to {folder}" in made
    assert "2.9.9" in made
    assert 'question: "Does it hold?"' in made
    assert "the loss diverged in epoch 2" in made
    assert "worse than the median" in made
    frame = pd.read_csv(folder / "tables" / "not-finished.csv")
    assert frame["status"].tolist() == ["failed", "pruned"]


def test_tables_beside_the_page_are_those_on_it(small: tuple[Path, str]) -> None:
    folder, page = small
    paths = list((folder / "tables").glob("*.csv"))
    assert {"arms", "differences", "agreements", "separability", "half-lives"} <= {path.stem for path in paths}
    for path in paths:
        frame = pd.read_csv(path, keep_default_na=True, dtype={"trial_id": str})
        block = re.search(rf'href="tables/{path.name}".*?</table>', page, re.DOTALL)
        assert block is not None
        rows = [
            [re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<td.*?</td>", row)]
            for row in re.findall(r"<tr>(.*?)</tr>", block[0])[1:]
        ]
        names = [name for name in frame.columns if not name.endswith("_sd")]
        assert len(rows) == len(frame)
        for row, record in zip(rows, frame.to_dict("records"), strict=True):
            assert len(row) == len(names)
            for cell, name in zip(row, names, strict=True):
                if isinstance(record[name], float | int) and not pd.isna(record[name]):
                    assert cell.startswith(format_cell(name, record[name]).replace("<", "&lt;")), (path.name, name)


def test_the_same_results_give_the_same_page(tmp_path: Path) -> None:
    plant(tmp_path / "out", "twice", objectives=("blend",), experts=(3,), seeds=1, embeddings=False)
    first = Path(write_report(tmp_path / "out", ["twice"], tmp_path / "report")).read_bytes()
    assert Path(write_report(tmp_path / "out", ["twice"], tmp_path / "report")).read_bytes() == first


def test_what_others_wrote_is_text_and_never_markup(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>--><!--{{ 7 * 7 }}</style>&amp;"
    ends = ({"status": "failed", "error": hostile}, {"status": "pruned", "reason": hostile})
    plant(
        tmp_path / "out", "hostile", objectives=("blend",), experts=(3,), seeds=3,
        question=hostile, class_names=(hostile, "$x^2$", "eye"), ends=ends,
    )  # fmt: skip
    page = Path(write_report(tmp_path / "out", [], tmp_path / "report")).read_text()
    seen = Checked(page)
    assert "<script" not in page
    assert "img" not in seen.tags
    assert "{{ 7 * 7 }}" in seen.text
    assert seen.text.count("<script>alert(1)</script>") >= 4


def test_a_fitted_surface_gives_a_recommendation(tmp_path: Path) -> None:
    plant(
        tmp_path / "out", "surface", objectives=("likelihood",), experts=(2, 4, 8, 16),
        per_class=(50, 200, 800), seeds=2, embeddings=False,
    )  # fmt: skip
    page = Path(write_report(tmp_path / "out", ["surface"], tmp_path / "report")).read_text()
    assert section(page, "recommended-number-of-experts").count("<svg") == 3
    assert "by a fit to 24 runs" in Checked(page).text.partition("Arms")[0]
    assert section(page, "loss-against-experts-data-and-samples").count("<svg") == 3
    close = section(page, "routing-against-classes")
    assert "embeddings.npz: no such file" in close
    assert "Error on amounts left out of the fit: held-out error: too few amounts" in page


def test_arms_are_called_equivalent_within_the_margin_and_a_margin_set_afterwards_is_told(tmp_path: Path) -> None:
    axes = {"training.learning_rate": [1.0e-3, 1.001e-3]}

    def said(**changes: object) -> str:
        run_study(toy_grid(axes=axes, **changes), tmp_path / "out", LocalExecutor(fit=Toy()))
        page = Path(write_report(tmp_path / "out", [], tmp_path / "report")).read_text()
        return " ".join(Checked(page).text.split("Arms")[0].split())

    assert "equivalen" not in said(seeds=[0, 1, 2])
    later = said(seeds=[0, 1, 2, 3], equivalence_margin=5.0)
    assert "equivalent (within ±5)" in later
    assert "The margin of equivalence, 5, was not fixed before the study ran: 6 trials with none had finished." in later


@pytest.mark.slow
def test_published_results_stand_apart(tmp_path: Path) -> None:
    plant(tmp_path / "out", "mine", experts=(3,), seeds=1, embeddings=False)
    plain = Path(write_report(tmp_path / "out", [], tmp_path / "plain")).read_text()
    page = Path(write_report(tmp_path / "out", [], tmp_path / "report", compare="published")).read_text()
    anchor = "published-results-of-arxiv-2509-10025-not-of-this-study"
    published = section(page, anchor)
    for number in ("17.72", "15.96", "15.69", "16.56"):
        assert number in published
    # What is above it is the same as without it.
    start = '<section id="arms">'
    assert page.partition(start)[2].partition(f'<section id="{anchor}">')[0].strip() == (
        plain.partition(start)[2].partition('<section id="reproducibility">')[0].strip()
    )
    files = sorted(path.name for path in (tmp_path / "report" / "tables" / "published").iterdir())
    assert files == [
        "loss_surface_cells.csv",
        "other_datasets.csv",
        "supervised_test_loss.csv",
        "test_loss_per_epoch.csv",
    ]


def test_studies_are_read_as_one_table_and_no_trial_counts_twice(tmp_path: Path) -> None:
    plant(tmp_path / "out", "one", objectives=("blend",), experts=(3,), embeddings=False)
    plant(tmp_path / "out", "two", objectives=("blend",), experts=(3,), embeddings=False)  # the same trials
    plant(tmp_path / "out", "base", objectives=("blend",), experts=(3,), routing="supervised", embeddings=False)
    page = Path(write_report(tmp_path / "out", ["one", "two", "base"], tmp_path / "report")).read_text()
    arms = pd.read_csv(tmp_path / "report" / "tables" / "arms.csv")
    assert arms["finished"].tolist() == [3, 3]
    assert re.search(r'aria-label="Training curves\. mean ± s\.d\. over runs, n = 3"', page)
    assert "supervised" in section(page, "comparison-of-arms")
    assert "cannot tell (no spread between pairs)" in Checked(page).text.partition("Arms")[0]  # equal by plan


def test_a_study_without_a_finished_trial_still_has_a_page(tmp_path: Path) -> None:
    plant(tmp_path / "out", "dead", seeds=1, experts=(3,), ends=[{"status": "failed", "error": "no"}] * 2)
    page = Path(write_report(tmp_path / "out", [], tmp_path / "report")).read_text()
    assert "no finished trial (2 failed)" in section(page, "routing-separability-maps-and-galleries")


def test_what_cannot_be_read_or_written_leaves_no_page(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no study found"):
        write_report(tmp_path / "out", [], tmp_path / "report")
    plant(tmp_path / "out", "real", seeds=1, experts=(3,), embeddings=False)
    with pytest.raises(ResultsError, match="no such study"):
        write_report(tmp_path / "out", ["absent"], tmp_path / "report")
    (tmp_path / "taken").touch()
    with pytest.raises(ResultsError, match=r"taken: is a file; choose another folder$"):
        write_report(tmp_path / "out", ["real"], tmp_path / "taken")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "figures").touch()
    with pytest.raises(ResultsError, match="cannot be written"):
        write_report(tmp_path / "out", [], tmp_path / "report")
    assert not (tmp_path / "report" / "index.html").exists()


def test_cells_are_written_for_reading() -> None:
    frame = pd.DataFrame({"arm": ["a"], "loss": [1.0], "loss_sd": [float("nan")], "p": [0.0001], "control": [True]})
    assert [cell.text for cell in table_item("t", frame, ()).rows[0]] == ["a", "1.00", "< 0.001", "yes"]
    assert format_cell("loss", 2.0, 0.5) == "2.00 ± 0.50"
    assert format_cell("estimate", -2.0) == "\N{MINUS SIGN}2.00"
    assert format_cell("share", 0.5) == "50 %"
    assert format_cell("half_life", float("inf")) == "never"
    assert format_cell("loss", float("nan")) == "\N{EN DASH}"
    assert not {name for name in COLUMNS if name.endswith("_sd") and name != "basin_sd"}


def test_what_the_layers_of_a_hierarchical_gate_divide_is_told_where_there_is_one(tmp_path: Path) -> None:
    plant(tmp_path, "tree", objectives=("likelihood",), experts=(6,), styles=2, groups=3)
    plant(tmp_path, "flat-gate", objectives=("likelihood",), experts=(6,), styles=2)
    evidence = Evidence(tmp_path, ["tree", "flat-gate"])
    told = {finding.question: finding.sentences for finding in findings(evidence)}
    [tree] = told["What do the two layers of a hierarchical gate divide?"]
    assert re.match(r"hierarchical gate: layer one agrees with classes \(AMI 0\.\d+ \(0\.\d+ to [01]\.\d+\); ", tree)
    assert "; layer two agrees with styles (" in tree
    [styles] = told["Do experts follow styles?"]
    assert "AMI of experts with styles mean 0." in styles
    assert tables.tree_routings(evidence)["expert_groups"].tolist() == [3]
    frame = tables.style_agreements(evidence)
    assert frame["arm"].tolist() == ["hierarchical gate", "mlp gate"]
    assert frame["styles"].tolist() == [6, 6]
    assert (frame["style_ami"] > frame["class_ami"]).all()
    flat = Evidence(tmp_path, ["flat-gate"])
    assert "What do the two layers of a hierarchical gate divide?" not in {each.question for each in findings(flat)}
