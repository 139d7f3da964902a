"""The pages, one file each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from streamlit.navigation.page import Page

_HERE = Path(__file__).parent


class View(NamedTuple):
    """A page: file ``views/<name>.py``, at the URL ``/<name>``, the first one at ``/``."""

    name: str
    title: str
    icon: str

    @property
    def path(self) -> str:
        """What the URL has after the host's ``/``."""
        return "" if self.name == VIEWS[0].name else self.name


VIEWS = (
    View("studies", "Studies", "science"),
    View("loss_surface", "Loss surface", "landscape"),
    View("routing", "Routing comparisons", "alt_route"),
    View("collapse", "Collapse", "trending_down"),
    View("search", "Search", "manage_search"),
    View("experts", "Experts", "draw"),
    View("trial", "Trial", "labs"),
    View("submit", "Submit", "upload"),
)
"""In the order of the menu; the first is the page at the root."""


def pages(with_submit: bool) -> list[Page]:
    """What `st.navigation` takes."""
    import streamlit as st

    return [
        st.Page(
            _HERE / f"{view.name}.py",
            title=view.title,
            icon=f":material/{view.icon}:",
            url_path=view.name,
            default=view is VIEWS[0],
        )
        for view in VIEWS
        if with_submit or view.name != "submit"
    ]
