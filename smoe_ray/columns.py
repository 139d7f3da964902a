"""Every column of the results and of the report's tables, once: name, type, unit, heading, number format, direction.

`results` writes and reads the columns of `EPOCHS`; searches optimise those marked `objective`; the command, the report
and the dashboard take headings and number formats from here; `cluster.metrics` exports those with a `gauge`; the tables
of results columns in docs/metrics.md are written from here by ``python docs/check.py --write``.

To add a column of the results: one entry here, and whatever computes the value.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

Direction = Literal["minimize", "maximize"]
ABSENT = "\N{EN DASH}"
"""What stands in a cell without a value."""

Family = Literal["smoe_vae", "contrastive"]
"""Families of models (`model.family`)."""

TEXT, COUNT, LOSS, SHARE, SCORE, GENERAL = "{}", "{:,.0f}", "{:.2f}", "{:.0%}", "{:.3f}", "{:.3g}"
"""Number formats: words, whole numbers, errors, shares in per cent, scores from 0 to 1, anything else."""


@dataclass(frozen=True)
class Column:
    """One column, as every part of the program knows it."""

    name: str
    heading: str
    number_format: str = TEXT
    dtype: Literal["float", "int", "text", "list"] = "float"
    """Type in ``epochs.parquet`` (``list``: of floats); of other columns only the number format matters."""
    unit: str = ""
    """Unit, or range where there is no unit."""
    meaning: str = ""
    """Formula or definition, as docs/metrics.md prints it."""
    source: str = ""
    direction: Direction | None = None
    """Which way is better; None where neither is."""
    objective: bool = False
    """Whether a search may optimise it."""
    timing: bool = False
    """Whether two runs of the same trial differ in it."""
    family: Family | None = None
    """The one family of models that has it; in the rows of others it is empty. None: every family has it."""
    gauge: str = ""
    """Name of the live metric ``smoe_ray_<gauge>`` that a running study exports; none if empty."""

    @property
    def is_text(self) -> bool:
        """Whether it holds words rather than numbers."""
        return self.number_format == TEXT

    @property
    def label(self) -> str:
        """Heading with unit, for an axis."""
        return self.heading if self.heading.endswith(self.unit) else f"{self.heading} ({self.unit})"


# --- results: one row per epoch of a trial ----------------------------------------------------------------------------

_ERROR, _ERROR_PER_VALUE = "error per image", "error per value"
"""That of the trial's `objective.likelihood`, summed over the values of an image: `analysis.loss_unit` names it."""

IDENTITY = (
    Column("study", "study", dtype="text", meaning="name of the study"),
    Column(
        "trial_id",
        "trial",
        dtype="text",
        meaning="first 12 hex digits of the SHA-256 of all that can change the numbers "
        "(spec with seed, data fingerprint, `NUMERICS_VERSION`)",
        source="`spec.trial_id`",
    ),
    Column(
        "status",
        "status",
        dtype="text",
        meaning="`running`, `finished`, `failed` or `pruned`",
        source="`trial.json`",
    ),
    Column("seed", "seed", COUNT, "int", meaning="fixes initial weights, batch order and latent noise", source="spec"),
    Column("epoch", "epoch", COUNT, "int", meaning="passes over the training images, from 1"),
    Column(
        "data.train_images",
        "training images",
        COUNT,
        "int",
        unit="images",
        meaning="training images of the trial",
        source="splits",
    ),
    Column(
        "data.image_shape",
        "image shape",
        dtype="text",
        unit="CxHxW",
        meaning="channels, height and width of the images, e.g. `3x32x32`",
        source="splits",
    ),
    Column(
        "data.fingerprint",
        "data fingerprint",
        dtype="text",
        meaning="SHA-256 of the whole source at fraction 1",
        source="`Source`",
    ),
)

