"""The contracts of encoders and decoders, on every row of the tables."""

from __future__ import annotations

import pytest

from smoe_ray.spec.architectures import DECODERS, ENCODERS
from smoe_ray.testing.architectures import DecoderContract, EncoderContract


class TestEncoders(EncoderContract):
    @pytest.fixture(params=ENCODERS)
    def encoder(self, request: pytest.FixtureRequest) -> str:
        return request.param


class TestDecoders(DecoderContract):
    @pytest.fixture(params=DECODERS)
    def decoder(self, request: pytest.FixtureRequest) -> str:
        return request.param
