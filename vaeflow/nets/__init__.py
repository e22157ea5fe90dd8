"""Neural networks: tensors in, tensors out, no probability."""

from vaeflow.nets.base import Decoder, Encoder
from vaeflow.nets.gated_conv import GatedConvDecoder, GatedConvEncoder
from vaeflow.nets.made import MADE
from vaeflow.nets.mlp import MLP, MLPDecoder, MLPEncoder

__all__ = ["MADE", "MLP", "Decoder", "Encoder", "GatedConvDecoder", "GatedConvEncoder", "MLPDecoder", "MLPEncoder"]
