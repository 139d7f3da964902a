"""Probes that measure all that a probe measures, but hardly climb."""

from __future__ import annotations

import pytest

from smoe_ray.training.probe import exciting


def few_steps(patch: pytest.MonkeyPatch) -> None:
    """Let exciting inputs take three steps."""
    patch.setattr(exciting, "_PIXEL_STEPS", 3)
    patch.setattr(exciting, "_LATENT_STEPS", 3)
