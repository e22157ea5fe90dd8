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
from vaeflow.errors import VaeflowError, check_values
from vaeflow.evaluation import evaluate
from vaeflow.latents import has_codes
from vaeflow.noise import Noise
from vaeflow.objectives import IWAE
from vaeflow.records.checkpoint import load

IMAGE = {"shape": (1, 2, 2), "levels": 17}
PLANE: dict[str, Any] = {"shape": (2,)}
COUPLINGS = functools.partial(Chain, bijections=[Coupling])
OF_INTEGERS: dict[str, Callable[[], Any]] = {
    "VAE": lambda: models.VAE(**IMAGE, latent_features=2),
    "VAE, dequantised": lambda: models.VAE(**IMAGE, latent_features=2, likelihood=Gaussian),
    "VAE, IWAE": lambda: models.VAE(**IMAGE, latent_features=2, objective=functools.partial(IWAE, k=2)),
    "MAF": lambda: redraw(models.MAF(**IMAGE, hidden=[8]), 0.3),
    "Flow": lambda: models.Flow(**IMAGE, flow=COUPLINGS),
    "GaussianMixture": lambda: redraw(models.GaussianMixtureModel(**IMAGE), 0.3),
    "Uniform": lambda: models.UniformModel(**IMAGE),
}
OF_REALS: dict[str, Callable[[], Any]] = {
    "VAE": lambda: models.VAE(**PLANE, latent_features=2),
    "NeuralSplineFlow": lambda: models.NeuralSplineFlow(**PLANE, hidden=[8]),
    "Gaussian": lambda: models.GaussianModel(**PLANE),
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
    if has_codes(model):
        asked |= {"encode": model.encode, "reconstruct": lambda x: model.reconstruct(x, noise)}
        asked |= {f"encode to {name}": lambda x, s=s: s.encode(x, None) for name, s in model.latent_spaces.items()}
    if hasattr(model, "posterior_of"):
        asked["posterior_of"] = model.posterior_of
        asked["log_joint"] = lambda x: model.log_joint(x, torch.zeros(2, 3, model.latent_features), noise)
        asked["draws_of"] = model.draws_of
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
        "flat": (x.flatten(1), r"x has shape \(3, 4\), expected \(batch, 1, 2, 2\)"),
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
    both = torch.func.vmap(torch.func.jacfwd(encode))
    for transformed, given in ((encode, x), (torch.func.jacrev(model.encode), x), (both, x[None])):
        with pytest.raises(VaeflowError, match="expected integers 0 to 16"):
            transformed(given / 16)


UNSET: dict[str, Callable[[], Any]] = {
    "MAF": lambda: models.MAF(shape=(3,)),
    "VAE": lambda: models.VAE(shape=(3,)),
    "NICE": lambda: models.NICE(shape=(4,)),
    "Gaussian": lambda: models.GaussianModel(shape=(3,)),
    "Gaussian of integers": lambda: models.GaussianModel(shape=(3,), levels=4),
    "standardised integers": lambda: models.RealNVP(shape=(4,), levels=4, preprocess=Standardise),
    "MAF of integers, with batch normalisation": lambda: models.MAF(shape=(3,), levels=4, preprocess=UnitInterval),
}


@pytest.mark.parametrize("name", UNSET)
def test_statistics_that_were_never_set_make_no_number(name: str) -> None:
    model = UNSET[name]().eval()
    x = torch.zeros(2, *model.shape)
    for ask in (lambda: model.log_prob(x), lambda: model.encode(x), lambda: model.sample(2, Noise())):
        with pytest.raises(VaeflowError, match=r"needs were never set|starts from training data, and has seen none"):
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


GIVEN: dict[str, Callable[[], Any]] = {
    "VAE": lambda: models.VAE(**IMAGE, latent_features=4, num_classes=3, class_conditional=True),
    "MAF": lambda: redraw(models.MAF(**IMAGE, hidden=[8], num_classes=3, class_conditional=True), 0.3),
}
X, ONE_HOT, Z = torch.arange(12.0).view(3, 1, 2, 2), torch.eye(3), torch.linspace(-1, 1, 12).view(3, 4)
"""Three examples, their contexts, and three codes."""


def takes_codes(model: Any) -> dict[str, Callable[[Any, Any], Any]]:
    """All that may be asked of codes with a context."""
    asked: dict[str, Callable[[Any, Any], Any]] = {"decode": model.decode}
    if hasattr(model, "posterior_of"):
        noise = Noise(index=torch.arange(3))
        asked["log_joint"] = lambda z, context: model.log_joint(X, z[None], noise, context)[0]
    else:
        asked["trajectory"] = lambda z, context: list(model.trajectory(z, context))[-1]
    return asked


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize(
    ("z", "message"),
    [
        (Z.numpy(), "z is of type ndarray, expected a tensor"),
        (Z[:, :3], r"z has shape \((1, )?3, 3\), expected \(..., batch, 4\)"),
        (Z.index_fill(0, torch.tensor(1), torch.nan), r"example 1 of z holds NaN or infinity \(1 of 3 examples do\)\."),
        (Z.index_fill(0, torch.tensor(2), torch.inf), "example 2 of z holds NaN or infinity"),
        (Z + 1j, "z holds complex numbers"),
        (
            Z[:2],
            r"expected \((2, 3\), a row for each example|num_samples, 3, 4\), codes for each example)",
        ),
    ],
)
def test_codes_are_what_they_should_be(name: str, z: Any, message: str) -> None:
    model = GIVEN[name]().eval()
    for ask in takes_codes(model).values():
        with pytest.raises(VaeflowError, match=message):
            ask(z, ONE_HOT)


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.uint8])
def test_codes_and_contexts_are_of_any_type(name: str, dtype: torch.dtype) -> None:
    model, z = GIVEN[name]().eval(), Z.abs().round().to(dtype)
    for ask in takes_codes(model).values():
        torch.testing.assert_close(ask(z, ONE_HOT.to(dtype)), ask(z.float(), ONE_HOT))
    for question in (model.log_prob, model.encode):
        torch.testing.assert_close(question(X, ONE_HOT.to(dtype)), question(X, ONE_HOT))
    noise = Noise(seed=1)
    torch.testing.assert_close(model.sample(3, noise, ONE_HOT.to(dtype)), model.sample(3, noise, ONE_HOT))


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize(
    ("context", "message"),
    [
        (None, "conditioned on a context of 3 features, but got none"),
        (ONE_HOT.numpy(), "context is of type ndarray, expected a tensor"),
        (ONE_HOT[:, :2], r"context has shape \(3, 2\), expected \(..., batch, 3\)"),
        (ONE_HOT[:2], r"context has shape \(2, 3\), expected \(3, 3\), a row for each example"),
        (ONE_HOT.log(), "example 0 of context holds NaN or infinity"),
    ],
)
def test_contexts_are_what_they_should_be(name: str, context: Any, message: str) -> None:
    model, noise = GIVEN[name]().eval(), Noise(index=torch.arange(3))
    asked: dict[str, Callable[[], Any]] = {
        "log_prob": lambda: model.log_prob(X, context),
        "log_weights": lambda: model.log_weights(X, noise, 2, context),
        "losses": lambda: model.losses(X, noise, context),
        "sample": lambda: model.sample(3, noise, context),
        "encode": lambda: model.encode(X, context),
        "reconstruct": lambda: model.reconstruct(X, noise, context),
        **{name: lambda ask=ask: ask(Z, context) for name, ask in takes_codes(model).items()},
    }
    for ask in asked.values():
        with pytest.raises(VaeflowError, match=message):
            ask()


