"""Submit: write a study, see what it takes, send it to the Ray cluster, watch its job."""

from ...navigation import Page

PAGE = Page(
    __name__,
    title="Submit",
    icon="upload",
    position=80,
    question="What should be trained next?",
    needs_cluster=True,
)
