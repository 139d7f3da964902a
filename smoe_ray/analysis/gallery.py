"""Images by expert: galleries of inputs and reconstructions, the swap matrix, interpolations between experts.

Shapes: B images, C classes, E experts, N images shown per expert, R inputs of a swap matrix, S steps of a path,
Z latent, H W pixels. Images are (H, W) where they are grey, else (C, H, W), C = 3.
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
"""Result of `read_embeddings`."""
Choice = Literal["random", "most_confident", "least_confident"]
"""Which of an expert's images are shown; confidence is the gate probability of the chosen expert."""
Images = npt.NDArray[np.uint8]
Drawn = npt.NDArray[np.float32]


class LatentModel(Protocol):
    """Interface of a trained model, as implemented by `training.inference.TrainedModel`."""

    def gate(self, z_BZ: Drawn) -> Drawn:
        """Gate probabilities (B, E)."""

    def decode_all(self, z_BZ: Drawn) -> Drawn:
        """Every expert's image of every latent vector, (B, E, H, W) or (B, E, C, H, W) in [0, 1]."""


# --- galleries --------------------------------------------------------------------------------------------------------


class ExpertBlock(NamedTuple):
    """One active expert: its share of the images, its classes, and some of its images."""

    expert: int
    num_images: int
    """Test images routed to it."""
    share: float
    """Fraction of all test images."""
    class_mix: tuple[tuple[str, float], ...]
    """P(class | expert) of its classes, in decreasing order."""
    index_N: IntArray
    """Indices of the shown images in the test set; fewer than requested if the expert has fewer."""
    image_NHW: Images
    reconstruction_NHW: Drawn | None
    """None of a model that reconstructs nothing."""
    confidence_N: FloatArray
    """Gate probability of this expert."""

    @property
    def rows(self) -> tuple[Images | Drawn, ...]:
        """Inputs, and below them their reconstructions, if there are any."""
        return (self.image_NHW,) if self.reconstruction_NHW is None else (self.image_NHW, self.reconstruction_NHW)


class ExpertGallery(NamedTuple):
    """The active experts of a trial and some of the images of each."""

    label: str
    blocks: tuple[ExpertBlock, ...]
    """In decreasing order of their shares."""
    dead: tuple[int, ...]
    """Experts without test images."""
    choice: Choice
    n: int
    """Requested images per expert."""
    seed: int
    num_images: int
    num_experts: int

    @property
    def what(self) -> str:
        """What a block shows, in words."""
        reconstructs = len(self.blocks[0].rows) > 1
        return "inputs above reconstructions" if reconstructs else "inputs (this model reconstructs nothing)"


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
        embeddings: label, expert (B,), gate (B, E), image and reconstruction (B, H, W) or (B, C, H, W); those of a
            model that makes none have no reconstruction.
        class_names: names of the labels.
        n: maximum number of images per expert.
        choice: which images: uniformly at random, or by the gate probability of the chosen expert.
        seed: of the random choice; the sample of one expert depends only on its own images.
        limit: maximum number of active experts, in decreasing order of their shares.
        label: name of the trial in the caption.

    Raises:
        ResultsError: an array is absent, there is no image, a label has no name, or the images are none.
    """
    _require(embeddings, ("label", "expert", "gate", "image"))
    highest = int(embeddings["label"].max())
    if highest >= len(class_names):
        raise ResultsError(f"embeddings: label {highest} has no name; pass the class names of that trial")
    stored_BHW = stored_images(embeddings)
    if "reconstruction" in embeddings and embeddings["reconstruction"].shape != stored_BHW.shape:
        raise ResultsError(
            f"embeddings: reconstructions of shape {embeddings['reconstruction'].shape} of images of shape "
            f"{embeddings['image'].shape}; pass the complete result of read_embeddings"
        )
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
    drawn_BHW = embeddings.get("reconstruction")
    return ExpertBlock(
        expert,
        len(label_B),
        len(label_B) / len(embeddings["expert"]),
        tuple((class_names[c], float(count_C[c] / len(label_B))) for c in by_share),
        index_N,
        embeddings["image"][index_N],
        None if drawn_BHW is None else drawn_BHW[index_N].astype(np.float32),
        _confidence(embeddings)[index_N],
    )


# --- swap matrix ------------------------------------------------------------------------------------------------------


class SwapMatrix(NamedTuple):
    """One image per active expert, and its latent vector decoded by every expert."""

    label: str
    expert_E: IntArray
    """Columns: active experts by decreasing share, then dead ones."""
    alive_E: npt.NDArray[np.bool_]
    """Whether the expert of a column has test images."""
    index_R: IntArray
    """Indices of the inputs in the test set; input r was routed to the expert of column r."""
    image_RHW: Images
    decoded_REHW: Drawn
    error_RE: FloatArray
    """Squared error, summed over all values of the image."""
    best_R: IntArray
    """Column with the lowest error."""
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
    """The same latent vectors, z = mu, decoded by each expert; one vector per active expert.

    With ``evaluation.latent: mean`` the entry in the column of the input's own expert is its stored reconstruction.

    Args:
        embeddings: mu (B, Z), expert (B,), gate (B, E) and image (B, H, W) or (B, C, H, W).
        model: the model of the same trial.
        choice: which image represents an expert.
        seed: of the random choice.
        limit: maximum number of experts, in decreasing order of their shares.
        label: name of the trial in the caption.

    Raises:
        ResultsError: an array is absent, there is no image, the images are none, or the model belongs to another
            trial.
    """
    _require(embeddings, ("mu", "expert", "gate", "image"))
    stored_BHW = stored_images(embeddings)
    usage = _usage(embeddings)
    rows = usage.active[:limit]
    expert_E = np.array((*usage.active, *usage.dead)[:limit])
    index_R = np.concatenate([_choose(embeddings, expert, 1, choice, seed) for expert in rows])
    decoded_REHW = model.decode_all(embeddings["mu"][index_R])
    _same_experts(decoded_REHW.shape[1], embeddings)
    decoded_REHW = decoded_REHW[:, expert_E]
    image_RHW = stored_BHW[index_R]
    if decoded_REHW.shape[2:] != image_RHW.shape[1:]:
        raise ResultsError(
            f"embeddings of images of shape {image_RHW.shape[1:]} but a model of {decoded_REHW.shape[2:]}; use "
            "embeddings and model of the same trial"
        )
    values = tuple(range(2, decoded_REHW.ndim))
    error_RE = np.square(decoded_REHW - image_RHW[:, None] / 255.0).sum(axis=values)
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
    """Argmax of the gate. At the ends it may be another expert: a mean latent vector can be routed elsewhere."""
    chosen_SHW: Drawn
    """Decoded by that expert."""
    blend_SHW: Drawn
    """Gate-weighted sum of all experts' images."""