@pytest.mark.parametrize("name", ["VAE", "MAF"])
def test_noise_is_what_it_should_be(name: str) -> None:
    model = OF_INTEGERS[name]().eval()
    asked: dict[str, Callable[[Any], Any]] = {
        "log_prob": lambda noise: model.log_prob(X, None, 2, noise),
        "log_weights": lambda noise: model.log_weights(X, noise, 2),
        "sample": lambda noise: model.sample(3, noise),
    }
    if name == "VAE":
        asked["reconstruct"] = lambda noise: model.reconstruct(X, noise)
        asked["log_joint"] = lambda noise: model.log_joint(X, torch.zeros(1, 3, 2), noise)
    for ask in asked.values():
        for bad in (3, None, "seed") if ask is not asked["log_prob"] else (3, "seed"):
            with pytest.raises(VaeflowError, match=r"noise is .*, expected a source of it, such as vaeflow\.Noise"):
                ask(bad)
        with pytest.raises(VaeflowError, match="noise has 2 indices, expected 3, one for each example"):
            ask(Noise(index=torch.arange(2)))
        torch.testing.assert_close(ask(Noise(seed=2)), ask(Noise(seed=2, index=torch.arange(3))))


def test_numbers_that_are_asked_for() -> None:
    model = OF_INTEGERS["VAE"]().eval()
    for ask, message in {
        lambda: model.sample(-1, Noise()): "n is -1, expected an integer of 0 or more",
        lambda: model.sample(2.5, Noise()): r"n is 2\.5, expected an integer of 0 or more",
        lambda: model.sample(2, Noise(), temperature="a"): "temperature is 'a', expected a number of 0 or more",
        lambda: model.log_prob(X, num_samples=2.5): r"num_samples is 2\.5, expected an integer",
        lambda: model.log_weights(X, Noise(), 0): "num_samples is 0, expected at least 1",
        lambda: model.log_prob(X[None]): r"x has shape \(1, 3, 1, 2, 2\), expected \(batch, 1, 2, 2\)",
        lambda: model.log_prob(X[0]): r"x has shape \(1, 2, 2\), expected \(batch, 1, 2, 2\)",
        lambda: model.losses(X, 3, None): "noise is 3, expected a source of it",
        lambda: model.losses(X, Noise(index=torch.arange(1)), None): "noise has 1 indices, expected 3",
        lambda: OF_INTEGERS["VAE"]().half().log_prob(X): r"numbers are torch\.float16, too coarse for a likelihood",
        lambda: Noise(first_sample=-3): "first_sample of Noise is -3, expected 0 or more",
        lambda: Noise(stage=3): "stage of Noise is 3, expected a word",  # type: ignore[arg-type]
        lambda: Noise(seed=None): "seed of Noise is None, expected an integer",  # type: ignore[arg-type]
        lambda: Noise(index=[1, 2]): "index of Noise is list, expected a tensor",  # type: ignore[arg-type]
        lambda: Noise(index=torch.zeros(2)): r"index of Noise is torch\.float32 of shape \(2,\)",
        lambda: evaluate(model, None): "evaluate was given VAE and NoneType, expected a model and its data",
        lambda: load(None): "None is no path",  # type: ignore[arg-type]
        lambda: Digits().examples("test", "a"): "index is 'a', expected a tensor of integers",  # type: ignore[arg-type]
        lambda: Digits().examples("test", [0.5]): r"index is of torch\.float32 and shape",  # type: ignore[arg-type]
        lambda: Digits().examples("test", 3): "index is 3, expected a tensor of integers",  # type: ignore[arg-type]
    }.items():
        with pytest.raises(VaeflowError, match=message):
            ask()
    assert len(model.sample(0, Noise())) == 0
    digits = models.VAE(shape=(1, 8, 8), levels=17)
    assert evaluate(digits, Digits(), num_samples=np.int64(2), limit=3)["num_samples"] == 2  # type: ignore[arg-type]
    assert models.GaussianModel(shape=(2,)).icdf(torch.full((1, 2), 0.5).half()).dtype == torch.float32
    draw = model.sample(3, Noise(), temperature=0.5)
    assert torch.equal(model.sample(torch.tensor(3), Noise(), temperature=torch.tensor(0.5)), draw)
    assert torch.equal(model.sample(np.int64(3), Noise(seed=np.int32(0)), temperature=np.float32(0.5)), draw)
    assert torch.equal(model.log_prob(X, num_samples=torch.tensor(3)), model.log_prob(X, num_samples=3))
    mask = torch.arange(300) < 2
    assert torch.equal(Digits().examples("test", mask)[0], Digits().examples("test", torch.arange(2))[0])
    assert len(Digits().examples("test", [])[0]) == 0  # type: ignore[arg-type]
    x, y = Digits().examples("test", [1, 2])  # type: ignore[arg-type]
    assert torch.equal(x, Digits().examples("test", torch.tensor([1, 2]))[0])
    assert len(y) == 2


