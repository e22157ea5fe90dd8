"""Nets: what may depend on what, and shapes of every size."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import redraw
from vaeflow.errors import VaeflowError
from vaeflow.nets import GatedConvDecoder, GatedConvEncoder, MaskedMLP, MLPDecoder, MLPEncoder


@pytest.mark.parametrize("features", [1, 2, 5])
@pytest.mark.parametrize("hidden", [[3], [16], [16, 9, 20]])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("context_features", [0, 2])
def test_made_outputs_depend_on_earlier_features_and_on_the_context(
    features: int, hidden: list[int], reverse: bool, context_features: int
) -> None:
    made = redraw(MaskedMLP(features, 2, hidden, context_features, "tanh", reverse).double(), 1.0)
    x, context = torch.randn(features).double(), torch.randn(context_features).double()
    arguments = (x, context) if context_features else (x,)

    def outputs(x: torch.Tensor, *c: torch.Tensor) -> torch.Tensor:
        return made(x[None], c[0][None] if c else None)[0]

    by_x, *by_context = (j.transpose(0, 1) for j in torch.autograd.functional.jacobian(outputs, arguments))
    assert by_x.shape == (2, features, features)
    position = torch.tensor(made.order).argsort()
    allowed = position[:, None] > position
    assert not by_x[:, ~allowed].any()
    if hidden != [3]:  # three units are too few for every path
        assert by_x[:, allowed].abs().gt(0).all()
    if by_context:
        assert by_context[0].abs().sum(-1).gt(0).all()


@pytest.mark.parametrize("size", [(28, 28), (28, 20), (8, 8), (5, 7), (1, 1), (33, 64)])
@pytest.mark.parametrize("context_features", [0, 3])
def test_gated_convolutions_take_images_of_any_size(size: tuple[int, int], context_features: int) -> None:
    shape = (3, *size)
    context = torch.randn(2, context_features) if context_features else None
    encoder = GatedConvEncoder(shape, context_features, features=32)
    decoder = GatedConvDecoder(4, (6, *size))
    assert encoder(torch.randn(2, *shape), context).shape == (2, 32)
    assert decoder(torch.randn(5, 2, 4)).shape == (5, 2, 6, *size)
    assert decoder.output_bias.shape == (6, 1, 1)


def test_gated_convolutions_refuse_vectors() -> None:
    for make in (lambda: GatedConvEncoder((5,)), lambda: GatedConvDecoder(2, (5,))):
        with pytest.raises(VaeflowError, match="convolutional nets take images"):
            make()


def test_mlps_flatten_and_use_their_context() -> None:
    encoder, decoder = MLPEncoder((1, 3, 2), 2, [7]), MLPDecoder(4, (1, 3, 2), [7])
    x, z, context = torch.randn(5, 1, 3, 2), torch.randn(3, 5, 4), torch.randn(5, 2)
    assert encoder(x, context).shape == (5, encoder.features) == (5, 7)
    assert decoder(z).shape == (3, 5, 1, 3, 2)
    assert not torch.equal(encoder(x, context), encoder(x, -context))


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(VaeflowError, match="activation is 'swish', expected one of relu, elu"):
        MLPEncoder((4,), activation="swish")
