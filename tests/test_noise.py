"""Noise is a function of what it is for, and it is random."""

from __future__ import annotations

import importlib

import pytest
import torch
from scipy import stats
from torch.utils.checkpoint import checkpoint

from vaeflow import noise
from vaeflow.errors import VaeflowError
from vaeflow.noise import Noise

INDEX = torch.arange(50)
NOISE = Noise(seed=3, stage="train", epoch=2, index=INDEX)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("draw", ["normal", "uniform"])
class TestDraws:
    def test_a_draw_depends_on_example_and_sample_alone(self, draw: str, dtype: torch.dtype) -> None:
        whole = getattr(NOISE, draw)("z", 6, (7,), dtype)
        assert whole.shape == (6, 50, 7)
        assert whole.dtype == dtype
        order = torch.randperm(50)[:9]
        part = getattr(NOISE.at(INDEX[order]).skip(2), draw)("z", 3, (7,), dtype)
        assert torch.equal(part, whole[2:5, order])

    def test_what_it_is_for_changes_every_number(self, draw: str, dtype: torch.dtype) -> None:
        base = getattr(NOISE, draw)("z", 2, (5,), dtype)
        for other in (
            Noise(4, "train", 2, INDEX),
            Noise(3, "val", 2, INDEX),
            Noise(3, "train", 3, INDEX),
            NOISE.at(INDEX + 50),
            NOISE.skip(2),
        ):
            assert not torch.isin(getattr(other, draw)("z", 2, (5,), dtype), base).any()
        assert not torch.isin(getattr(NOISE, draw)("u", 2, (5,), dtype), base).any()

    def test_events_have_shapes(self, draw: str, dtype: torch.dtype) -> None:
        flat = getattr(NOISE, draw)("z", 2, (12,), dtype)
        assert torch.equal(getattr(NOISE, draw)("z", 2, (3, 2, 2), dtype).flatten(2), flat)
        assert getattr(NOISE, draw)("z", 2, (), dtype).shape == (2, 50)

    def test_single_samples_are_drawn_again(self, draw: str, dtype: torch.dtype) -> None:
        whole = getattr(NOISE.skip(3), draw)("z", 6, (5,), dtype)
        picked = torch.randint(0, 6, (4, 50))
        again = getattr(NOISE.skip(3).pick(picked), draw)("z", 4, (5,), dtype)
        assert torch.equal(again, whole.take_along_dim(picked.unsqueeze(-1), 0))

    def test_scopes_are_part_of_the_name(self, draw: str, dtype: torch.dtype) -> None:
        nested = NOISE.within("decoder").within("3")
        assert torch.equal(
            getattr(nested, draw)("z", 2, (5,), dtype), getattr(NOISE, draw)("decoder/3/z", 2, (5,), dtype)
        )
        assert not torch.isin(
            getattr(NOISE.within("a"), draw)("z", 2, (5,), dtype), getattr(NOISE.within("b"), draw)("z", 2, (5,), dtype)
        ).any()

    def test_a_temperature_scales_about_the_mean_and_stays_in_range(self, draw: str, dtype: torch.dtype) -> None:
        whole = getattr(NOISE, draw)("z", 4, (50,), dtype)
        middle = 0.5 if draw == "uniform" else 0.0
        assert (getattr(NOISE.cooled(0.0), draw)("z", 4, (50,), dtype) == middle).all()
        for temperature in (0.5, 1.5, 30.0):
            scaled = getattr(NOISE.cooled(temperature), draw)("z", 4, (50,), dtype)
            further = (scaled - middle).abs() - (whole - middle).abs()
            assert (further >= 0).all() if temperature > 1 else (further <= 0).all()
            if draw == "uniform":
                assert ((scaled > 0) & (scaled < 1)).all()
            else:
                torch.testing.assert_close(scaled, temperature * whole)

    def test_distribution(self, draw: str, dtype: torch.dtype) -> None:
        values = getattr(Noise(index=torch.arange(1000)), draw)("z", 20, (11,), dtype)
        cdf = stats.norm.cdf if draw == "normal" else stats.uniform.cdf
        assert stats.kstest(values.flatten().double().numpy(), cdf).pvalue > 1e-3
        for axis in (0, 1, 2):
            moved = values.movedim(axis, 0).flatten(1).double()
            correlation = torch.corrcoef(torch.stack([moved[:-1].flatten(), moved[1:].flatten()]))[0, 1]
            assert correlation.abs() < 4 / moved[1:].numel() ** 0.5


