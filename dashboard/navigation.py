"""The router: finds the pages below `pages/`, shows their menu and runs the one that the URL names."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

import streamlit as st

from . import load

if TYPE_CHECKING:
    from streamlit.navigation.page import Page as StreamlitPage

# Without an icon of our own, Streamlit has the browser fetch one from a font server.
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path d="M8 8 3 3M8 8h6M8 8l-5 5" stroke="#0072B2" '
    'stroke-width="1.5"/><g fill="#D55E00"><circle cx="3" cy="3" r="2"/><circle cx="14" cy="8" r="2"/>'
    '<circle cx="3" cy="13" r="2"/></g><circle cx="8" cy="8" r="3" fill="#0072B2"/></svg>'
)


# Streamlit's own space around a page is that of a slide, and its header offers to stop a page that is being drawn. A
# selected segment is written in the primary colour, which is too dark for that on a dark page.
CSS = """<style>
.stMainBlockContainer {padding: 2.25rem 2.5rem 3rem}
.stStatusWidget button {display: none}
[data-selected="true"] p {color: light-dark(#16181D, #FAFAFA)}
</style>"""


class Page(NamedTuple):
    """A page of the dashboard: what the menu shows, and where its code is."""

    package: str
    """Import name of the page's package; it gives ``__name__``."""
    title: str
    icon: str
    """Name of a Material Symbol."""
    position: int
    """Place in the menu, ascending. The first page is the one at ``/``."""
    question: str
    """What the page answers, in one line below its title."""
    is_live: bool = False
    """Whether the page is drawn again when a file of its study changes."""
    needs_cluster: bool = False
    """Shown only where the dashboard was started with ``--address``."""

    @property
    def name(self) -> str:
        """Name of the page's folder, and its path in the URL."""
        return self.package.rpartition(".")[2]

    @property
    def path(self) -> str:
        """What the URL has after the host's ``/``."""
        return "" if self == pages()[0] else self.name

    def show(self) -> None:
        """Draw the page. Its view is imported here, so that no page waits for what another one imports."""
        import_module(f"{self.package}.view").show()

    def for_streamlit(self) -> StreamlitPage:
        """The page as `st.navigation` and `st.page_link` take it."""
        icon = f":material/{self.icon}:"
        return st.Page(self.show, title=self.title, icon=icon, url_path=self.name, default=self == pages()[0])


@cache
def pages() -> tuple[Page, ...]:
    """All pages, in the order of the menu."""
    package = import_module(f"{__package__}.pages")
    folders = [module.name for module in pkgutil.iter_modules(package.__path__)]
    found: list[Page] = [import_module(f"{package.__name__}.{folder}").PAGE for folder in folders]
    return tuple(sorted(found, key=lambda page: page.position))


def page(name: str) -> Page:
    """The page in folder `name`."""
    return next(one for one in pages() if one.name == name)


def run() -> None:
    """Show the menu and the page of the URL."""
    st.set_page_config(page_title="smoe-ray", page_icon=ICON, layout="wide", initial_sidebar_state=230)
    st.html(CSS)
    has_cluster = load.address() is not None
    shown = [one.for_streamlit() for one in pages() if has_cluster or not one.needs_cluster]
    st.navigation(shown).run()