class Interpolation(NamedTuple):
    """Paths between experts."""

    label: str
    paths: tuple[LatentPath, ...]
    named: tuple[int, ...]
    """Experts at an end of a path or chosen along it, ascending."""


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
        pairs: first and last expert of each path; None: from each active expert to the next by share, the first
            `limit` paths.
        steps: points of a path, both ends included.
        limit: maximum number of paths if `pairs` is None.
        label: name of the trial in the caption.

    Raises:
        ResultsError: an array is absent, fewer than two experts are active, an expert in `pairs` is not active, or
            the model belongs to another trial.
    """
    _require(embeddings, ("mu", "expert", "gate"))
    active = _usage(embeddings).active
    if pairs is None:
        pairs = list(pairwise(active))[:limit]
    if not pairs:
        raise ResultsError(f"interpolation: expert {active[0]} takes every test image; a path needs two active experts")
    for expert in (expert for pair in pairs for expert in pair):
        if expert not in active:
            listed = ", ".join(map(str, sorted(active)))
            raise ResultsError(f"interpolation: expert {expert} has no test image; choose among {listed}")
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
        np.einsum("se,se...->s...", gate_SE, decoded_SEHW),
    )


# --- images -----------------------------------------------------------------------------------------------------------


def stored_images(embeddings: Embeddings) -> Images:
    """The test images of a trial: (B, H, W) or (B, C, H, W). Raises ResultsError if those that it kept are none."""
    image_BHW = embeddings["image"]
    if image_BHW.dtype != np.uint8 or image_BHW.shape[1:-2] not in ((), (3,)) or image_BHW.ndim < 3:
        raise ResultsError(
            f"embeddings: images are {image_BHW.dtype} of shape {image_BHW.shape}; needed: uint8, (B, H, W) or "
            "(B, 3, H, W); delete the trial's folder and run the study again"
        )
    return image_BHW


# --- shared -----------------------------------------------------------------------------------------------------------


class _Usage(NamedTuple):
    active: tuple[int, ...]
    """Experts with test images, by decreasing share, then by number."""
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
    """Indices of `n` of the expert's images, or of all if it has fewer."""
    members = np.flatnonzero(embeddings["expert"] == expert)
    if choice == "random":
        return np.random.default_rng((seed, expert)).permutation(members)[:n]
    confidence = _confidence(embeddings)[members]
    rising = confidence if choice == "least_confident" else -confidence
    return members[np.argsort(rising, kind="stable")[:n]]


def _require(embeddings: Embeddings, names: Sequence[str]) -> None:
    for name in names:
        if name not in embeddings:
            raise ResultsError(f"embeddings: '{name}' is absent; pass the complete result of read_embeddings")
    if not len(embeddings["expert"]):
        raise ResultsError("embeddings: they contain no image; run the study with data.test_per_class of 1 or more")


def _same_experts(decoded: int, embeddings: Embeddings) -> None:
    kept = embeddings["gate"].shape[1]
    if decoded != kept:
        raise ResultsError(
            f"embeddings of {kept} experts but a model of {decoded}; use embeddings and model of the same trial"
        )
