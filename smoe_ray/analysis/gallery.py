"""What experts draw: galleries of their inputs and reconstructions, the swap matrix, paths between them.

Shapes: B images, C classes, E experts, N images shown of an expert, R inputs of a swap matrix, S steps of a path,
Z latent, H W pixels (28 x 28).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.curves import FloatArray, IntArray
from smoe_ray.errors import ResultsError

Embeddings = Mapping[str, npt.NDArray[Any]]
"""What `read_embeddings` returns."""
Choice = Literal["random", "most_confident", "least_confident"]
"""Which of an expert's images are shown; confidence is the gate probability of the chosen expert."""
Images = npt.NDArray[np.uint8]
Drawn = npt.NDArray[np.float32]


class LatentModel(Protocol):
    """What is asked of a trained model; `training.inference.TrainedModel` is one."""

    def gate(self, z_BZ: Drawn) -> Drawn:
        """Gate probabilities (B, E)."""

    def decode_all(self, z_BZ: Drawn) -> Drawn:
        """Every expert's image of every latent vector, (B, E, H, W) in [0, 1]."""


# --- galleries --------------------------------------------------------------------------------------------------------


class ExpertBlock(NamedTuple):
    """One active expert: what it takes, and some of its images."""

    expert: int
    num_images: int
    """Test images that the gate sends to it."""
    share: float
    """Of all test images."""
    class_mix: tuple[tuple[str, float], ...]
    """P(class | expert) of the classes that it takes, by falling share."""
    index_N: IntArray
    """Places of the shown images in the test set; fewer than asked for where the expert takes fewer."""
    image_NHW: Images
    reconstruction_NHW: Drawn
    confidence_N: FloatArray
    """Gate probability of this expert."""


class ExpertGallery(NamedTuple):
    """The active experts of a trial and some of the images of each."""

    label: str
    blocks: tuple[ExpertBlock, ...]
    """By falling share."""
    dead: tuple[int, ...]
    """Experts that take no test image."""
    choice: Choice
    n: int
    """Images asked for of each expert."""
    seed: int
    num_images: int
    num_experts: int


def expert_gallery(
    embeddings: Embeddings,
    class_names: Sequence[str],
    *,
    n: int = 8,
    choice: Choice = "random",
    seed: int = 0,
    limit: int = 12,
    label: str = "",
) -> ExpertGallery:
    """Share, class mix, and some inputs and reconstructions of each expert (arXiv:2509.10025, Fig. 4 and 5).

    Args:
        embeddings: label, expert (B,), gate (B, E), image and reconstruction (B, H, W).
        class_names: names of the labels.
        n: most images an expert.
        choice: which of its images: uniformly at random, or by the gate probability of the chosen expert.
        seed: of the random choice; what is drawn for one expert depends on its own images alone.
        limit: most active experts, in the order of their shares.
        label: what the trial is called in the caption.

    Raises:
        ResultsError: an array is absent, there is no image, or a label has no name.
    """
    _require(embeddings, ("label", "expert", "gate", "image", "reconstruction"))
    highest = int(embeddings["label"].max())
    if highest >= len(class_names):
        raise ResultsError(f"embeddings: label {highest} has no name; pass the class names of the same trial")
    usage = _usage(embeddings)
    blocks = tuple(
        _block(embeddings, expert, class_names, _choose(embeddings, expert, n, choice, seed))
        for expert in usage.active[:limit]
    )
    num_images, num_experts = embeddings["gate"].shape
    return ExpertGallery(label, blocks, usage.dead, choice, n, seed, num_images, num_experts)


def _block(embeddings: Embeddings, expert: int, class_names: Sequence[str], index_N: IntArray) -> ExpertBlock:
    label_B = embeddings["label"][embeddings["expert"] == expert]
    count_C = np.bincount(label_B, minlength=len(class_names))
    by_share = [c for c in np.argsort(-count_C, kind="stable").tolist() if count_C[c]]
    return ExpertBlock(
        expert,
        len(label_B),
        len(label_B) / len(embeddings["expert"]),
        tuple((class_names[c], float(count_C[c] / len(label_B))) for c in by_share),
        index_N,
        embeddings["image"][index_N],
        embeddings["reconstruction"][index_N].astype(np.float32),
        _confidence(embeddings)[index_N],
    )


