"""Trial: one trial's spec, curves, loss terms, cost, host and error, and their downloads."""

from ...navigation import Page

PAGE = Page(
    __name__,
    title="Trial",
    icon="labs",
    position=70,
    question="How did one trial train, where did it run, and what did it cost?",
    is_live=True,
)
