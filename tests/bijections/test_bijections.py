"""Every bijection has the properties of one. They are found by walking the subclasses, so that none is forgotten."""

from __future__ import annotations

import copy
import functools
import shutil
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import vaeflow.bijections as B
from tests.conftest import redraw
from vaeflow.bijections import Bijection
from vaeflow.errors import VaeflowError
from vaeflow.models.glow import glow_scales
from vaeflow.models.realnvp import realnvp_scales
from vaeflow.nets import ConvConditioner
from vaeflow.nets.glow_conditioner import GlowConditioner
from vaeflow.nets.initialisation import DataDependent

D, C, BATCH = 5, 3, 6
IMAGE = (2, 4, 2)


def fitted_standardise(features: int, context_features: int = 0) -> Bijection:
    bijection = B.Standardise(features, context_features)
    bijection.set(torch.linspace(-2, 3, features), torch.linspace(0.1, 4, features))
    return bijection


def batch_norm(features: int, context_features: int = 0) -> Bijection:
    bijection = B.BatchNorm(features)
    bijection.mean.copy_(torch.linspace(-2, 3, features))
    bijection.variance.copy_(torch.linspace(0.1, 4, features))
    bijection.started.fill_(True)
    return bijection


def composition(features: int, context_features: int = 0) -> Bijection:
    return B.Composition(
        [B.Planar(features, context_features), B.InverseAutoregressive(features, context_features, 2, hidden=[16])]
    )