# --- swap matrix ------------------------------------------------------------------------------------------------------


class SwapMatrix(NamedTuple):
    """One image of each active expert, and what every expert makes of its latent vector."""

    label: str
    expert_E: IntArray
    """Columns: active experts by falling share, then dead ones."""
    alive_E: npt.NDArray[np.bool_]
    """Whether a column's expert takes any test image."""
    index_R: IntArray
    """Places of the inputs in the test set; input r was sent to the expert of column r."""
    image_RHW: Images
    decoded_REHW: Drawn
    error_RE: FloatArray
    """Squared error, summed over the pixels."""
    best_R: IntArray
    """Column of the least error."""
    choice: Choice
    seed: int
    num_experts: int


def swap_matrix(
    embeddings: Embeddings,
    model: LatentModel,
    *,
    choice: Choice = "most_confident",
    seed: int = 0,
    limit: int = 12,
    label: str = "",
) -> SwapMatrix:
    """Each expert's decoding of the same latent vectors, z = mu, one an active expert.

    With ``evaluation.latent: mean`` an entry in the column of the input's own expert is its stored reconstruction.

    Args:
        embeddings: mu (B, Z), expert (B,), gate (B, E) and image (B, H, W).
        model: the model of the same trial.
        choice: which image stands for an expert.
        seed: of the random choice.
        limit: most experts, in the order of their shares.
        label: what the trial is called in the caption.

    Raises:
        ResultsError: an array is absent, there is no image, or the model is another trial's.
    """
    _require(embeddings, ("mu", "expert", "gate", "image"))
    usage = _usage(embeddings)
    rows = usage.active[:limit]
    expert_E = np.array((*usage.active, *usage.dead)[:limit])
    index_R = np.concatenate([_choose(embeddings, expert, 1, choice, seed) for expert in rows])
    decoded_REHW = model.decode_all(embeddings["mu"][index_R])
    _same_experts(decoded_REHW.shape[1], embeddings)
    decoded_REHW = decoded_REHW[:, expert_E]
    image_RHW = embeddings["image"][index_R]
    error_RE = np.square(decoded_REHW - image_RHW[:, None] / 255.0).sum(axis=(2, 3))
    return SwapMatrix(
        label,
        expert_E,
        np.arange(len(expert_E)) < len(rows),
        index_R,
        image_RHW,
        decoded_REHW,
        error_RE,
        error_RE.argmin(axis=1),
        choice,
        seed,
        embeddings["gate"].shape[1],
    )


# --- interpolation ----------------------------------------------------------------------------------------------------


class LatentPath(NamedTuple):
    """A straight line from the mean latent vector of one expert's images to that of another's."""

    start: int
    end: int
    z_SZ: Drawn
    gate_SE: Drawn
    expert_S: IntArray
    """Argmax of the gate. At the ends it may be another expert: a mean need not lie where its images do."""
    chosen_SHW: Drawn
    """Decoded by that expert."""
    blend_SHW: Drawn
    """Gate-weighted sum of all experts' images."""


class Interpolation(NamedTuple):
    """Paths between experts."""

    label: str
    paths: tuple[LatentPath, ...]
    named: tuple[int, ...]
    """Experts that are an end or the chosen one somewhere, ascending."""