TRAINING = (
    Column(
        "train.loss",
        "training loss",
        LOSS,
        unit=_ERROR,
        meaning="reconstruction + β·kl + (λ_balance·balance + λ_entropy·entropy)/128; "
        "supervised: reconstruction + β·kl + cross_entropy_weight·cross_entropy; others: docs/objectives.md",
        source="arXiv:2509.10025, section 3",
        direction="minimize",
        objective=True,
    ),
    Column(
        "train.reconstruction",
        "training reconstruction",
        LOSS,
        unit=_ERROR,
        meaning="blend: r of the image Σ_e p_e x̂_e; expected: Σ_e p_e r_e; likelihood: "
        "−2s² ln Σ_e p_e exp(−r_e/2s²); supervised: r of the predicted class; others: docs/objectives.md",
        source="blend: arXiv:2509.10025; likelihood: Jacobs et al. 1991",
        direction="minimize",
        objective=True,
        family="smoe_vae",
    ),
    Column(
        "train.kl",
        "training KL",
        LOSS,
        unit="nats per image",
        meaning="−½ Σ_z (1 + logvar − mu² − exp logvar)",
        source="Kingma and Welling 2014",
        objective=True,
        family="smoe_vae",
    ),
    Column(
        "train.balance",
        "balance",
        GENERAL,
        unit="1, from 0 to E − 1",
        meaning="E·Σ_e (p̄_e − 1/E)², unweighted (`balance_form: paper_text` takes 1/E of it)",
        source="the authors' released code",
        direction="minimize",
        objective=True,
    ),
    Column(
        "train.entropy",
        "gate entropy",
        SCORE,
        unit="nats, 0 to ln E",
        meaning="−mean_x Σ_e p_e ln(p_e + 1e-8), unweighted; part of the loss under `blend` only",
        source="arXiv:2509.10025",
        objective=True,
    ),
    Column(
        "train.cross_entropy",
        "cross-entropy",
        SCORE,
        unit="nats",
        meaning="cross-entropy of the gate against the class label (`style_oracle`: the style), unweighted "
        "(`objective.cross_entropy_weight`: 200 in the released code, 1 by default; the paper names none); 0 in "
        "unsupervised routing",
        source="supervised baseline",
        direction="minimize",
        objective=True,
        family="smoe_vae",
    ),
    Column(
        "train.contrastive",
        "contrastive loss, training",
        SCORE,
        unit="nats per view",
        meaning="NT-Xent: −ln softmax of the other view of the same image among all other views of the batch, by "
        "cosine / temperature; ln(2B − 1) at chance",
        source="arXiv:2002.05709",
        direction="minimize",
        objective=True,
        family="contrastive",
    ),
)

