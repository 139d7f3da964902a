"""Search: what an Optuna search tried, what it found, and what mattered."""

from ...navigation import Page

PAGE = Page(
    __name__,
    title="Search",
    icon="manage_search",
    position=50,
    question="What was tried, what is best so far, and what mattered?",
)