def interpolation(
    embeddings: Embeddings,
    model: LatentModel,
    pairs: Sequence[tuple[int, int]] | None = None,
    *,
    steps: int = 9,
    limit: int = 4,
    label: str = "",
) -> Interpolation:
    """Straight paths between the mean latent vectors of experts' images, gated and decoded at equal steps.

    Args:
        embeddings: mu (B, Z), expert (B,) and gate (B, E).
        model: the model of the same trial.
        pairs: first and last expert of each path; None: from each active expert to the next smaller one, the largest
            `limit` paths.
        steps: points of a path, both ends included.
        limit: most paths where `pairs` are not given.
        label: what the trial is called in the caption.

    Raises:
        ResultsError: an array is absent, fewer than two experts are active, a named one is not, or the model is
            another trial's.
    """
    _require(embeddings, ("mu", "expert", "gate"))
    active = _usage(embeddings).active
    if pairs is None:
        pairs = list(pairwise(active))[:limit]
    if not pairs:
        raise ResultsError(f"interpolation: one expert ({active[0]}) takes every test image; a path needs two")
    for expert in (expert for pair in pairs for expert in pair):
        if expert not in active:
            listed = ", ".join(map(str, sorted(active)))
            raise ResultsError(f"interpolation: expert {expert} takes no test image; choose among {listed}")
    paths = tuple(_path(embeddings, model, start, end, steps) for start, end in pairs)
    named = {expert for path in paths for expert in (path.start, path.end, *path.expert_S.tolist())}
    return Interpolation(label, paths, tuple(sorted(named)))


def _path(embeddings: Embeddings, model: LatentModel, start: int, end: int, steps: int) -> LatentPath:
    first_Z, last_Z = (embeddings["mu"][embeddings["expert"] == expert].mean(axis=0) for expert in (start, end))
    z_SZ = np.linspace(first_Z, last_Z, steps, dtype=np.float32)
    gate_SE, decoded_SEHW = model.gate(z_SZ), model.decode_all(z_SZ)
    _same_experts(gate_SE.shape[1], embeddings)
    expert_S = gate_SE.argmax(axis=1)
    return LatentPath(
        start,
        end,
        z_SZ,
        gate_SE,
        expert_S,
        decoded_SEHW[np.arange(steps), expert_S],
        np.einsum("se,sehw->shw", gate_SE, decoded_SEHW),
    )


# --- shared -----------------------------------------------------------------------------------------------------------


class _Usage(NamedTuple):
    active: tuple[int, ...]
    """Experts that take a test image, by falling share; equal ones by number."""
    dead: tuple[int, ...]
    """The others, by number."""


def _usage(embeddings: Embeddings) -> _Usage:
    count_E = np.bincount(embeddings["expert"], minlength=embeddings["gate"].shape[1])
    by_share = np.argsort(-count_E, kind="stable").tolist()
    active = np.count_nonzero(count_E)
    return _Usage(tuple(by_share[:active]), tuple(by_share[active:]))


def _confidence(embeddings: Embeddings) -> FloatArray:
    expert_B = embeddings["expert"]
    return embeddings["gate"][np.arange(len(expert_B)), expert_B].astype(np.float64)


def _choose(embeddings: Embeddings, expert: int, n: int, choice: Choice, seed: int) -> IntArray:
    """Places of `n` of the expert's images, or of all where it has fewer."""
    members = np.flatnonzero(embeddings["expert"] == expert)
    if choice == "random":
        return np.random.default_rng((seed, expert)).permutation(members)[:n]
    confidence = _confidence(embeddings)[members]
    rising = confidence if choice == "least_confident" else -confidence
    return members[np.argsort(rising, kind="stable")[:n]]


def _require(embeddings: Embeddings, names: Sequence[str]) -> None:
    for name in names:
        if name not in embeddings:
            raise ResultsError(f"embeddings: '{name}' is absent; pass what read_embeddings returns, whole")
    if not len(embeddings["expert"]):
        raise ResultsError("embeddings: they hold no image; run the study with data.test_per_class of 1 or more")


def _same_experts(decoded: int, embeddings: Embeddings) -> None:
    kept = embeddings["gate"].shape[1]
    if decoded != kept:
        raise ResultsError(f"embeddings of {kept} experts, a model of {decoded}; take both from the same trial")
