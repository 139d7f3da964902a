"""Experts: what each expert reconstructs, and how a doodle or another image is routed."""

from ...navigation import Page

PAGE = Page(
    __name__,
    title="Experts",
    icon="draw",
    position=60,
    question="What does each expert draw, and which expert does the gate choose?",
)
