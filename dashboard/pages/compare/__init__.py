"""Compare: several trials of a study side by side: curves, configuration, usage of experts, reconstructions."""

from ...navigation import Page

PAGE = Page(
    __name__,
    title="Compare",
    icon="compare_arrows",
    position=14,
    question="In what do these trials differ, in their settings and in what came of them?",
    is_live=True,
)