def test_uniform_numbers_are_never_0_or_1() -> None:
    values = Noise(index=torch.arange(1000)).uniform("u", 100, (40,))
    assert values.min() > 0
    assert values.max() < 1


def test_noise_does_not_touch_the_global_stream() -> None:
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    NOISE.normal("z", 1, (3,))
    assert torch.equal(torch.rand(3), wanted)


def test_noise_of_no_examples_is_an_error() -> None:
    with pytest.raises(VaeflowError, match="no examples"):
        Noise().normal("z", 1, (1,))
    assert NOISE.at(torch.arange(0)).normal("z", 2, (3,)).shape == (2, 0, 3)


def test_the_same_numbers_are_not_drawn_twice_by_two_parts() -> None:
    watched = NOISE.watched()
    watched.normal("z", 2, (3,))
    watched.skip(2).normal("z", 2, (3,))
    watched.within("decoder").normal("z", 2, (3,))
    with pytest.raises(VaeflowError, match=r"'decoder/z'.*noise\.within"):
        watched.within("decoder").uniform("z", 2, (3,))
    NOISE.normal("z", 2, (3,))  # which is not watched


def test_a_backward_pass_may_draw_again_what_its_forward_pass_drew() -> None:
    watched, x = NOISE.watched(), torch.ones(50, 3, requires_grad=True)

    def noisy(x: torch.Tensor) -> torch.Tensor:
        return x * watched.normal("z", 1, (3,))[0]

    checkpoint(noisy, x, use_reentrant=False).sum().backward()
    assert torch.equal(x.grad, NOISE.normal("z", 1, (3,))[0])


@pytest.mark.parametrize(
    "index", [torch.arange(5), torch.tensor([7, -3, 2**62]), torch.arange(9)[::2], torch.arange(0)]
)
def test_machine_code_draws_the_same_bits(index: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Noise(2**63 + 5, "test", 3, index, first_sample=10**9)
    drawn = [source._bits("z", 4, counters) for counters in (0, 1, 17)]
    monkeypatch.setattr(noise, "attempt", lambda *arguments: None)
    for bits in drawn:
        assert torch.equal(bits, source._bits("z", 4, bits.shape[-1]))


@pytest.mark.parametrize("index", [torch.tensor([7, -3, 2**62]), torch.arange(3000)[::2], torch.arange(0)])
@pytest.mark.parametrize("key", [0, 5, 2**63 + 11, 2**64 - 1])
def test_the_kernel_for_gpus_draws_the_same_bits(index: torch.Tensor, key: int) -> None:
    """Run by Triton in Python."""
    pytest.importorskip("triton")
    kernel, machine_code = (
        importlib.import_module(f"vaeflow.kernels.{name}") for name in ("random_bits_gpu", "random_bits")
    )
    for first_sample in (0, 10**10):
        arguments = (key, first_sample, 2, 3)
        assert torch.equal(kernel.random_bits(index, *arguments), machine_code.random_bits(index, *arguments))


@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_noise_inside_transforms_of_functions_is_the_same(draw: str) -> None:
    wanted = getattr(NOISE, draw)("z", 2, (50,))

    def scaled(x: torch.Tensor) -> torch.Tensor:
        return x * getattr(Noise(3, "train", 2, torch.arange(50)), draw)("z", 2, (50,))

    assert torch.equal(torch.func.jacrev(scaled)(torch.tensor(2.0)), wanted)
    assert torch.equal(torch.func.jacfwd(scaled)(torch.tensor(2.0)), wanted)
    assert torch.equal(torch.func.vmap(scaled)(torch.ones(3)), wanted.expand(3, -1, -1, -1))
