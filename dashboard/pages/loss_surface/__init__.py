"""Loss surface: test loss over data and experts (arXiv:2509.10025, Figs. 6, 2, 7), and how many experts to use."""

from ...navigation import Page

PAGE = Page(
    __name__,
    title="Loss surface",
    icon="landscape",
    position=20,
    question="How does the loss depend on data and experts, and how many experts suit a given budget?",
)
