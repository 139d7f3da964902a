"""Studies: every study in OUT, its progress and its trials; refreshes while something runs."""

from ...navigation import Page

PAGE = Page(
    __name__,
    title="Studies",
    icon="science",
    position=10,
    question="Which studies are there, how far are they, and what are their results so far?",
    is_live=True,
)