class Flat(Bijection):
    """A map of images as one of vectors."""

    def __init__(self, bijection: Bijection, shape_of_z: tuple[int, ...], shape_of_x: tuple[int, ...]) -> None:
        super().__init__()
        self.bijection, self.shape_of_z, self.shape_of_x = bijection, shape_of_z, shape_of_x

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.map(self.bijection, z, self.shape_of_z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.map(self.bijection.inverse, x, self.shape_of_x, context)

    @staticmethod
    def map(
        f: Callable[..., tuple[Tensor, Tensor]], value: Tensor, shape: tuple[int, ...], context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if context is not None:
            context = context.expand(*value.shape[:-1], -1).flatten(0, -2)
        image, log_det = f(value.flatten(0, -2).unflatten(1, shape), context)
        return image.reshape(value.shape), log_det.reshape(value.shape[:-1])


def image_coupling(features: int, context_features: int = 0) -> Bijection:
    net = functools.partial(ConvConditioner, channels=8, residual_blocks=1)
    coupling = B.ImageCoupling(B.coupling.checkerboard(IMAGE), context_features, B.Affine, net)
    return Flat(coupling, IMAGE, IMAGE)


def channel_coupling(features: int, context_features: int = 0) -> Bijection:
    net = functools.partial(GlowConditioner, channels=8)
    return Flat(B.ChannelCoupling(2, context_features, B.SigmoidAffine, net), IMAGE, IMAGE)


def squeeze(features: int, context_features: int = 0) -> Bijection:
    return Flat(B.Squeeze(), (8, 2, 1), IMAGE)


def each_pixel(features: int, context_features: int = 0) -> Bijection:
    return Flat(B.EachPixel(B.Coupling(2, context_features, hidden=[8])), IMAGE, IMAGE)


def multi_scale(features: int, context_features: int = 0) -> Bijection:
    shape = (1, 4, 4)
    return Flat(B.MultiScale(shape, realnvp_scales(shape, context_features, 2, 1, 6, 1)), (16,), shape)


def glow(features: int, context_features: int = 0) -> Bijection:
    shape = (1, 4, 4)
    return Flat(B.MultiScale(shape, glow_scales(shape, context_features, 2, 2, 6, 0.0, B.SigmoidAffine)), (16,), shape)


def make_with(cls: type[Bijection], **arguments: object) -> tuple[type[Bijection], Callable[..., Bijection]]:
    return cls, functools.partial(cls, **arguments)


spline = functools.partial(B.RationalQuadraticSpline, bins=5, bound=2.0)
EXAMPLES: dict[str, tuple[type[Bijection], Callable[..., Bijection]]] = {
    "Planar": make_with(B.Planar, steps=3),
    "Radial": make_with(B.Radial, steps=3),
    "Sylvester, orthogonal": make_with(B.Sylvester, steps=2, kind="orthogonal", bottleneck=3),
    "Sylvester, orthogonal, M = D": make_with(B.Sylvester, steps=1, bottleneck=D),
    "Sylvester, householder": make_with(B.Sylvester, steps=2, kind="householder", reflections=3),
    "Sylvester, triangular": make_with(B.Sylvester, steps=2, kind="triangular"),
    "IAF step, gated": make_with(B.InverseAutoregressiveStep, transformer=B.Gated, hidden=[16]),
    "IAF step, gated, reverse": make_with(
        B.InverseAutoregressiveStep, transformer=B.Gated, hidden=[16, 12], reverse=True
    ),
    "IAF step, affine, random degrees": make_with(B.InverseAutoregressiveStep, hidden=[32, 32], degrees="random"),
    "IAF step, spline": make_with(B.InverseAutoregressiveStep, transformer=spline, hidden=[16]),
    "MAF step, affine": make_with(B.MaskedAutoregressiveStep, hidden=[16]),
    "MAF step, affine, residual": make_with(B.MaskedAutoregressiveStep, hidden=[16], residual_blocks=2),
    "MAF step, spline, reverse": make_with(B.MaskedAutoregressiveStep, transformer=spline, hidden=[16], reverse=True),
    "MAF step, additive": make_with(B.MaskedAutoregressiveStep, transformer=B.Additive, hidden=[16]),
    "InverseAutoregressive": make_with(B.InverseAutoregressive, steps=2, hidden=[16]),
    "MaskedAutoregressive": make_with(B.MaskedAutoregressive, steps=2, hidden=[16]),
    "Inverse": make_with(
        B.Inverse, bijection=functools.partial(B.InverseAutoregressiveStep, transformer=B.Gated, hidden=[16])
    ),
    "Inverse of a composition": make_with(B.Inverse, bijection=functools.partial(B.InverseAutoregressive, steps=2)),
    "Composition": (B.Composition, composition),
    "Chain": make_with(B.Chain, bijections=[functools.partial(B.Coupling, hidden=[8]), B.Reversal, B.Planar]),
    "Coupling, additive": make_with(B.Coupling, transformer=B.Additive, hidden=[16]),
    "Coupling, affine": make_with(B.Coupling, hidden=[16, 8], residual_blocks=1),
    "Coupling, spline, swap": make_with(B.Coupling, transformer=spline, hidden=[16], swap=True),
    "ImageCoupling": (B.ImageCoupling, image_coupling),
    "Squeeze": (B.Squeeze, squeeze),
    "EachPixel": (B.EachPixel, each_pixel),
    "MultiScale": (B.MultiScale, multi_scale),
    "MultiScale, Glow": (B.MultiScale, glow),
    "ChannelCoupling": (B.ChannelCoupling, channel_coupling),
    "InvertibleLinear": make_with(B.InvertibleLinear),
    "Permutation": make_with(B.Permutation, seed=1),
    "Reversal": make_with(B.Reversal),
    "Rotation": make_with(B.Rotation),
    "LULinear": make_with(B.LULinear),
    "Rescaling": make_with(B.Rescaling),
    "ActNorm": make_with(B.ActNorm),
    "BatchNorm": (B.BatchNorm, batch_norm),
    "Standardise": (B.Standardise, fitted_standardise),
    "UnitInterval": (B.UnitInterval, lambda features, context_features: B.UnitInterval(features, 17)),
    "Logit": (B.Logit, lambda features, context_features: B.Logit(features, 17, 0.05)),
}
PREPROCESSING = {"Standardise", "UnitInterval", "Logit"}
FIXED = {*PREPROCESSING, "Permutation", "Reversal", "Rotation", "Squeeze"}  # nothing to train
UNCONDITIONAL = {*FIXED, "LULinear", "InvertibleLinear", "Rescaling", "ActNorm", "BatchNorm"}
OF_GLOW = {"MultiScale, Glow", "ChannelCoupling", "InvertibleLinear"}
NOT_IDENTITY_AT_START = {*FIXED, *OF_GLOW, "BatchNorm", "Chain", "MultiScale"}  # the latter permute, or are fitted
KEEP_SOME = {
    "ImageCoupling", "ChannelCoupling", "EachPixel", "Coupling, additive", "Coupling, affine", "Coupling, spline, swap"
}  # fmt: skip
REFLECTIONS = {"Permutation", "Reversal", "Squeeze", "Chain", "MultiScale, Glow", "InvertibleLinear"}
ABSTRACT = {B.Amortised, B.AutoregressiveStep, B.coupling.AnyCoupling}
OF_IMAGES = ("ImageCoupling", "Squeeze", "EachPixel", "MultiScale", "MultiScale, Glow", "ChannelCoupling")
FEATURES = dict.fromkeys(OF_IMAGES, 16)
GENTLE = {"MultiScale": 0.1, "MultiScale, Glow": 0.1, "ChannelCoupling": 0.3}  # couplings amplify what they are given
# Autoregressive steps whose Jacobian is triangular, and in which order
TRIANGULAR = {
    "IAF step, gated": False,
    "IAF step, gated, reverse": True,
    "IAF step, affine, random degrees": False,
    "IAF step, spline": False,
    "MAF step, affine": False,
    "MAF step, affine, residual": False,
    "MAF step, spline, reverse": True,
    "Inverse": False,
}

every = pytest.mark.parametrize("name", EXAMPLES)
context_or_none = pytest.mark.parametrize("conditional", [False, True])


def make(name: str, conditional: bool, gain: float | None = 1.0, dtype: torch.dtype = torch.float64) -> Bijection:
    torch.manual_seed(0)
    bijection = EXAMPLES[name][1](FEATURES.get(name, D), C if conditional else 0).to(dtype).eval()
    if gain is None and isinstance(bijection, DataDependent):
        bijection.started.fill_(True)
    return redraw(bijection, gain * GENTLE.get(name, 1)) if gain is not None else bijection  # type: ignore[return-value]


def inputs(
    name: str, conditional: bool, scale: float = 1.0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    z = scale * torch.randn(BATCH, FEATURES.get(name, D), generator=generator, dtype=torch.float64)
    context = torch.randn(BATCH, C, generator=generator, dtype=torch.float64)
    return z.to(dtype), context.to(dtype) if conditional else None


def as_data(name: str, x: Tensor) -> Tensor:
    """Values that the map can normalise."""
    return 8.5 + 8 * torch.tanh(x / 10) if name == "Logit" else x


def skip_unconditional(name: str, conditional: bool) -> None:
    if conditional and name in UNCONDITIONAL:
        pytest.skip("takes no context")


def jacobian(f: Callable[..., tuple[Tensor, Tensor]], z: Tensor, context: Tensor | None) -> Tensor:
    """``(batch, features, features)`` by autograd, example by example."""
    rows = []
    for i in range(len(z)):
        c = None if context is None else context[i : i + 1]
        rows.append(torch.autograd.functional.jacobian(lambda one, c=c: f(one, c)[0][0], z[i : i + 1])[:, 0])  # type: ignore[misc]
    return torch.stack(rows)


def subclasses(cls: type) -> Iterator[type]:
    for sub in cls.__subclasses__():
        if sub.__module__.startswith("vaeflow."):
            yield sub
        yield from subclasses(sub)


def test_no_bijection_is_missing_from_the_table() -> None:
    assert set(subclasses(Bijection)) - ABSTRACT == {cls for cls, _ in EXAMPLES.values()}


@every
@context_or_none
@pytest.mark.parametrize("gain", [1.0, pytest.param(2.0, marks=pytest.mark.slow), 4.0])
class TestMap:
    """Far from the identity, in both directions, in float64 and float32."""

    def test_forward_log_det_is_autograds(self, name: str, conditional: bool, gain: float) -> None:
        skip_unconditional(name, conditional)
        bijection, (z, context) = make(name, conditional, gain), inputs(name, conditional)
        x, log_det = bijection(z, context)
        assert x.shape == z.shape
        assert log_det.shape == (BATCH,)
        assert not torch.allclose(x, z, atol=1e-3)
        j = jacobian(bijection, z, context)
        tolerance = 1e-10 * (1 + z.norm(dim=-1)) * torch.linalg.cond(j)
        assert ((log_det - torch.linalg.slogdet(j)[1]).abs() <= tolerance).all()
        assert name in REFLECTIONS or (torch.linalg.slogdet(j)[0] > 0).all()

    def test_inverse_log_det_is_autograds(self, name: str, conditional: bool, gain: float) -> None:
        skip_unconditional(name, conditional)
        bijection, (z, context) = make(name, conditional, gain), inputs(name, conditional)
        x = bijection(z, context)[0].detach()
        j = jacobian(bijection.inverse, x, context)
        tolerance = 1e-10 * (1 + x.norm(dim=-1)) * torch.linalg.cond(j)
        assert ((bijection.inverse(x, context)[1] - torch.linalg.slogdet(j)[1]).abs() <= tolerance).all()

    @pytest.mark.parametrize("scale", [1.0, 30.0])
    def test_round_trips(self, name: str, conditional: bool, gain: float, scale: float) -> None:
        skip_unconditional(name, conditional)
        if name == "Logit" and scale > 1:
            pytest.skip("the sigmoid of 30 is 1 in float64")
        bijection, (z, context) = make(name, conditional, gain), inputs(name, conditional, scale)
        compared = 0
        for there, back in ((bijection.forward, bijection.inverse), (bijection.inverse, bijection.forward)):
            z = z if there == bijection.forward else as_data(name, z)
            x, log_det = there(z, context)
            again, log_det_back = back(x, context)
            kept = x.norm(dim=-1) <= 1e4  # far from their start, maps may send a vector anywhere
            compared += int(kept.sum())
            condition = torch.linalg.cond(jacobian(there, z, context))
            tolerance = 1e-10 * (1 + z.norm(dim=-1)) * condition
            assert ((again - z).norm(dim=-1) <= tolerance)[kept].all()
            assert ((log_det + log_det_back).abs() <= tolerance)[kept].all()
        assert compared >= BATCH or gain * scale > 2

    def test_round_trip_in_float32(self, name: str, conditional: bool, gain: float) -> None:
        skip_unconditional(name, conditional)
        exact, (z, context) = make(name, conditional, gain), inputs(name, conditional)
        single = make(name, conditional, gain, torch.float32)
        z32, context32 = inputs(name, conditional, dtype=torch.float32)
        x, log_det = single(z32, context32)
        again, _ = single.inverse(x, context32)
        assert x.dtype == log_det.dtype == again.dtype == torch.float32
        condition = torch.linalg.cond(jacobian(exact, z, context))
        eps = 1000 * torch.finfo(torch.float32).eps
        kept = x.norm(dim=-1) >= 0
        if gain > 2 and any(isinstance(part, B.MaskedAutoregressiveStep) for part in single.modules()):
            kept = x.norm(dim=-1) <= 1e4  # test_sequential compares those beyond with a strict solve
        assert ((again - z32).norm(dim=-1) <= eps * (1 + z.norm(dim=-1)) * condition)[kept].all()


@every
@context_or_none
def test_nearly_the_identity_at_the_start(name: str, conditional: bool) -> None:
    skip_unconditional(name, conditional)
    if name in NOT_IDENTITY_AT_START:
        pytest.skip("its paper says otherwise")
    bijection, (z, context) = make(name, conditional, gain=None), inputs(name, conditional)
    x, log_det = bijection(z, context)
    assert (x - z).norm() < 0.6 * z.norm()
    assert log_det.abs().max() < 2


@every
@context_or_none
def test_samples_share_the_context_of_their_example(name: str, conditional: bool) -> None:
    skip_unconditional(name, conditional)
    bijection, (z, context) = make(name, conditional, 2.0), inputs(name, conditional)
    many = as_data(name, torch.stack([z, 2 * z, z - 1, z + 3]).unflatten(0, (2, 2)))
    for direction in (bijection.forward, bijection.inverse):
        x, log_det = direction(many, context)
        assert log_det.shape == (2, 2, BATCH)
        for i in range(2):
            for j in range(2):
                one, one_log_det = direction(many[i, j], context)
                torch.testing.assert_close(x[i, j], one, rtol=1e-9, atol=1e-9)
                torch.testing.assert_close(log_det[i, j], one_log_det, rtol=1e-9, atol=1e-9)


@every
@context_or_none
def test_what_is_conditioned_once_gives_the_same(name: str, conditional: bool) -> None:
    skip_unconditional(name, conditional)
    bijection, (z, context) = make(name, conditional, 2.0), inputs(name, conditional)
    conditioned = bijection.condition(context)
    assert torch.equal(bijection(z, context)[0], bijection(z, bijection.condition(conditioned))[0])
    x = as_data(name, z)
    assert torch.equal(bijection.inverse(x, context)[0], bijection.inverse(x, conditioned)[0])


@every
def test_examples_do_not_mix(name: str) -> None:
    conditional = name not in UNCONDITIONAL
    bijection, (z, context) = make(name, conditional, 2.0), inputs(name, conditional)
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(0))
    x, log_det = bijection(z, context)
    other, other_log_det = bijection(z[order], None if context is None else context[order])
    torch.testing.assert_close(x[order], other, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_det[order], other_log_det, rtol=1e-12, atol=1e-12)
    for size in (0, 1):
        x, log_det = bijection(z[:size], None if context is None else context[:size])
        assert x.shape == (size, FEATURES.get(name, D))
        assert log_det.shape == (size,)


@every
def test_every_output_depends_on_the_context(name: str) -> None:
    skip_unconditional(name, True)
    bijection, (z, context) = make(name, True, 1.0), inputs(name, True)
    assert context is not None
    slopes = torch.autograd.functional.jacobian(lambda c: bijection(z[:1], c)[0][0], context[:1])[:, 0]
    assert ((slopes.abs().sum(1) > 1e-8).sum() >= len(slopes) // (2 if name in KEEP_SOME else 1)).all()


@every
@context_or_none
def test_every_parameter_has_a_gradient(name: str, conditional: bool) -> None:
    skip_unconditional(name, conditional)
    bijection, (z, context) = make(name, conditional, 1.0), inputs(name, conditional)
    x, log_det = bijection(z, context)
    if name in FIXED:
        pytest.skip("has no parameters")
    (x.square().sum() + log_det.sum()).backward()
    for parameter_name, parameter in bijection.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@every
def test_far_out_values_and_gradients_are_finite(name: str) -> None:
    bijection = make(name, False, 2.0, torch.float32)
    for scale in (1e-20, 1e4):
        z = (scale * inputs(name, False, dtype=torch.float32)[0]).requires_grad_()
        x, log_det = bijection(z)
        (gradient,) = torch.autograd.grad(x.sum() + log_det.sum(), z)
        for value in (x, log_det, gradient):
            assert torch.isfinite(value).all()


@every
def test_the_inverse_is_differentiable(name: str) -> None:
    bijection, (z, _) = make(name, False, 1.0), inputs(name, False)
    x = bijection(z)[0].detach()[:2].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: bijection.inverse(x), x, atol=1e-5)


@pytest.mark.parametrize("name", TRIANGULAR)
def test_autoregressive_jacobians_are_triangular(name: str) -> None:
    bijection, (z, context) = make(name, True, 2.0), inputs(name, True)
    j = jacobian(bijection, z, context)
    above = j.flip(-1, -2) if TRIANGULAR[name] else j
    assert torch.equal(above.triu(1), torch.zeros_like(above))
    assert (above.tril(-1).abs().sum((1, 2)) > 0).all()


@every
def test_the_trajectory_ends_at_the_image(name: str) -> None:
    bijection, (z, _) = make(name, False, 1.0), inputs(name, False)
    first, *rest = bijection.trajectory(z)
    assert torch.equal(first, z)
    torch.testing.assert_close(rest[-1], bijection(z)[0], rtol=1e-12, atol=1e-12)


def test_the_trajectory_shows_every_step() -> None:
    assert len(list(make("Planar", False).trajectory(inputs("Planar", False)[0]))) == 4
    assert len(list(make("Composition", False).trajectory(inputs("Composition", False)[0]))) == 4
    assert len(list(make("Inverse of a composition", False).trajectory(inputs("Inverse", False)[0]))) == 3


@every
def test_state_and_copies_give_the_same_map(name: str) -> None:
    bijection, (z, _) = make(name, False, 2.0), inputs(name, False)
    other = make(name, False, gain=None)
    other.load_state_dict(bijection.state_dict())
    for twin in (other, copy.deepcopy(bijection)):
        assert torch.equal(twin(z)[0], bijection(z)[0])


@every
def test_refresh_passes_the_data_on(name: str) -> None:
    conditional = name not in UNCONDITIONAL
    bijection, (z, context) = make(name, conditional, 1.0), inputs(name, conditional)
    x = as_data(name, z)
    parts = [None, None] if context is None else [context[:4], context[4:]]
    passed = torch.cat(bijection.refresh([x[:4], x[4:]], parts))
    torch.testing.assert_close(passed, bijection.inverse(x, context)[0], rtol=1e-9, atol=1e-9)


def is_slow(name: str) -> bool:
    return name.startswith(("MAF step, spline", "MAF step, affine,", "Inverse of a", "Composition"))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if is_slow(n) else n for n in EXAMPLES])