TEST = (
    Column(
        "test.reconstruction",
        "test loss",
        LOSS,
        unit=_ERROR,
        meaning="r of the argmax expert (`evaluation.gating: hard`, the default), z = mu (`evaluation.latent: mean`; "
        "`sample` draws z as the authors' code does)",
        direction="minimize",
        objective=True,
        gauge="test_reconstruction",
        family="smoe_vae",
    ),
    Column(
        "test.reconstruction_soft",
        "soft loss",
        LOSS,
        unit=_ERROR,
        meaning="r of the image Σ_e p_e x̂_e, always",
        direction="minimize",
        objective=True,
        family="smoe_vae",
    ),
    Column(
        "test.reconstruction_oracle",
        "oracle loss",
        LOSS,
        unit=_ERROR,
        meaning="mean over the images of min_e r_e, z as in test.reconstruction: the loss of a router that knows the "
        "best expert for each image, which no other router of these experts is below",
        direction="minimize",
        objective=True,
        family="smoe_vae",
    ),
    Column(
        "test.regret",
        "routing regret",
        LOSS,
        unit=_ERROR,
        meaning="mean over the images of r_argmax − min_e r_e: what the gate's choice costs",
        direction="minimize",
        objective=True,
        family="smoe_vae",
    ),
    Column(
        "test.per_value",
        "loss per value",
        "{:.4f}",
        unit=_ERROR_PER_VALUE,
        meaning="test.reconstruction / (C·H·W)",
        direction="minimize",
        objective=True,
        family="smoe_vae",
    ),
    Column(
        "test.psnr",
        "PSNR",
        LOSS,
        unit="dB, at most 138",
        meaning="peak signal-to-noise ratio 10·log10(1/MSE): MSE is the mean squared error of a value over the test "
        "set, gating and z as in test.reconstruction, whatever the likelihood: compares likelihoods and image formats",
        direction="maximize",
        objective=True,
        family="smoe_vae",
    ),
    Column(
        "test.kl", "test KL", LOSS, unit="nats per image", meaning="as `train.kl`", objective=True, family="smoe_vae"
    ),
    Column(
        "test.contrastive",
        "contrastive loss, test",
        SCORE,
        unit="nats per view",
        meaning="as `train.contrastive`, over chunks of the test images as large as a batch; every epoch has the same "
        "views",
        direction="minimize",
        objective=True,
        family="contrastive",
    ),
    Column(
        "test.linear_accuracy",
        "linear read-out",
        SCORE,
        unit="0 to 1",
        meaning="share of the test images whose class a ridge regression (1e-3 per image, on features of unit "
        "variance) names, fitted to the representation of the training images (at most 20,000)",
        direction="maximize",
        objective=True,
        family="contrastive",
    ),
    Column(
        "test.linear_accuracy_untrained",
        "linear read-out, untrained",
        SCORE,
        unit="0 to 1",
        meaning="as `test.linear_accuracy`, of the same network with its initial weights",
        family="contrastive",
    ),
    Column(
        "test.knn_accuracy",
        "20 nearest neighbours",
        SCORE,
        unit="0 to 1",
        meaning="share of the test images whose class most of their 20 nearest training images have, by cosine of the "
        "representations",
        direction="maximize",
        objective=True,
        family="contrastive",
    ),
)

EXPERTS = (
    Column("experts.configured", "experts", COUNT, "int", unit="experts", meaning="E"),
    Column(
        "experts.active",
        "active",
        COUNT,
        "int",
        unit="experts, 1 to E",
        meaning="experts with a share above 0",
        direction="maximize",
        objective=True,
    ),
    Column(
        "experts.effective",
        "effective",
        LOSS,
        unit="experts, 1 to E",
        meaning="exp(−Σ_e u_e ln u_e) of the shares u",
        direction="maximize",
        objective=True,
        gauge="effective_experts",
    ),
    Column(
        "experts.active_fraction",
        "active share",
        SHARE,
        unit="0 to 1",
        meaning="active / E",
        direction="maximize",
        objective=True,
        gauge="active_fraction",
    ),
    Column(
        "experts.max_share",
        "largest share",
        SHARE,
        unit="1/E to 1",
        meaning="largest share",
        direction="minimize",
        objective=True,
        gauge="max_share",
    ),
    Column(
        "experts.max_violation",
        "MaxVio",
        LOSS,
        unit="at least 0",
        meaning="maximal violation of balance: largest load / mean load − 1 = E·max_share − 1, so 0 if all shares are "
        "equal",
        source="arXiv:2408.15664",
        direction="minimize",
        objective=True,
        gauge="max_violation",
    ),
    Column(
        "experts.load_low",
        "load, 10th percentile",
        LOSS,
        unit="0 to 1",
        meaning="10th percentile of the experts' loads E·share (between experts, linear)",
        direction="maximize",
        objective=True,
    ),
    Column(
        "experts.load_high",
        "load, 90th percentile",
        LOSS,
        unit="0 to E",
        meaning="90th percentile of the loads",
        direction="minimize",
        objective=True,
    ),
    Column(
        "experts.gate_entropy",
        "gate entropy, test",
        SCORE,
        unit="nats, 0 to ln E",
        meaning="−mean_x Σ_e p_e ln p_e over the test images: how unsure the gate is about an image",
        objective=True,
        gauge="gate_entropy",
    ),
    Column(
        "experts.similarity",
        "similarity of experts",
        SCORE,
        unit="−1 to 1",
        meaning="mean over test images and pairs of experts of the cosine between their reconstructions of the same z; "
        "empty for one expert",
        family="smoe_vae",
    ),
    Column(
        "experts.label_accuracy",
        "label accuracy",
        SCORE,
        unit="0 to 1",
        meaning="share of the test images whose argmax expert has the number of their class (`style_oracle`: of "
        "their style); empty unless the objective routes by label",
        direction="maximize",
        family="smoe_vae",
    ),
    Column(
        "experts.nmi",
        "NMI with classes",
        SCORE,
        unit="0 to 1",
        meaning="normalised mutual information of the argmax expert and the class of the test images, 2 I / (H + H); "
        "empty where all images are of one class",
    ),
    Column(
        "experts.usage",
        "usage",
        dtype="list",
        unit="sums to 1",
        meaning="share of the test images that each expert is the argmax of: a list of E numbers",
    ),
)

