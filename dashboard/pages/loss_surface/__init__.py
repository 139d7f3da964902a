"""Loss surface: test loss over data and experts (the paper's Figs. 6, 2, 7), and the experts that a budget asks for."""

from ...navigation import Page

PAGE = Page(
    __name__,
    title="Loss surface",
    icon="landscape",
    position=20,
    question="How does the loss fall with data and experts, and how many experts does a budget ask for?",
)
