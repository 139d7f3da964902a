"""The record of a trial, as stored in `trial.json`."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from smoe_ray.notebook import html_table
from smoe_ray.spec import NUMERICS_VERSION, TrialSpec

Status = Literal["running", "finished", "failed", "pruned"]


class _Record(BaseModel):
    # Ignore unknown keys, so that results of later versions can be read.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Versions(_Record):
    """Versions of the software that trained a trial."""

    smoe_ray: str
    torch: str
    numpy: str
    python: str
    numerics: int
    plugins: dict[str, str] = {}
    """Version and source of each plug-in of the trial, by ``package.module:name``."""

    @model_serializer(mode="wrap")
    def _without_plugins_where_there_are_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        return {name: value for name, value in fields.items() if name != "plugins" or value}

    @classmethod
    @cache  # reading package metadata takes milliseconds, and a process trains many trials
    def here(cls) -> Versions:
        """Versions installed in this process's environment; imports none of the packages."""
        return cls(
            smoe_ray=importlib.metadata.version("smoe-ray"),
            torch=importlib.metadata.version("torch"),
            numpy=importlib.metadata.version("numpy"),
            python=platform.python_version(),
            numerics=NUMERICS_VERSION,
        )


class Timings(_Record):
    """When a trial ran. A trial that was killed and resumed keeps its first `started_at`."""

    started_at: datetime
    finished_at: datetime | None = None
    seconds: float = 0.0
    """Wall seconds spent on the trial, summed over restarts, as of its last epoch."""
    restarts: int = 0
    """How often it was resumed after it had been killed or had failed."""


class DataFacts(_Record):
    """The data that a trial was trained on, and the names behind the integers in its embeddings."""

    fingerprint: str
    train_images: int
    test_images: int
    image_shape: tuple[int, int, int] = (1, 28, 28)
    """(C, H, W) of each image; the only shape that there was before it was recorded."""
    class_names: tuple[str, ...]
    style_names: tuple[str, ...] = ()
    parameter_names: tuple[str, ...] = ()


class FileDigest(_Record):
    """What a file must be."""

    size: int
    """Bytes."""
    sha256: str
    """SHA-256 of its content, hex."""

    @classmethod
    def of(cls, content: bytes) -> FileDigest:
        """The digest of a file with this content."""
        return cls.model_construct(size=len(content), sha256=hashlib.sha256(content).hexdigest())


class Imported(_Record):
    """Where weights come from that were not trained here."""

    file: str
    """Name of the checkpoint's file."""
    sha256: str
    """SHA-256 of its content, hex."""


class TrialRecord(_Record):
    """One trial of a study: `trial.json`."""

    study: str
    trial_id: str
    status: Status
    spec: TrialSpec
    host: str
    versions: Versions
    timings: Timings
    data: DataFacts | None = None
    """None if the trial failed before its data were read."""
    imported: Imported | None = None
    """Of a trial that was imported; None: it was trained."""
    reason: str | None = None
    """Why a pruned trial was stopped, in one line."""
    error: str | None = None
    """Why a failed trial failed, in one line."""
    error_kind: str | None = None
    """Class name of that error, e.g. ``DivergedError``."""
    traceback: str | None = None
    notes: tuple[str, ...] = ()
    """One line each: damage that was found and mended while the trial was trained."""
    equivalence_margin: float | None = None
    """The study's when this trial was trained."""
    files: dict[str, FileDigest] = {}
    """What the other files of a trial that has ended must be, by name; empty in records of earlier versions."""

    def _repr_html_(self) -> str:
        config = self.spec.model_dump(mode="json")
        parts = {
            name: ", ".join(f"{k} {v}" for k, v in part.items())
            for name, part in config.items()
            if isinstance(part, dict)
        }
        rows = {
            "study": self.study,
            "status": self.status,
            "why": self.reason or self.error,
            "seed": self.spec.seed,
            "routing": self.spec.routing,
            **parts,
            "imported from": self.imported and f"{self.imported.file} (SHA-256 {self.imported.sha256})",
            "data read": self.data and f"{self.data.train_images:,} training images",
            "seconds": f"{self.timings.seconds:,.1f}",
        }
        return html_table(f"trial {self.trial_id}", rows)


def now() -> datetime:
    """The current time, UTC, truncated to milliseconds."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