LATENT = (
    Column("latent.configured", "latents", COUNT, "int", unit="dimensions", meaning="Z", family="smoe_vae"),
    Column(
        "latent.active",
        "active latents",
        COUNT,
        "int",
        unit="dimensions, 0 to Z",
        meaning="latent dimensions whose mu has a variance above 0.01 over the test images; few of them, and the "
        "posterior has collapsed: the decoders ignore the others",
        source="Burda et al. 2016, arXiv:1509.00519, section 5.2",
        direction="maximize",
        objective=True,
        family="smoe_vae",
    ),
    Column(
        "latent.kl",
        "KL per latent",
        SCORE,
        unit="nats per image and dimension",
        meaning="test.kl / Z: the mean over the latent dimensions",
        objective=True,
        family="smoe_vae",
    ),
)

COST = (
    Column("cost.params_total", "parameters", COUNT, "int", unit="parameters", meaning="parameters of the whole model"),
    Column(
        "cost.params_active",
        "active parameters",
        COUNT,
        "int",
        unit="parameters",
        meaning="parameters that one image meets under hard gating: encoder, gate, one expert, and what experts share "
        "or an attentive gate reads of them",
        direction="minimize",
        objective=True,
    ),
    Column(
        "cost.flops",
        "training FLOPs",
        GENERAL,
        unit="FLOPs",
        meaning="training FLOPs up to this epoch, counted as torch's own counter does on the model as it is defined "
        "(not on the faster equivalent that we compute)",
        direction="minimize",
        objective=True,
    ),
    Column(
        "cost.images",
        "images seen",
        COUNT,
        "int",
        unit="images",
        meaning="training images seen up to this epoch, repeats counted",
    ),
    Column("cost.steps", "optimizer steps", COUNT, "int", unit="steps", meaning="optimizer steps up to this epoch"),
    Column(
        "cost.wall_s",
        "seconds per epoch",
        "{:.1f}",
        unit="seconds",
        meaning="time that this epoch took, evaluation included",
        direction="minimize",
        objective=True,
        timing=True,
    ),
    Column(
        "cost.images_per_s",
        "images per second",
        COUNT,
        unit="images per second",
        meaning="training images of this epoch / training time",
        direction="maximize",
        timing=True,
    ),
)

EPOCHS: tuple[Column, ...] = (
    *(column for column in IDENTITY if column.name == "epoch"),
    *TRAINING,
    *TEST,
    *EXPERTS,
    *LATENT,
    *COST,
)
"""Columns of ``epochs.parquet``, in the order of the file."""

# --- statistics: one row per arm, comparison, fitted surface, ... -----------------------------------------------------

