"""Trial: one trial's spec, curves, terms of the loss, cost, place and error, and all of it to take away."""

from ...navigation import Page

PAGE = Page(
    __name__,
    title="Trial",
    icon="labs",
    position=70,
    question="What did one trial do, where did it run, and what did it cost?",
)
