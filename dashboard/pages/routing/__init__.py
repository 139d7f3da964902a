"""Routing comparisons: do arms differ in loss, in how experts divide the classes, in their latent spaces?"""

from ...navigation import Page

PAGE = Page(
    __name__,
    title="Routing comparisons",
    icon="alt_route",
    position=30,
    question="Do arms differ in test loss, in how experts divide the classes, and in their latent spaces?",
)
