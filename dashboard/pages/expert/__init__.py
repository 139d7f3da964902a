"""Expert: what one expert of a trial receives, and what it encodes where the trial was probed."""

from ...navigation import Page

PAGE = Page(
    __name__,
    title="Expert",
    icon="psychology",
    position=65,
    question="Which images does one expert receive, what excites it, and what is lost without it?",
)
