"""Counter-based random numbers: a draw depends on what it is for, never on what was drawn before it.

Every random number of training and evaluation is a function of (seed, stage, epoch, example, sample, name). So
nothing depends on the number of processes, on the batch or chunk size or, beyond the rounding of a logarithm and a
cosine, on the device; there is no generator state to save, and a resumed run continues with the very numbers that an
uninterrupted one would have drawn.

The generator is SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"), whose
output function is applied to a counter; here the example and the sample choose the stream and the feature counts.
Its definition is in torch operations on int64, whose products and sums wrap around modulo 2⁶⁴; machine code
gives the same bits in one pass.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vaeflow.errors import VaeflowError, is_integer
from vaeflow.kernels import attempt
from vaeflow.tracing import is_eager, is_in_backward


def _signed(word: int) -> int:
    """The int64 with the bits of a 64-bit word."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >= 1 << 63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift(h: Tensor, bits: int) -> Tensor:
    """Logical shift to the right (torch's ``>>`` on int64 is arithmetic)."""
    return (h >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(h: Tensor) -> Tensor:
    """SplitMix64's output function, a bijection of 64 bits. Overwrites ``h``."""
    h.bitwise_xor_(_shift(h, 30)).mul_(_MIX_1)
    h.bitwise_xor_(_shift(h, 27)).mul_(_MIX_2)
    return h.bitwise_xor_(_shift(h, 31))


def _mix_word(h: int) -> int:
    """:func:`_mix` of one 64-bit word, in Python's integers: a tensor operation costs more than all of it."""
    word = (1 << 64) - 1
    h &= word
    h = (h ^ h >> 30) * _MIX_1 & word
    h = (h ^ h >> 27) * _MIX_2 & word
    return h ^ h >> 31


def _stream(keys: Tensor, counters: Tensor) -> Tensor:
    """Elements ``counters`` of the streams that start at ``keys``: int64, shape ``(*keys, *counters)``."""
    return _mix(keys.unsqueeze(-1) + (counters + 1) * _GOLDEN)


@dataclass(frozen=True)
class Noise:
    """A source of random numbers for the examples of one batch.

    Args:
        seed: of the run, or of the evaluation.
        stage: ``"train"``, ``"val"``, ``"test"`` or ``"sample"``: each has its own numbers.
        epoch: 0 wherever the same numbers are wanted each time, as in validation.
        index: the examples' indices in their data set, int64 ``(batch,)``, on the device where noise is wanted.
        first_sample: number of the first sample to draw; evaluation in chunks moves it on by :meth:`skip`.
        scope: what the names of all draws are within; see :meth:`within`.
        temperature: what the standard deviation of all draws is multiplied by; see :meth:`cooled`.

    >>> noise = Noise(seed=0).at(torch.tensor([7, 3]))
    >>> both = noise.normal("z", num_samples=2, event_shape=(5,))
    >>> both.shape
    torch.Size([2, 2, 5])
    >>> torch.equal(both[1:], noise.skip(1).normal("z", num_samples=1, event_shape=(5,)))
    True
    >>> decoder = noise.within("decoder")
    >>> torch.equal(decoder.within("3").normal("z", 1, (4, 8, 8)), noise.normal("decoder/3/z", 1, (4, 8, 8)))
    True
    """

    seed: int = 0
    stage: str = "sample"
    epoch: int = 0
    index: Tensor | None = None
    first_sample: int = 0
    scope: str = ""
    temperature: float = 1.0
    samples: Tensor | None = field(default=None, repr=False)
    """Numbers ``(num_samples, batch)`` of the samples to draw, where they are not consecutive; see :meth:`pick`."""
    drawn: set[tuple[str, int]] | None = field(default=None, repr=False, compare=False)
    """What has been drawn, where draws are watched; see :meth:`watched`."""

    def __post_init__(self) -> None:
        for name in ("seed", "epoch", "first_sample"):
            if not is_integer(value := getattr(self, name)):
                raise VaeflowError(f"{name} of Noise is {value!r}, expected an integer.")
        if self.first_sample < 0:
            raise VaeflowError(f"first_sample of Noise is {self.first_sample}, expected 0 or more.")
        if not isinstance(self.stage, str):
            raise VaeflowError(f"stage of Noise is {self.stage!r}, expected a word such as 'sample'.")
        if self.index is None:
            return
        if not isinstance(self.index, Tensor) or self.index.dim() != 1 or self.index.dtype != torch.int64:
            what = self.index.dtype if isinstance(self.index, Tensor) else type(self.index).__name__
            shape = f" of shape {tuple(self.index.shape)}" if isinstance(self.index, Tensor) else ""
            raise VaeflowError(f"index of Noise is {what}{shape}, expected a tensor (batch,) of int64.")

    def at(self, index: Tensor) -> Noise:
        """The same source for other examples."""
        return replace(self, index=index)

    def skip(self, num_samples: int) -> Noise:
        """The same source with ``num_samples`` samples passed over."""
        return replace(self, first_sample=self.first_sample + num_samples)

    def pick(self, samples: Tensor) -> Noise:
        """The same source for single samples that were drawn before, others of each example.

        Args:
            samples: int64 ``(m, batch)``, counted from :attr:`first_sample`. Draws of m samples then give these.
        """
        return replace(self, samples=samples, drawn=None)

    def within(self, scope: str) -> Noise:
        """The same source for one part of a model: its draws are named ``scope/name``, so that two parts alike do not
        draw the same numbers."""
        return replace(self, scope=f"{self.scope}{scope}/")

    def cooled(self, temperature: float) -> Noise:
        """The same source with every normal number, and the logit of every uniform one, multiplied by a temperature; at
        0 all numbers are their means, 0 and ½."""
        return replace(self, temperature=temperature)

    def watched(self) -> Noise:
        """The same source, which refuses to draw the same numbers twice: two parts of a model that use one name would
        quietly get the same noise. What a backward pass computes again may draw it again."""
        return replace(self, drawn=set())

    @torch.compiler.disable
    def normal(
        self, name: str, num_samples: int, event_shape: Sequence[int], dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Standard normal numbers ``(num_samples, batch, *event_shape)``, by Box and Muller's transform.

        Args:
            name: what the numbers are for; different names give independent numbers.
        """
        features = math.prod(event_shape)
        bits = self._bits(name, num_samples, (features + 1) // 2)
        angle = (bits >> 32).to(dtype).mul_(math.pi * 2.0**-31)
        uniform = bits.bitwise_and_(0xFFFFFFFF).to(dtype).add_(0.5).mul_(2.0**-32)
        radius = uniform.log_().mul_(-2.0).sqrt_()
        flat = torch.cat([radius * angle.cos(), angle.sin_().mul_(radius)], dim=-1)[..., :features]
        if self.temperature != 1:
            flat = self.temperature * flat
        return flat.reshape(*flat.shape[:-1], *event_shape)

    @torch.compiler.disable
    def uniform(
        self, name: str, num_samples: int, event_shape: Sequence[int], dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Numbers ``(num_samples, batch, *event_shape)`` uniform on the open interval (0, 1)."""
        features = math.prod(event_shape)
        # (k + ½) 2⁻ᵐ of m bits is exact with m one less than the mantissa has: neither 0 nor 1 can come out
        if dtype == torch.float64:
            flat = _shift(self._bits(name, num_samples, features), 12).to(dtype).add_(0.5).mul_(2.0**-52)
        else:
            halves = self._bits(name, num_samples, (features + 1) // 2).view(torch.int32)[..., :features]
            flat = halves.bitwise_right_shift_(9).bitwise_and_((1 << 23) - 1).to(dtype).add_(0.5).mul_(2.0**-23)
        if self.temperature != 1:
            least = torch.finfo(dtype).eps / 2  # rounding must not reach 0 or 1
            flat = torch.sigmoid(self.temperature * torch.logit(flat)).clamp(least, 1 - least)
        return flat.reshape(*flat.shape[:-1], *event_shape)

    def _bits(self, name: str, num_samples: int, counters: int) -> Tensor:
        if self.index is None:
            raise VaeflowError("this noise source has no examples: call noise.at(index) with their indices first.")
        device, name = self.index.device, self.scope + name
        if self.drawn is not None and not torch.compiler.is_compiling() and not is_in_backward():
            if (name, self.first_sample) in self.drawn:
                raise VaeflowError(
                    f"two parts of the model draw noise of the name {name!r} and would get the same numbers: give each "
                    "a scope of its own, as in noise.within('decoder')."
                )
            self.drawn.add((name, self.first_sample))
        key = 0
        for part in (self.seed, zlib.crc32(self.stage.encode()), self.epoch, zlib.crc32(name.encode())):
            key = _mix_word((key ^ int(part)) + _GOLDEN)
        module = {"cpu": "random_bits", "cuda": "random_bits_gpu"}.get(device.type)
        if module is not None and self.samples is None and is_eager():
            bits = attempt(module, "random_bits", self.index, key, self.first_sample, num_samples, counters)
            if bits is not None:
                return bits
        examples = _mix(self.index * _GOLDEN + _signed(key + _GOLDEN))
        samples = torch.arange(num_samples, device=device).unsqueeze(-1) if self.samples is None else self.samples
        streams = examples + (samples + (self.first_sample + 1)) * _GOLDEN
        streams = _mix(_mix(streams))  # twice: the counters below use the same increment
        return _stream(streams, torch.arange(counters, device=device))