STATISTICS = (
    # what a row is about
    Column("dataset", "dataset"),
    Column("arm", "arm"),
    Column("reference", "reference"),
    Column("label", "cell"),
    Column("why", "why"),
    Column("target", "against"),
    Column("condition", "condition"),
    # trials of an arm
    Column("finished", "finished", COUNT),
    Column("failed", "failed", COUNT),
    Column("pruned", "pruned", COUNT),
    Column("running", "running", COUNT),
    Column("images", "images", COUNT),
    Column("configured", "experts", COUNT),
    Column("loss", "test loss", LOSS),
    Column("loss_soft", "soft loss", LOSS),
    Column("gap", "gap", LOSS, family="smoe_vae"),
    Column("psnr", "PSNR", LOSS),
    Column("max_violation", "MaxVio", LOSS),
    Column("regret", "routing regret", LOSS),
    Column("label_accuracy", "label accuracy", SCORE),
    Column("active", "active", GENERAL),
    Column("effective", "effective", LOSS),
    Column("kl", "KL", LOSS),
    Column("latents", "active latents", GENERAL),
    Column("linear", "linear read-out", SCORE),
    Column("linear_untrained", "untrained", SCORE),
    Column("neighbours", "20 neighbours", SCORE),
    # differences between arms
    Column("runs_compared", "runs"),
    Column("left_out", "left out", COUNT),
    Column("mean_arm", "mean, arm", LOSS),
    Column("mean_reference", "mean, reference", LOSS),
    Column("estimate", "difference", "{:+.2f}"),
    Column("low", "low", LOSS),
    Column("high", "high", LOSS),
    Column("level", "level", "{:.4g}"),
    Column("interval", "interval by"),
    Column("effect", "Hedges' g", "{:+.2f}"),
    Column("p", "p", SCORE),
    Column("p_holm", "p, Holm", SCORE),
    Column("verdict", "verdict"),
    Column("p_equivalent", "p, equivalence", SCORE),
    # each dataset alone
    Column("best", "best", COUNT),
    Column("best_low", "best, low", COUNT),
    Column("best_high", "best, high", COUNT),
    Column("change", "change", "{:+.1%}"),
    Column("recommended", "recommended"),
    # recommended number of experts
    Column("experts", "experts", COUNT),
    Column("fitted_loss", "fitted loss", LOSS),
    Column("above_best", "above best", LOSS),
    Column("tied", "tied"),
    Column("chance", "best in", SHARE),
    Column("gaussian_process", "Gaussian process", LOSS),
    Column("runs", "runs near", COUNT),
    Column("amount", "held out", COUNT),
    Column("rmse", "RMSE", LOSS),
    Column("noise", "noise floor", LOSS),
    Column("r_squared", "R²", SCORE),
    Column("floor", "L∞", LOSS),
    Column("a", "a", SCORE),
    Column("b", "b", SCORE),
    Column("c", "c", SCORE),
    Column("g", "g", SCORE),
    Column("k0", "k0", SCORE),
    Column("k1", "k1", SCORE),
    Column("n", "n", COUNT),
    # collapse
    Column("alive", "alive", COUNT),
    Column("dead", "dead", COUNT),
    Column("never_used", "never used", COUNT),
    Column("half_life", "half-life", GENERAL),
    Column("half_life_least", "least of the runs", GENERAL),
    Column("half_life_most", "most", GENERAL),
    Column("collapsed", "collapsed", COUNT),
    Column("share", "share", SHARE),
    Column("share_low", "low", SHARE),
    Column("share_high", "high", SHARE),
    Column("mean_low", "lower mean", LOSS),
    Column("mean_high", "upper mean", LOSS),
    Column("upper_share", "share of the upper", SHARE),
    Column("basin_sd", "s.d. of either", LOSS),
    Column("delta_bic", "ΔBIC", "{:+.1f}"),
    # routing
    Column("nmi", "NMI", SCORE),
    Column("ami", "AMI", SCORE),
    Column("ari", "ARI", SCORE),
    Column("cramers_v", "Cramer's V", SCORE),
    Column("cramers_v_corrected", "corrected", SCORE),
    Column("purity", "purity", SCORE),
    Column("matched_accuracy", "matched accuracy", SCORE),
    Column("matched_correlation", "matched correlation", SCORE),
    Column("matched_share", "matched share", SCORE),
    # layers of a hierarchical gate, and styles
    Column("expert_groups", "groups", COUNT),
    Column("first_classes", "AMI groups, classes", SCORE),
    Column("first_classes_low", "low", SCORE),
    Column("first_classes_high", "high", SCORE),
    Column("regrouped", "random groups", SCORE),
    Column("regrouped_low", "low", SCORE),
    Column("regrouped_high", "high", SCORE),
    Column("second_classes", "AMI within groups, classes", SCORE),
    Column("second_classes_low", "low", SCORE),
    Column("second_classes_high", "high", SCORE),
    Column("second_styles", "AMI within groups, styles", SCORE),
    Column("second_styles_low", "low", SCORE),
    Column("second_styles_high", "high", SCORE),
    Column("off_path", "off the likeliest group", SHARE),
    Column("styles", "styles", COUNT),
    Column("class_ami", "AMI with classes", SCORE),
    Column("class_ami_low", "low", SCORE),
    Column("class_ami_high", "high", SCORE),
    Column("style_ami", "AMI with styles", SCORE),
    Column("style_ami_low", "low", SCORE),
    Column("style_ami_high", "high", SCORE),
    # separability
    Column("control", "control"),
    Column("groups", "groups", COUNT),
    Column("accuracy", "probe, 5 folds", SCORE),
    Column("holdout_accuracy", "probe, 80/20", SCORE),
    Column("majority", "chance: largest", SCORE),
    Column("permuted", "chance: permuted", SCORE),
    Column("neighbour_accuracy", "15 neighbours", SCORE),
    Column("silhouette", "silhouette", SCORE),
    Column("silhouette_images", "its images", COUNT),
    Column("left_out_images", "images left out", COUNT),
    Column("left_out_groups", "groups left out", COUNT),
    Column("trustworthiness", "trustworthiness", SCORE),
    Column("perplexity", "perplexity", GENERAL),
    # what experts encode
    Column("expert", "expert", COUNT),
    Column("selectivity", "selectivity", SCORE),
    Column("gate_sparseness", "sparseness of its gate", SCORE),
    Column("image_sparseness", "sparseness per image", SCORE),
    Column("divergence", "JS given, best", SCORE),
    Column("misrouted", "better elsewhere", SHARE),
    Column("loss_increase", "loss without it", "{:+.2f}"),
    Column("feature_gain", "R² beyond class", SCORE),
    Column("feature_p", "p", SCORE),
    Column("orientation_index", "orientation index", SCORE),
    Column("preferred_orientation", "preferred, degrees", COUNT),
    Column("parameter", "parameter"),
    Column("preferred", "preferred value", GENERAL),
    Column("tuning_width", "width", GENERAL),
    Column("tuning_breadth", "breadth", SCORE),
    Column("explained", "explained", SCORE),
    Column("explained_p", "p", SCORE),
    Column("decoding_breadth", "breadth of decoding", SCORE),
    Column("decoding_explained", "explained", SCORE),
    Column("decoding_p", "p", SCORE),
    Column("class_accuracy", "class accuracy", SCORE),
    Column("class_ridge", "by ridge", SCORE),
    Column("class_chance", "chance", SCORE),
    Column("class_p", "p", SCORE),
    Column("routed_accuracy", "on its own images", SCORE),
    Column("d_prime", "d′", LOSS),
    Column("fisher", "Fisher", LOSS),
    Column("fisher_chance", "chance", LOSS),
    Column("class_spread", "spread of class accuracy", SCORE),
    Column("class_spread_chance", "chance", SCORE),
    Column("class_spread_p", "p", SCORE),
    Column("cka", "CKA", SCORE),
    Column("cka_chance", "chance", SCORE),
    Column("cka_p", "p", SCORE),
    Column("rsa", "RSA", SCORE),
    Column("gate_logit_margin", "margin, logit", GENERAL),
    Column("gate_logit_specificity", "specificity, logit", GENERAL),
    Column("gate_logit_diagonal", "on the diagonal", SHARE),
    Column("advantage_margin", "margin, advantage", GENERAL),
    Column("advantage_specificity", "specificity, advantage", GENERAL),
    Column("advantage_diagonal", "on the diagonal", SHARE),
    Column("finding", "finding"),
    Column("answer", "answer"),
    Column("criterion", "criterion"),
    Column("met", "met"),
    Column("measure", "measure"),
    Column("score", "value", SCORE),
    Column("score_low", "low", SCORE),
    Column("score_high", "high", SCORE),
    Column("chance_level", "chance", SCORE),
    # homogeneity
    Column("num_classes", "classes", COUNT),
    Column("steps", "steps", COUNT),
    Column("mean", "mean", LOSS),
    # published
    Column("fraction", "fraction", "{:g}"),
    Column("active_experts", "active experts", COUNT),
    # provenance
    Column("smoe_ray", "smoe-ray"),
    Column("torch", "torch"),
    Column("numpy", "numpy"),
    Column("python", "Python"),
    Column("numerics", "numerics", COUNT),
    Column("trials", "trials", COUNT),
    Column("first_started", "first started, UTC"),
    Column("last_ended", "last ended, UTC"),
    Column("file", "checkpoint"),
    Column("sha256", "SHA-256"),
)
"""Columns of the report's tables; docs/metrics.md has their formulas. A column ``<name>_sd`` (sample standard
deviation) is shown beside the mean in column ``<name>``."""