def test_compiles_as_one_graph(name: str) -> None:
    conditional = name not in UNCONDITIONAL
    bijection, (z, context) = make(name, conditional, 2.0), inputs(name, conditional)
    torch._dynamo.reset()
    compiled = torch.compile(bijection, backend="aot_eager", fullgraph=True)
    for got, wanted in zip(compiled(z, context), bijection(z, context), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("name", ["Planar", "InverseAutoregressive"])
def test_compiles_to_machine_code(name: str) -> None:
    bijection, (z, context) = make(name, True, 2.0), inputs(name, True)
    torch._dynamo.reset()
    compiled = torch.compile(bijection, fullgraph=True)
    for got, wanted in zip(compiled(z, context), bijection(z, context), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("name", ["Planar", "InverseAutoregressive"])
def test_wrong_shapes_are_named(name: str) -> None:
    bijection, (z, context) = make(name, True), inputs(name, True)
    assert context is not None
    with pytest.raises(VaeflowError, match=r"(z|the vector) has shape \(6, 4\), expected \(..., batch, 5\)"):
        bijection(z[:, :4], context)
    with pytest.raises(VaeflowError, match=r"context has shape \(6, 2\), expected \(..., batch, 3\)"):
        bijection(z, context[:, :2])
    with pytest.raises(VaeflowError, match="context of 3 features, but got none"):
        bijection(z)
    with pytest.raises(VaeflowError, match="takes no context"):
        make(name, False)(z, context)


def test_planar_constraint() -> None:
    """wᵀû > −1 whatever u and w, u = 0 is the identity, and neither overflow nor w = 0 gives NaN."""
    planar = B.Planar(2)
    z = torch.randn(100, 2)
    for u, w in (
        ((0, 0), (3, 4)),
        ((100, 100), (1, 1)),
        ((-1e4, -1e4), (1, 1)),
        ((1, 2), (0, 0)),
        ((1e-30, 0), (1e-30, 0)),
    ):
        with torch.no_grad():
            planar.parameters_of_steps.copy_(torch.tensor([*u, *w, 0.5]))
        x, log_det = planar(z)
        assert torch.isfinite(x).all()
        assert torch.isfinite(log_det).all()
        if u == (0, 0):
            torch.testing.assert_close(x, z)
    u, w = torch.randn(2, 1000, 8, dtype=torch.float64).unbind()
    prepared = planar.prepare(u=10 * u, w=w, b=w[:, :1])
    torch.testing.assert_close(torch.linalg.vecdot(w, prepared["u_hat"]).unsqueeze(-1), prepared["wu_hat"])
    assert (prepared["wu_hat"] > -1).all()
    for length in (10, 100, 1000, 10_000):  # wᵀu is as negative as −10⁵, where float32 has steps of 10⁻²
        prepared = {type: planar.prepare(u=-length * w.to(type), w=w.to(type), b=0 * w[:, :1].to(type))
                    for type in (torch.float32, torch.float64)}  # fmt: skip
        in_float32 = {name: value.double() for name, value in prepared[torch.float32].items()}
        wu_hat = prepared[torch.float64]["wu_hat"]
        torch.testing.assert_close(in_float32["wu_hat"], wu_hat, rtol=0, atol=1e-6)
        wu_hat_of_map = torch.linalg.vecdot(in_float32["w"], in_float32["u_hat"]).unsqueeze(-1)
        torch.testing.assert_close(wu_hat_of_map, wu_hat, rtol=0, atol=1e-6)
        x, _ = planar.step(z := torch.randn(1000, 8), **prepared[torch.float32])
        torch.testing.assert_close(planar.step_inverse(x, **prepared[torch.float32])[0], z, rtol=0, atol=2e-3)


def test_planar_steps_are_the_same_one_by_one_and_by_products_of_matrices() -> None:
    planar = redraw(B.Planar(D, 0, steps=7).double(), 4.0)
    z = torch.randn(3, BATCH, D, dtype=torch.float64, requires_grad=True)
    for together, one_by_one in zip(planar(z), B.Amortised.forward(planar, z), strict=True):
        torch.testing.assert_close(together, one_by_one)
        sources = (z, planar.parameters_of_steps)
        for a, b in zip(
            *(torch.autograd.grad(y.sin().sum(), sources, retain_graph=True) for y in (together, one_by_one)),
            strict=True,
        ):
            torch.testing.assert_close(a, b)
    assert planar(z[:, :0])[0].shape == (3, 0, D)


def test_householder_and_qr_are_orthonormal() -> None:
    for kind in ("orthogonal", "householder"):
        sylvester = B.Sylvester(5, 0, kind=kind, bottleneck=3 if kind == "orthogonal" else None)  # type: ignore[arg-type]
        prepared = redraw(sylvester.double(), 4.0).condition(None).value
        q = prepared["q"][0]
        torch.testing.assert_close(q.mT @ q, torch.eye(q.shape[-1], dtype=torch.float64))


def test_one_linear_iaf_step_is_a_full_covariance_gaussian() -> None:
    """With nets that are linear and gates that are constant: the image of N(0, I) is N(·, J Jᵀ), J as by autograd."""
    step = make("IAF step, gated", False, 1.0)
    step.made.activation = torch.nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        step.made.out.weight.view(2, D, -1)[1] = 0  # type: ignore[operator]
    z = torch.randn(4000, D, dtype=torch.float64)
    x, log_det = step(z)
    j = jacobian(step, z[:3], None)
    torch.testing.assert_close(j, j[:1].expand_as(j))
    centre = step(torch.zeros(1, D, dtype=torch.float64))[0]
    normal = torch.distributions.MultivariateNormal(centre[0], j[0] @ j[0].T)
    wanted = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1) - log_det
    torch.testing.assert_close(normal.log_prob(x), wanted)
    assert (j[0] @ j[0].T).tril(-1).abs().max() > 0.05


@pytest.mark.parametrize(
    "make_wrong",
    [
        lambda: B.Planar(3, steps=0),
        lambda: B.InverseAutoregressive(3, steps=0),
        lambda: B.InverseAutoregressive(3, hidden=[]),
        lambda: B.InverseAutoregressive(3, hidden=[8, 0]),
        lambda: B.Sylvester(3, bottleneck=4),
    ],
)
def test_sizes_are_checked(make_wrong: Callable[[], Bijection]) -> None:
    with pytest.raises(VaeflowError, match="expected"):
        make_wrong()


@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_a_spline_has_its_slope_at_the_knots(way: str) -> None:
    """All of them at once, the middle of the interval among them; there clamp has none."""
    transformer = B.RationalQuadraticSpline(bins=8, bound=3.0).eval()
    z = torch.linspace(-2.25, 2.25, 7, dtype=torch.float64, requires_grad=True)
    x, log_slope = getattr(transformer, way)(z, torch.zeros(7, transformer.num_parameters, dtype=torch.float64))
    torch.testing.assert_close(torch.autograd.grad(x.sum(), z)[0], log_slope.exp())
