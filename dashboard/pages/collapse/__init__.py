"""Collapse: which experts stay in use, which die and when, how often runs collapse, and at which ratio of penalties."""

from ...navigation import Page

PAGE = Page(
    __name__,
    title="Collapse",
    icon="trending_down",
    position=40,
    question="Which experts stay in use, which die and when, and how often do runs collapse?",
    is_live=True,
)
