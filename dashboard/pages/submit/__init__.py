"""Submit: edit a study, see its plan and cost, submit it to the Ray cluster, follow its job."""

from ...navigation import Page

PAGE = Page(
    __name__,
    title="Submit",
    icon="upload",
    position=80,
    question="What should be trained next?",
    needs_cluster=True,
)
