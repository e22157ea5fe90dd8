"""Convolutions in which each pixel, and each group of its channels, reads only what comes before it."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaeflow.errors import VaeflowError


class MaskedConv2d(nn.Conv2d):
    """A convolution along a row: pixel j reads pixels before it in its row, and at j itself some groups of channels.

    Channels lie in groups, one for each channel of the data, in the order in which these are modelled. At its own pixel
    group c reads groups before c (mask A), or up to c (mask B).

    Source: van den Oord, Kalchbrenner & Kavukcuoglu 2016, arXiv 1601.06759, section 3.4.

    Args:
        in_channels, out_channels: multiples of ``groups_of_channels``.
        taps: how many pixels are read, the own one included.
        mask: A or B.
        groups_of_channels: how many.
    """

    mask: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, taps: int, mask: Literal["A", "B"], groups_of_channels: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, (1, taps))
        for channels in (in_channels, out_channels):
            if channels % groups_of_channels:
                raise VaeflowError(f"{channels} channels cannot be in {groups_of_channels} groups of one size.")
        of_output, of_input = (
            torch.arange(groups_of_channels).repeat_interleave(channels // groups_of_channels)
            for channels in (out_channels, in_channels)
        )
        allowed = torch.ones(out_channels, in_channels, 1, taps)
        allowed[..., -1] = (of_input < of_output[:, None] + (mask == "B")).float().unsqueeze(-1)
        self.register_buffer("mask", allowed, persistent=False)
        self.taps = taps

    def forward(self, x: Tensor) -> Tensor:
        """``(rows, in_channels, height, width)`` → ``(rows, out_channels, height, width)``."""
        return F.conv2d(F.pad(x, (self.taps - 1, 0)), self.weight * self.mask, self.bias)