def _by_name(columns: Iterable[Column]) -> dict[str, Column]:
    found: dict[str, Column] = {}
    for column in columns:
        if found.setdefault(column.name, column) is not column:
            raise ValueError(f"column '{column.name}' is defined twice")
    return found


RESULTS = _by_name((*IDENTITY, *TRAINING, *TEST, *EXPERTS, *LATENT, *COST))
"""Columns of `read_results`, but for the ``config.<path>`` of the specs."""

LOSS_COLUMNS = frozenset(column.name for column in RESULTS.values() if column.unit in (_ERROR, _ERROR_PER_VALUE))
"""Results whose unit depends on the likelihood."""

COLUMNS = _by_name((*RESULTS.values(), *STATISTICS))
"""All columns by name."""

TRIAL_TABLE = (
    "arm",
    "seed",
    "status",
    "epoch",
    "experts.configured",
    "experts.active",
    "experts.effective",
    "test.reconstruction",
    "test.reconstruction_soft",
    "gap",
    "trial_id",
    "test.kl",
    "latent.active",
    "test.psnr",
)
"""Columns of the table of trials that the command prints and the dashboard shows, in this order."""


def names_of(family: str, columns: Iterable[Column]) -> list[str]:
    """Names of those columns that models of the family have."""
    return [column.name for column in columns if column.family in (None, family)]


