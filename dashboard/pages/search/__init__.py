"""Search: what an Optuna search tried, what it found, and what mattered."""

from ...navigation import Page

PAGE = Page(
    __name__,
    title="Search",
    icon="manage_search",
    position=50,
    question="What has been tried, what is best so far, and which parameters matter?",
    is_live=True,
)