@pytest.mark.parametrize("value", [0.0, 1.0, 1.5, -0.5, torch.nan])
def test_points_of_the_unit_cube_are_inside(value: float) -> None:
    for model in (models.VAE(**IMAGE, latent_features=2), models.GaussianModel(shape=(2,)), models.ReverseKL()):
        u = torch.full((3, 2), 0.5)
        assert torch.isfinite(model.icdf(u)).all()
        u[1, 0] = value
        with pytest.raises(VaeflowError, match=r"u has values from .*, expected some between 0 and 1"):
            model.icdf(u)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
def test_labels_and_examples_of_unsigned_types(dtype: torch.dtype) -> None:
    model = GIVEN["VAE"]().eval()
    assert torch.equal(model.context_of(torch.arange(3).to(dtype)), ONE_HOT)
    torch.testing.assert_close(model.encode(X.to(dtype), ONE_HOT), model.encode(X, ONE_HOT))
    with pytest.raises(VaeflowError, match="y has values from 1 to 3, expected integers 0 to 2"):
        model.context_of(torch.arange(1, 4).to(dtype))


def test_a_model_within_another_module_follows_its_moves() -> None:
    model = GIVEN["VAE"]().eval()
    outer = torch.nn.ModuleList([model]).double()
    assert outer[0].decode(Z, ONE_HOT).dtype == torch.float64
    assert torch.nn.ModuleList([model]).to("meta")[0].device == torch.device("meta")


