"""Models answer what they can, and say in one sentence what they cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vaeflow.callbacks.pictures import pictures_of
from vaeflow.data import Digits
from vaeflow.errors import NoAnswer, VaeflowError
from vaeflow.estimate import Combining, LogWeights
from vaeflow.evaluation import evaluate
from vaeflow.evaluation.results import table
from vaeflow.latents import has_codes
from vaeflow.models import MAF, VAE, GaussianMixtureModel, LikelihoodModel
from vaeflow.noise import Noise


class Coins(LikelihoodModel):
    """Every pixel is 0 or L − 1 with a probability of its own: integers without codes, whose likelihood is exact."""

    kind = "exact"
    combining: Combining = "exact"
    objective_name = "log-likelihood"
    evaluation_samples = 1

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        self.logits = nn.Parameter(torch.zeros(self.dimension))

    def log_weights_of(self, x: Tensor, context: Tensor | None = None) -> LogWeights:
        x = self._checked(x).flatten(1) / (self.levels - 1)
        return lambda noise, num_samples: -nn.functional.softplus((1 - 2 * x) * self.logits).sum(-1)[None]

    def losses(self, x: Tensor, noise: Noise, context: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        nll = -self.log_weights_of(x)(noise, 1)[0]
        return nll.mean(), {"objective": nll, "nll": nll}

    def sample(
        self, n: int, noise: Noise, context: Tensor | None = None, temperature: float = 1.0, mean: bool = False
    ) -> Tensor:
        u = self._checked_draw(n, noise, context)[0].uniform("coins", 1, (self.dimension,))[0]
        return (u < torch.sigmoid(self.logits)).to(u).mul(self.levels - 1).unflatten(-1, self.shape)


class NoisyCoins(Coins):
    """The same, estimated: each draw adds noise of mean zero to log p(x), so that only their mean means anything."""

    kind = "unbiased"
    combining: Combining = "mean"

    def log_weights_of(self, x: Tensor, context: Tensor | None = None) -> LogWeights:
        exact = super().log_weights_of(x)
        return lambda noise, num_samples: exact(noise, 1) + 9 * noise.normal("noise", num_samples, ())


def coins(cls: type[Coins]) -> tuple[Coins, Digits]:
    data = Digits(batch_size=100)
    data.setup("")
    for name, (x, y) in data.splits.items():
        data.splits[name] = (x > 8) * x.new_tensor(16), y
    model = cls(shape=(1, 8, 8), levels=17)
    with torch.no_grad():
        model.logits.copy_(torch.linspace(-2, 2, 64))
    return model.eval(), data


def test_a_model_without_codes_is_evaluated_sampled_and_drawn() -> None:
    model, data = coins(Coins)
    assert not has_codes(model)
    results = evaluate(model, data, num_samples=50)
    x, _ = data.examples("test", torch.arange(300))
    assert results["nll"] == pytest.approx(-model.log_prob(x).mean().item())
    assert (results["kind"], results["num_samples"], results["latent_features"]) == ("exact", 1, None)
    assert model.sample(5, Noise()).shape == (5, 1, 8, 8)
    assert list(pictures_of(model, data)) == ["samples"]


def test_an_unbiased_estimate_is_a_mean() -> None:
    """With K draws of standard deviation 9 the mean is log p(x) to 9/√K, and log-mean-exp would be far above it."""
    model, data = coins(NoisyCoins)
    exact = evaluate(coins(Coins)[0], data)
    results = evaluate(model, data, num_samples=400)
    assert results["nll"] == pytest.approx(exact["nll"], abs=4 * 9 / (300 * 400) ** 0.5)
    assert (results["kind"], results["num_samples"], results["effective_sample_size"]) == ("unbiased", 400, None)
    assert "nats (unbiased estimate, K = 400)" in table(results)
    x, _ = data.examples("test", torch.arange(300))
    assert -model.log_prob(x, num_samples=400).mean().item() == pytest.approx(exact["nll"], abs=0.3)
    assert -model.log_prob(x.requires_grad_(), num_samples=400).mean().item() == pytest.approx(exact["nll"], abs=0.3)


@pytest.mark.parametrize("name", ["encode", "decode", "reconstruct", "icdf", "latent_spaces", "code_features"])
def test_what_has_no_codes_says_so(name: str) -> None:
    model, _ = coins(Coins)
    assert not hasattr(model, name)
    with pytest.raises(NoAnswer, match="Coins has no codes: its data are no function of one latent vector"):
        getattr(model, name)


def test_what_has_no_layers_or_posterior_says_so() -> None:
    for model in (coins(Coins)[0], MAF(shape=(2,))):
        for name in ("posterior_of", "log_joint"):
            assert not hasattr(model, name)
            with pytest.raises(VaeflowError, match=r"has no approximate posterior|has no latent variable that"):
                getattr(model, name)
    with pytest.raises(VaeflowError, match="VAE has no layers that lead from noise to data"):
        VAE(shape=(2,)).trajectory(torch.zeros(1, 16))
    assert not has_codes(GaussianMixtureModel(shape=(2,)))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        coins(Coins)[0].nonsense  # noqa: B018
