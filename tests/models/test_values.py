"""Values that a model cannot be of are refused alike, by every model and every question."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import redraw
from vaeflow import models
from vaeflow.bijections import Chain, Coupling, Standardise, UnitInterval
from vaeflow.data import Digits, Toy
from vaeflow.distributions import Gaussian
from vaeflow.errors import VaeflowError
from vaeflow.noise import Noise

IMAGE = {"shape": (1, 2, 2), "levels": 17}
PLANE: dict[str, Any] = {"shape": (2,)}
COUPLINGS = functools.partial(Chain, bijections=[Coupling])
OF_INTEGERS: dict[str, Callable[[], Any]] = {
    "VAE": lambda: models.VAE(**IMAGE, latent_features=2),
    "VAE, dequantised": lambda: models.VAE(**IMAGE, latent_features=2, likelihood=Gaussian),
    "VAE, IWAE": lambda: models.VAE(**IMAGE, latent_features=2, objective="iwae", num_samples=2),
    "MAF": lambda: redraw(models.MAF(**IMAGE, hidden=[8]), 0.3),
    "Flow": lambda: models.Flow(**IMAGE, flow=COUPLINGS),
    "GaussianMixture": lambda: models.GaussianMixture(**IMAGE),
    "Uniform": lambda: models.Uniform(**IMAGE),
}
OF_REALS: dict[str, Callable[[], Any]] = {
    "VAE": lambda: models.VAE(**PLANE, latent_features=2),
    "NeuralSplineFlow": lambda: models.NeuralSplineFlow(**PLANE, hidden=[8]),
    "Gaussian": lambda: models.Gaussian(**PLANE),
    "ReverseKL": lambda: models.ReverseKL(),
}


def questions(model: Any) -> dict[str, Callable[[Tensor], object]]:
    """All that may be asked of data."""
    noise = Noise(index=torch.arange(3))
    asked: dict[str, Callable[[Tensor], object]] = {
        "log_prob": lambda x: model.log_prob(x, num_samples=2),
        "log_weights": lambda x: model.log_weights(x, noise, 2),
    }
    if model.kind != "reverse-kl":
        asked["losses"] = lambda x: model.losses(x, noise, None)
    if model.latent_spaces:
        asked |= {"encode": model.encode, "reconstruct": lambda x: model.reconstruct(x, noise)}
        asked |= {f"encode to {name}": lambda x, s=s: s.encode(x, None) for name, s in model.latent_spaces.items()}
    if model.has_posterior:
        asked["infer"] = model.infer
        asked["log_joint"] = lambda x: model.log_joint(x, torch.zeros(2, 3, model.latent_features), noise)
    if model.reported and model.kind != "reverse-kl":
        asked["report"] = lambda x: model.report(x, noise, 2)
    return asked


def bad_integers() -> dict[str, tuple[Any, str]]:
    x = torch.arange(12.0).view(3, 1, 2, 2)
    return {
        "scaled": (x / 16, r"x has the value 0\.0625, expected integers 0 to 16"),
        "centred": (x - 8, "x has values from -8 to 3, expected integers 0 to 16"),
        "grey levels": (x * 20, "x has values from 0 to 220, expected integers 0 to 16"),
        "bytes": ((x * 20).byte(), "x has values from 0 to 220, expected integers 0 to 16"),
        "one level too many": (x + 6, "x has values from 6 to 17"),
        "nan": (x.clone().index_fill_(0, torch.tensor(1), torch.nan), "example 1 of x holds NaN or infinity"),
        "an array": (x.numpy(), "x is of type ndarray, expected a tensor"),
        "complex": (x + 1j, "x holds complex numbers"),
        "flat": (x.flatten(1), r"x has shape \(3, 4\), expected \(..., batch, 1, 2, 2\)"),
    }


@pytest.mark.parametrize("bad", bad_integers())
@pytest.mark.parametrize("name", OF_INTEGERS)
def test_integers_are_what_they_should_be(name: str, bad: str) -> None:
    model = OF_INTEGERS[name]().eval()
    x, message = bad_integers()[bad]
    for ask in questions(model).values():
        with pytest.raises(VaeflowError, match=message):
            ask(x)
        ask(torch.arange(12).view(3, 1, 2, 2))  # of any type


@pytest.mark.parametrize("name", OF_REALS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_real_numbers_are_finite(name: str, value: float) -> None:
    model = OF_REALS[name]().eval()
    if name != "ReverseKL":
        data = Toy("moons", num_train=100, num_val=10, num_test=10)
        data.setup("")
        model.initialise(data)
    x = torch.randn(3, 2)
    x[2, 1] = value
    for ask in questions(model).values():
        with pytest.raises(VaeflowError, match=r"example 2 of x holds NaN or infinity \(1 of 3 examples do\)"):
            ask(x)
        ask(x[:2].repeat(2, 1)[:3])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.tensor([0, 10, 2]), "y has values from 0 to 10, expected integers 0 to 9"),
        (torch.tensor([-1, 1, 2]), "y has values from -1 to 2, expected integers 0 to 9"),
        (torch.tensor([0.0, 1.5, 2.0]), r"y has the value 1\.5, expected integers 0 to 9"),
        (torch.tensor([0.0, torch.nan]), r"example 1 of y holds NaN or infinity \(1 of 2 examples do\)"),
        (np.array([0, 1, 2]), "y is of type ndarray, expected a tensor"),
        ([0, 1, 2], "y is of type list, expected a tensor"),
        (torch.zeros(3, 1), r"y has shape \(3, 1\), expected labels \(batch,\)"),
    ],
)
def test_labels_are_those_that_there_are(y: Any, message: str) -> None:
    model = models.VAE(shape=(1, 8, 8), levels=17, num_classes=10, class_conditional=True)
    with pytest.raises(VaeflowError, match=message):
        model.context_of(y)


def test_values_are_looked_at_inside_transforms_too() -> None:
    model = models.VAE(**IMAGE, latent_features=2).eval()  # type: ignore[arg-type]
    x = torch.arange(12.0).view(3, 1, 2, 2)
    encode = torch.func.vmap(lambda one: model.encode(one[None])[0])
    torch.testing.assert_close(encode(x), model.encode(x))
    for transformed in (encode, torch.func.jacrev(model.encode), torch.func.vmap(torch.func.jacfwd(encode))):
        with pytest.raises(VaeflowError, match="expected integers 0 to 16"):
            transformed(x[None] / 16 if transformed not in (encode,) else x / 16)


UNSET: dict[str, Callable[[], Any]] = {
    "MAF": lambda: models.MAF(shape=(3,)),
    "VAE": lambda: models.VAE(shape=(3,)),
    "NICE": lambda: models.NICE(shape=(4,)),
    "Gaussian": lambda: models.Gaussian(shape=(3,)),
    "Gaussian of integers": lambda: models.Gaussian(shape=(3,), levels=4),
    "standardised integers": lambda: models.RealNVP(shape=(4,), levels=4, preprocess=Standardise),
    "MAF of integers, with batch normalisation": lambda: models.MAF(shape=(3,), levels=4, preprocess=UnitInterval),
}


@pytest.mark.parametrize("name", UNSET)
def test_statistics_that_were_never_set_make_no_number(name: str) -> None:
    model = UNSET[name]().eval()
    x = torch.zeros(2, *model.shape)
    for ask in (lambda: model.log_prob(x), lambda: model.encode(x), lambda: model.sample(2, Noise())):
        with pytest.raises(VaeflowError, match=r"statistics of the training data that .* needs were never set"):
            ask()


def test_a_loop_of_ones_own_says_what_is_missing() -> None:
    """Trained by a plain optimizer, without a data module, and then with one."""
    model = models.MAF(shape=(2,), hidden=[8])
    noise = Noise(index=torch.arange(50))
    with pytest.raises(VaeflowError, match=r"call model\.initialise\(data\) with a data module"):
        model.losses(torch.randn(50, 2), noise, None)
    data = Toy("moons", num_train=100, num_val=10, num_test=10)
    data.setup("")
    model.initialise(data)
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        model.losses(data.examples("train", torch.arange(50))[0], noise, None)[0].backward()
        optimizer.step()
    model.refresh(data)
    assert torch.isfinite(model.log_prob(torch.randn(5, 2))).all()


def test_integer_models_need_no_statistics() -> None:
    model = models.VAE(shape=(1, 8, 8), levels=17).eval()
    x, _ = Digits().examples("test", torch.arange(3))
    assert torch.isfinite(model.log_prob(x, num_samples=2)).all()
