"""Neural networks: tensors in, tensors out, no probability."""

from vaeflow.nets.base import Decoder, Encoder
from vaeflow.nets.conditioner import Conditioner, ConvConditioner, MLPConditioner
from vaeflow.nets.gated_conv import GatedConvDecoder, GatedConvEncoder
from vaeflow.nets.made import MADE
from vaeflow.nets.mlp import MLP, MLPDecoder, MLPEncoder

__all__ = [
    "MADE",
    "MLP",
    "Conditioner",
    "ConvConditioner",
    "Decoder",
    "Encoder",
    "GatedConvDecoder",
    "GatedConvEncoder",
    "MLPConditioner",
    "MLPDecoder",
    "MLPEncoder",
]
