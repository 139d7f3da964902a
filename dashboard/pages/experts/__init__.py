"""Experts: what each of them draws, and what they make of a doodle."""

from ...navigation import Page

PAGE = Page(
    __name__,
    title="Experts",
    icon="draw",
    position=60,
    question="What does each expert draw, and whom does the gate ask?",
)