@pytest.mark.parametrize("name", GIVEN)
def test_one_context_is_of_many_codes_and_each_code_may_have_its_own(name: str) -> None:
    model = GIVEN[name]().eval()
    one, all_alike = model.decode(Z, ONE_HOT[:1]), model.decode(Z, ONE_HOT[[0, 0, 0]])
    torch.testing.assert_close(one, all_alike)
    both = model.decode(torch.stack([Z, -Z]), torch.stack([ONE_HOT, ONE_HOT.flip(0)]))
    torch.testing.assert_close(both[1], model.decode(-Z, ONE_HOT.flip(0)))


def test_a_grid_of_codes_is_of_every_example() -> None:
    model = OF_INTEGERS["VAE"]().eval()
    grid, noise = torch.linspace(-1, 1, 14).view(7, 1, 2), Noise(index=torch.arange(3))
    for found, expected in zip(
        model.log_joint(X, grid, noise), model.log_joint(X, grid.expand(-1, 3, -1), noise), strict=True
    ):
        torch.testing.assert_close(found.expand(7, 3), expected)
    along, _ = model.log_joint(X[:1], grid.transpose(0, 1), Noise(index=torch.arange(1)))
    torch.testing.assert_close(along[0], model.log_joint(X, grid.expand(-1, 3, -1), noise)[0][:, 0])


def test_bytes_are_looked_at_as_they_are() -> None:
    """In no more memory than they take, however many there are."""
    x = torch.zeros(2**20, dtype=torch.uint8)
    with torch.profiler.profile(profile_memory=True) as profile:
        check_values("x", x, 256)
    assert max(event.cpu_memory_usage for event in profile.key_averages()) < 2**16
