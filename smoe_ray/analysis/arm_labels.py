"""Arms of a study: groups of trials that differ only in the seed, each with a short, readable label."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from smoe_ray.analysis.datasets import DATASET, dataset_names
from smoe_ray.analysis.outcomes import require

_TOKENS: dict[str, str] = {
    DATASET: "{}",
    "routing": "{}",
    "objective.name": "{}",
    "objective.likelihood": "{}",
    "data.source": "{}",
    "model.num_experts": "E={}",
    "data.fraction": "{} % data",
    "training.budget": "{}",
    "model.encoder": "{} encoder",
    "model.decoder": "{} decoder",
    "model.decoder.name": "{} decoder",
    "model.gate.name": "{} gate",
    "model.latent_dim": "Z={}",
    "model.gate.groups": "{} groups",
    "objective.lambda_balance": "λ_balance={}",
    "objective.lambda_entropy": "λ_entropy={}",
    "training.learning_rate": "lr={}",
    "training.beta": "β={}",
    "training.batch_size": "batch={}",
}
"""Format of a value in a label. Also the order in which paths split the trials; other paths follow alphabetically."""

_MODIFIERS = "modifiers."

IRRELEVANT = ("seed", "resources.", "evaluation.save_embeddings")
"""Config paths (or prefixes) that never separate arms: seeds are replicates, the rest cannot change a result."""


def arms(results: pd.DataFrame, ignore: Collection[str] = ()) -> pd.Series[str]:
    """Label each trial by the settings in which the study's arms differ, for example ``blend, E=10``.

    Trials on several datasets are split by their names (`dataset_names`) first: ``mnist, blend, E=10``.
    Trials are split path by path, and a path enters a label only if trials in the same group still differ in it. A path
    whose value follows from earlier ones (`objective.lambda_entropy`, absent under `likelihood`) is therefore left out.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        ignore: dotted spec paths that do not separate arms, usually the one on the x axis.

    Returns:
        Label per trial, indexed by `trial_id`; an ordered categorical, sorted by the values behind the labels.

    Raises:
        ResultsError: `results` has no column `trial_id`.
    """
    require(results, ("trial_id",))
    trials = results.drop_duplicates("trial_id").set_index("trial_id")
    paths = [column.removeprefix("config.") for column in trials.columns if column.startswith("config.")]
    paths = [
        path
        for path in {DATASET: None, **dict.fromkeys(paths)}
        if path not in ignore and not path.startswith(IRRELEVANT)
    ]
    paths = [path for path in paths if not path.endswith(".download")]
    paths.sort(key=lambda path: (list(_TOKENS).index(path) if path in _TOKENS else len(_TOKENS), path))
    value_of = {
        path: dict(zip(trials.index, map(_plain, trials[f"config.{path}"]), strict=True))
        for path in paths
        if path != DATASET
    }
    for path in value_of.keys() & {path.removesuffix(".name") for path in value_of if path.endswith(".name")}:
        names = value_of[f"{path}.name"]  # of a decoder, say, that some trials have as a name and others as a mapping
        value_of[path] = {trial: names[trial] if value is None else value for trial, value in value_of[path].items()}
    if DATASET in paths:
        value_of[DATASET] = dataset_names(results).to_dict()

    for path in paths:
        if path.endswith(".root") and "data.fingerprint" in trials:
            # Identical data in different folders make one arm: use the first folder for all of them.
            first = dict(zip(trials["data.fingerprint"][::-1], trials.index[::-1], strict=True))
            value_of[path] = {trial: value_of[path][first[data]] for trial, data in trials["data.fingerprint"].items()}
    label_of: dict[str, str] = {}
    labels: list[str] = []
    for tokens, members in _split(list(trials.index), paths, value_of):
        label = _join(tokens) if tokens else _common_label(members[:1], paths, value_of)
        labels.append(label)
        label_of.update(dict.fromkeys(members, label))
    categories = pd.Categorical([label_of[trial] for trial in trials.index], categories=labels, ordered=True)
    return pd.Series(categories, index=trials.index, name="arm")


def coarse_arms(results: pd.DataFrame, paths: Collection[str]) -> pd.Series[str]:
    """As `arms`, but split by dataset and the given dotted spec paths only: for searches, where every trial is its own
    arm.
    """
    others = [column.removeprefix("config.") for column in results.columns if column.startswith("config.")]
    return arms(results, ignore=[path for path in others if path not in (DATASET, *paths)])


def _split(
    trials: Sequence[str], paths: Sequence[str], value_of: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[tuple[str, ...], Sequence[str]]]:
    """Split by the first path in which the trials differ, then split each part by the remaining paths."""
    for position, path in enumerate(paths):
        parts: dict[Any, list[str]] = {}
        for trial in trials:
            parts.setdefault(value_of[path][trial], []).append(trial)
        if len(parts) > 1:
            values = sorted(parts, key=lambda value: (value is None, isinstance(value, str | tuple), value))
            for token, value in zip(_distinct_tokens(path, values), values, strict=True):
                for tokens, members in _split(parts[value], paths[position + 1 :], value_of):
                    yield (token, *tokens), members
            return
    if trials:
        yield (), trials


def _distinct_tokens(path: str, values: Sequence[Any]) -> list[str]:
    tokens = [_token(path, value) for value in values]
    return tokens if len(set(tokens)) == len(tokens) else [f"{path}={value!r}" for value in values]


def _token(path: str, value: Any) -> str:
    name = path.rpartition(".")[2]
    if path.startswith(_MODIFIERS):
        # A label names the modifiers that an arm has: `revival.every=100`.
        return "" if value is None else f"{path.removeprefix(_MODIFIERS)}={_text(value)}"
    if value is None:
        return f"{name}=none"
    if path == "data.fraction":
        value = 100 * value
    elif name == "root":
        value = str(value).rstrip("/").rpartition("/")[2]
    return _TOKENS.get(path, name + "={}").format(_text(value))


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _join(tokens: Sequence[str]) -> str:
    # "unsupervised" is the default and implied by the name of an objective; "supervised" is both a routing and the name
    # of its objective: once is enough.
    words = [word for word in tokens if word and word != "unsupervised"]
    return ", ".join(dict.fromkeys(words or [token or "no modifier" for token in tokens]))


def _common_label(trial: Sequence[str], paths: Sequence[str], value_of: Mapping[str, Mapping[str, Any]]) -> str:
    """Label of a single arm: nothing differs, so describe the trials by routing, objective and number of experts."""
    told = {
        path: value_of[path][trial[0]] for path in paths if path in ("routing", "objective.name", "model.num_experts")
    }
    return _join([_token(path, value) for path, value in told.items() if value is not None]) or "all trials"


def _plain(value: Any) -> Any:
    """A hashable Python value, equal for equal settings regardless of the file format; null becomes None."""
    if value is None or isinstance(value, str | int):  # fast path: most values
        return value
    if isinstance(value, np.ndarray | list | tuple):
        return tuple(_plain(item) for item in value)
    if isinstance(value, Mapping):
        return str(value)
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
