"""Neural networks: tensors in, tensors out, no probability."""

from vaeflow.nets.base import Decoder, Encoder
from vaeflow.nets.conditioner import Conditioner, ConvConditioner, MLPConditioner
from vaeflow.nets.gated_conv import GatedConvDecoder, GatedConvEncoder
from vaeflow.nets.masked_mlp import MaskedMLP
from vaeflow.nets.mlp import MLP, MLPDecoder, MLPEncoder

__all__ = [
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
    "MaskedMLP",
]
