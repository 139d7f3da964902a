"""Results folders, as a run leaves them, without a run: many arms, failures and pruned trials in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from smoe_ray.model import build_model
from smoe_ray.results import DataFacts, Store, Timings, TrialFolder, TrialRecord, Versions
from smoe_ray.spec import ImageShape, TrialSpec, trial_with
from support.planted_results import dying, learning

STUDY = "name: {name}\nquestion: {question}\nbase: {{}}\n"
EPOCHS = 4
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def plant(
    out: Path | str,
    name: str,
    *,
    objectives: Sequence[str] = ("blend", "likelihood"),
    experts: Sequence[int] = (4, 8),
    per_class: Sequence[int] = (100,),
    seeds: int = 3,
    routing: str = "unsupervised",
    question: str = "Does it hold?",
    class_names: Sequence[str] = ("cat", "eye", "flower"),
    embeddings: bool = True,
    image_shape: ImageShape = (1, 28, 28),
    ends: Sequence[dict[str, Any]] = (),
    styles: int = 0,
    groups: int | None = None,
) -> list[TrialRecord]:
    """A study whose loss falls with experts and data; its first trials end as `ends` says (fields of the record).

    Images of another shape than that of drawings come from files. With so many `styles` of each class, most images
    go to the expert of their style; `groups` are those of a hierarchical gate.
    """
    source = {"source": "synthetic"} if image_shape == (1, 28, 28) else {"source": "images", "root": "photos"}
    store = Store(out)
    store.write(f"{name}/study.yaml", STUDY.format(name=name, question=json.dumps(question)).encode())
    records = []
    for number, (objective, count, images, seed) in enumerate(product(objectives, experts, per_class, range(seeds))):
        spec = trial_with(
            TrialSpec(seed=seed),
            {
                "routing": routing,
                "model": {"num_experts": count, "encoder": "lite", "latent_dim": 2}
                | ({"gate": {"name": "hierarchical", "groups": groups}} if groups else {}),
                "objective.name": objective,
                "data": source | {"train_per_class": images},
                "training.budget": f"{EPOCHS} epochs",
            },
        )
        end = ends[number] if number < len(ends) else {"status": "finished"}
        record = TrialRecord(
            study=name,
            trial_id=f"{number:04x}{len(name):04x}{seed:04x}",
            spec=spec,
            host="here",
            versions=Versions(smoe_ray="0.1.0", torch="2.9.9", numpy="2.0.0", python="3.11.0", numerics=1),
            timings=Timings(started_at=MOMENT, finished_at=MOMENT),
            data=DataFacts(
                fingerprint="f" * 64,
                train_images=images * len(class_names),
                test_images=60,
                image_shape=image_shape,
                class_names=tuple(class_names),
                style_names=tuple(f"{name}/{style}" for name in class_names for style in range(styles)),
            ),
            **end,
        )
        _write(store, record, seed + number, embeddings)
        records.append(record)
    return records


def _write(store: Store, record: TrialRecord, seed: int, embeddings: bool) -> None:
    folder = TrialFolder(store, record.study, record.trial_id)
    count, images = record.spec.model.num_experts, record.data.train_images if record.data else 1
    usage = dying(count, max(1, count // 2), EPOCHS, seed)
    noise = np.random.default_rng(seed).normal(0, 0.3)
    losses = learning(80, 20 + 2000 / images + 4 * np.log(count / 6) ** 2 + noise, EPOCHS)
    done = EPOCHS if record.status == "finished" else 2
    folder.write_epochs([_row(epoch + 1, losses[epoch], usage[epoch], images) for epoch in range(done)])
    if record.status == "finished":
        assert record.data is not None
        weights = build_model(record.spec.model, record.data.image_shape, seed).state_dict()
        folder.write_weights({key: value.numpy() for key, value in weights.items()})
        if embeddings:
            folder.write_embeddings(_embeddings(record, seed))
    folder.write_record(record)


def _row(epoch: int, loss: float, share_E: Sequence[float], images: int) -> dict[str, Any]:
    alive = np.array([share for share in share_E if share > 0])
    return {
        "epoch": epoch,
        "train.reconstruction": 1.1 * loss,
        "test.reconstruction": loss,
        "test.reconstruction_soft": loss - 1,
        "experts.configured": len(share_E),
        "experts.active": len(alive),
        "experts.effective": float(np.exp(-(alive * np.log(alive)).sum())),
        "experts.max_violation": max(share_E) * len(share_E) - 1,
        "experts.usage": list(share_E),
        "cost.steps": epoch * images // 10,
    }


def _embeddings(record: TrialRecord, seed: int) -> dict[str, Any]:
    """Sixty images whose expert follows their class, each on a latent spot of its own."""
    rng = np.random.default_rng(seed)
    assert record.data is not None
    count, classes = record.spec.model.num_experts, len(record.data.class_names)
    label_B = np.arange(60) % classes
    expert_B = label_B % count
    styled = {}
    if styles := len(record.data.style_names) // classes:
        style_B = styles * label_B + np.arange(60) // classes % styles
        expert_B = style_B % count
        lost = rng.choice(60, 4 + seed, replace=False)
        expert_B[lost] = rng.integers(count, size=len(lost))
        styled = {"style": style_B}
    mu_BZ = np.stack([4.0 * expert_B, label_B], axis=1) + rng.normal(0, 0.5, (60, 2))
    gate_BE = np.full((60, count), 0.1 / count) + 0.9 * np.eye(count)[expert_B]
    channels, *size = record.data.image_shape
    image_BHW = rng.integers(0, 256, (60, *([] if channels == 1 else [channels]), *size), dtype=np.uint8)
    return {
        "mu": mu_BZ.astype(np.float32),
        "label": label_B,
        "expert": expert_B,
        "gate": gate_BE.astype(np.float32),
        "image": image_BHW,
        "reconstruction": (image_BHW / 255).astype(np.float16),
        **styled,
    }
