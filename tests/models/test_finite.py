"""Numbers that are none: who is named, what is left out, and how gradients are clipped."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.plugins import Precision
from torch import nn

import vaeflow
from tests.test_cli import Run, events
from vaeflow.errors import VaeflowError
from vaeflow.models import VAE
from vaeflow.models.finite import first_not_finite, where, whose
from vaeflow.records.checkpoint import read


class Spoils(nn.Module):
    """A division by what may be zero."""

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {"some": [1 / x, 3], "index": torch.tensor(2)}


def test_the_first_module_is_named() -> None:
    inner = nn.Sequential(nn.Linear(2, 2), nn.Identity(), Spoils())
    model = nn.ModuleDict({"before": nn.Linear(2, 2), "net": inner})
    compute = lambda x: inner[2](inner[1](model["before"](x) * 0))  # noqa: E731
    assert first_not_finite(model, lambda: compute(torch.ones(1, 2))) == "net.2 (Spoils)"
    assert first_not_finite(model, lambda: inner[1](torch.ones(2))) is None
    assert not any(module._forward_hooks for module in model.modules())
    assert first_not_finite(model, lambda: inner(torch.full((1, 2), math.nan))) == "net.0 (Linear)"

    def fails() -> None:
        inner[1](torch.tensor(math.inf))
        raise ValueError

    assert first_not_finite(model, fails) == "net.1 (Identity)"


def test_examples_and_gradients_are_named() -> None:
    index = torch.arange(10, 30)
    fine = torch.zeros(20)
    values = {"nll": fine.clone(), "kl": fine.clone()}
    values["nll"][3], values["kl"][5] = math.nan, -math.inf
    assert whose(values, index) == "examples 13, 15"
    assert whose({"nll": values["kl"]}, index) == "example 15"
    assert whose({"nll": fine}, index) == "examples 10, 11, 12, 13, 14, 15, 16, 17 and 12 more"
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    model(torch.ones(1, 1)).sum().backward()
    compute = lambda: model(torch.ones(1, 1))  # noqa: E731
    assert where(model, compute) == "all modules' outputs are finite"
    model[1].bias.grad.fill_(math.inf)
    assert where(model, compute) == "all modules' outputs are finite, but not the gradient of 1.bias"


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes an output or a gradient of the VAE infinite, for two examples, or as a whole, at step 15."""

    def spoil(what: str) -> None:
        losses = VAE.losses

        def spoilt(self: VAE, x: torch.Tensor, *arguments: Any) -> Any:
            is_now = self.global_step == 15 and self.training

            def output(module: nn.Module, inputs: Any, found: torch.Tensor) -> torch.Tensor:
                found = found.clone()
                found[..., 4:6, 0] = math.inf
                return found

            def gradient(found: torch.Tensor) -> torch.Tensor:
                return found * math.nan if self.global_step == 15 else found

            hooks = []
            if is_now and what == "output":
                hooks.append(self.posterior.linear.register_forward_hook(output, prepend=True))
            if is_now and what == "gradient":
                next(self.observation.decoder.parameters()).register_hook(gradient)
            try:
                return losses(self, x, *arguments)
            finally:
                for hook in hooks:
                    hook.remove()

        monkeypatch.setattr(VAE, "losses", spoilt)

    return spoil


SHORT = (
    "train", "--config", "vae", "--trainer.max_epochs", 3, "--trainer.check_val_every_n_epoch", 1, "--num_samples", 0,
    "--pictures.every", 0,
)  # fmt: skip
SAYS = {
    "output": r"the loss became (nan|inf) at step 15, epoch 2, of examples \d+, \d+ \(.*\); the first output that is "
    r"not finite is that of posterior\.linear \(Linear\): lower",
    "gradient": r"the gradient's norm became nan at step 15, epoch 2, of examples .* more; all modules' outputs "
    r"are finite, but not the gradient of observation\.decoder\.\S+weight: lower",
}


@pytest.mark.parametrize(("what", "says"), SAYS.items())
def test_a_run_stops_and_says_where(
    what: str, says: str, spoil: Callable[[str], None], run: Run, tmp_path: Path
) -> None:
    spoil(what)
    code, output = run(*SHORT)
    assert code == 1
    assert re.search(says, output), output
    assert read(tmp_path / "runs/vae/version_0/checkpoints/last.ckpt")["global_step"] == 10


@pytest.mark.parametrize("what", ["output", "gradient"])
def test_a_step_is_left_out(what: str, spoil: Callable[[str], None], run: Run, tmp_path: Path) -> None:
    spoil(what)
    code, output = run(*SHORT, "--on_nonfinite", "skip")
    assert code == 0, output
    assert "this step is left out" in output
    last = read(tmp_path / "runs/vae/version_0/checkpoints/last.ckpt")
    assert last["global_step"] == 30
    (state,) = last["optimizer_states"]
    assert {int(of_one["step"]) for of_one in state["state"].values()} == {29}
    assert all(torch.isfinite(value).all() for value in last["state_dict"].values())
    curve = events(tmp_path / "runs/vae/version_0").Scalars("train/objective")
    assert all(math.isfinite(point.value) for point in curve)


def test_weights_that_are_not_finite_are_not_kept(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As between two looks at the loss on a GPU."""

    def unwatched(self: VAE, batch: Any, batch_index: int) -> Any:
        if self.global_step == 15:
            with torch.no_grad():
                next(self.observation.decoder.parameters()).fill_(math.nan)
        x, _, index = batch
        self._is_watched = False
        return self.losses(x, vaeflow.Noise(0, "train", 0, index), None)[0]

    monkeypatch.setattr(VAE, "training_step", unwatched)
    code, output = run(*SHORT)
    assert code == 1
    assert "the weights are not finite at step 20: they are not kept" in output
    assert read(tmp_path / "runs/vae/version_0/checkpoints/last.ckpt")["global_step"] == 10


def test_clipping_is_on_and_logged(run: Run, tmp_path: Path) -> None:
    assert run(*SHORT, "--trainer.log_every_n_steps", 5)[0] == 0
    assert run(*SHORT, "--trainer.log_every_n_steps", 5, "--trainer.gradient_clip_val", 1e-3)[0] == 0
    for version, share in enumerate((0.0, 1.0)):
        logged = events(tmp_path / f"runs/vae/version_{version}")
        assert all(point.value > 1 for point in logged.Scalars("train/gradient_norm"))
        assert {point.value for point in logged.Scalars("train/clipped")} == {share}


def test_a_norm_is_that_of_all_parameters_and_is_clipped_to() -> None:
    model = VAE((4,), 2, latent_features=2)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, number + 1.0)
    norm = math.sqrt(sum((n + 1) ** 2 * p.numel() for n, p in enumerate(model.parameters())))

    model._trainer = SimpleNamespace(precision_plugin=Precision(), global_step=0, current_epoch=0)  # type: ignore[assignment]
    model._is_watched = True
    model.configure_gradient_clipping(optimizer, 3.0)
    clipped = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))  # type: ignore[union-attr]
    assert clipped == pytest.approx(3.0, rel=1e-5)
    means = model.gradient_means.compute()
    assert means["gradient_norm"][0].item() == pytest.approx(norm, rel=1e-6)
    assert means["clipped"][0].item() == 1
    next(model.parameters()).grad.fill_(math.nan)  # type: ignore[union-attr]
    model._whose, model._losses_again = (lambda: "example 1"), (lambda: None)
    with pytest.raises(VaeflowError, match="the gradient's norm became nan"):
        model.configure_gradient_clipping(optimizer, 3.0)