def trial_table(families: Collection[str]) -> list[str]:
    """`TRIAL_TABLE` for models of these families: without what none of them has, and with the test columns that one of
    them alone has.
    """
    names = [name for name in TRIAL_TABLE if COLUMNS[name].family in (None, *families)]
    if "contrastive" in families:
        own = [column.name for column in TEST if column.family == "contrastive"]
        names[names.index("trial_id") : names.index("trial_id")] = own
    return names


def listed(words: Iterable[str], last: str = "and") -> str:
    """``a, b and c``; nothing if there are no words."""
    *first, end = [*words] or [""]
    return f"{', '.join(first)} {last} {end}" if first else end


def count(number: float, noun: str, plural: str | None = None) -> str:
    """A number with its noun, in the plural unless it is 1: ``1 trial``, ``2,000 trials``."""
    digits = f"{number:,.0f}" if float(number).is_integer() else f"{number:g}"
    return f"{digits} {noun if number == 1 else plural or noun + 's'}"


def format_cell(name: str, value: Any, sd: Any = None) -> str:
    """A value of a column in words, with its standard deviation if there is one; a dash where there is no value."""
    form = COLUMNS[name].number_format
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ABSENT
    if isinstance(value, float) and math.isinf(value):
        return "never"
    if (name in ("p", "p_holm") or name.endswith("_p")) and value < 0.001:
        return "< 0.001"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = form.format(value).replace("-", "\N{MINUS SIGN}").replace("%", " %") if form != TEXT else str(value)
    if sd is None:
        return text
    return f"{text} ± {form.format(sd)}" if not math.isnan(sd) else text
