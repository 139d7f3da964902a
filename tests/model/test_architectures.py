"""The contracts of encoders and decoders, on every row of the tables."""

from __future__ import annotations

import pytest

from smoe_ray.spec import ImageShape
from smoe_ray.spec.architectures import DECODERS, ENCODERS
from smoe_ray.spec.decoders import CPDecoderSpec, SharedDecoderSpec
from smoe_ray.testing.architectures import Decoder, DecoderContract, EncoderContract


class _Shapes:
    @pytest.fixture(params=[(1, 28, 28), (3, 40, 48)], ids=["grey", "colour"])
    def image_shape(self, request: pytest.FixtureRequest) -> ImageShape:
        shape: ImageShape = request.param
        return shape


class TestEncoders(_Shapes, EncoderContract):
    @pytest.fixture(params=ENCODERS)
    def encoder(self, request: pytest.FixtureRequest) -> str:
        return request.param


class TestDecoders(_Shapes, DecoderContract):
    @pytest.fixture(params=[*DECODERS, CPDecoderSpec(rank=5), SharedDecoderSpec()], ids=str)
    def decoder(self, request: pytest.FixtureRequest) -> Decoder:
        decoder: Decoder = request.param
        return decoder
