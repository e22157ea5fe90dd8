"""``--compile``: the same losses and gradients of every model, and what happens where torch cannot compile."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.distributions.test_posteriors import FLOWS
from tests.evaluation.linear_gaussian import all_binary, binary_vae
from tests.models.test_density import MODELS, images
from tests.models.test_density import make as make_density
from vaeflow.bijections import Planar
from vaeflow.distributions.energies import U1
from vaeflow.errors import VaeflowError
from vaeflow.models import VAE, LikelihoodModel, ReverseKL, training
from vaeflow.noise import Noise
from vaeflow.objectives import IWAE

TRAINED = sorted(set(MODELS) - {"Uniform", "Gaussian"})  # those two are not trained by gradient
NAMES = [*TRAINED, "VAE", *(f"VAE, {flow}" for flow in FLOWS), "IWAE", "IWAE, doubly", "reverse KL"]


def make(name: str) -> tuple[LikelihoodModel, Tensor]:
    if name in MODELS:
        return make_density(name), images()
    if name == "reverse KL":
        torch.manual_seed(0)
        return ReverseKL(energy=U1, flow=Planar), torch.zeros(40, 2)
    if name == "IWAE":
        return binary_vae(FLOWS["iaf"], objective=functools.partial(IWAE, k=3)), all_binary()
    if name == "IWAE, doubly":
        arguments = {"objective": functools.partial(IWAE, k=3, gradient_samples=2, doubly_reparameterised=True)}
        return binary_vae(FLOWS["planar"], **arguments), all_binary()
    return binary_vae(FLOWS[name.removeprefix("VAE, ")] if "," in name else None), all_binary()


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    torch.compiler.reset()
    training._compiled.cache_clear()
    yield
    training._compiled.cache_clear()


def results(model: LikelihoodModel, x: Tensor, epoch: int = 0) -> list[Tensor]:
    noise = Noise(0, "train", epoch, torch.arange(len(x)))
    loss, values = model._training_losses(x, noise, None)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return [loss.detach(), *(value.detach() for value in values.values()), *gradients]


def check(model: LikelihoodModel, x: Tensor) -> None:
    for epoch in range(3):  # which is not to make torch compile again
        model.compile_losses = False
        expected = results(model, x, epoch)
        model.compile_losses = True
        torch.testing.assert_close(results(model, x, epoch), expected, rtol=1e-4, atol=1e-4)
        assert model.compile_losses


SLOW = ("IAF", "MAF, mixture", "NeuralSplineFlow, autoregressive", "GaussianMixture", "DeepGMM", "Flow", "IWAE",
        "VAE, radial", "VAE, sylvester")  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in NAMES])
def test_traced_losses_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_compiled", lambda model: torch.compile(model.losses, backend="aot_eager"))
    monkeypatch.setattr(training._compiled, "cache_clear", lambda: None, raising=False)
    check(*make(name))


def test_compiled_losses_are_the_same() -> None:
    check(*make("VAE, iaf"))


def test_noise_does_not_make_it_compile_again() -> None:
    compiled = 0

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        nonlocal compiled
        compiled += 1
        return graph.forward

    model, x = VAE(shape=(3,), levels=2, latent_features=2), torch.tensor([[0.0, 1.0, 1.0]] * 5)
    run = torch.compile(type(model).losses, backend=backend)
    counts = []
    for epoch in range(4):
        run(model, x, Noise(0, "train", epoch, torch.arange(len(x))), None)
        counts.append(compiled)
    assert counts[0] == counts[-1]


def test_a_compiler_that_fails_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler today")

    model, x = make("VAE")
    expected = results(model, x)
    monkeypatch.setattr(training, "_compiled", lambda model: torch.compile(model.losses, backend=broken))
    monkeypatch.setattr(training._compiled, "cache_clear", lambda: None, raising=False)
    model.compile_losses = True
    with pytest.warns(UserWarning, match=r"torch.compile failed \(.*no compiler today.*\): the losses are computed"):
        torch.testing.assert_close(results(model, x), expected)
    assert not model.compile_losses


def test_errors_of_the_model_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = make("MAF")
    model.compile_losses = True
    with pytest.raises(VaeflowError, match="expected integers 0 to 16"):
        results(model, x + 0.5)
