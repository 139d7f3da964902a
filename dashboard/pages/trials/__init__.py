"""Trials: all trials of a study in one table: filter, group, sort, select, and open or compare what is selected."""

from ...navigation import Page

PAGE = Page(
    __name__,
    title="Trials",
    icon="table_rows",
    position=12,
    question="Which trials are there, with which settings, and how do they compare?",
    is_live=True,
)
