"""Random number generators: an independent stream per purpose, all derived from the seed of the trial."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What random numbers are drawn for, so that no purpose depends on how much another one draws."""

    SHUFFLING = 0
    LATENT_NOISE = 1
    EVALUATION = 2
    KMEANS = 3
    REVIVAL = 4
    PROBE = 5
    COUPLING = 6


def random_stream(device: torch.device, seed: int, stream: Stream, epoch: int = 0) -> torch.Generator:
    """A generator on `device`, independent of those of any other seed, stream or epoch."""
    state = np.random.SeedSequence((seed, stream, epoch)).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))
