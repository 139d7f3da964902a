"""Studies: every study in OUT, how far it is, and its trials. Refreshes itself while something runs."""

from ...navigation import Page

PAGE = Page(
    __name__,
    title="Studies",
    icon="science",
    position=10,
    question="What was asked, how far is it, and how does the answer look so far?",
)
