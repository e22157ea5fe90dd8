"""Checkpoints describe themselves, load again as the same model, and run nobody's code."""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pytorch_lightning import Trainer

import vaeflow
from tests.distributions.test_posteriors import FLOWS
from tests.test_cli import Run
from vaeflow.bijections import Bijection, Inverse
from vaeflow.data import Digits
from vaeflow.distributions import FlowDensity
from vaeflow.errors import VaeflowError
from vaeflow.models import VAE, LikelihoodModel
from vaeflow.nets import MLPDecoder, MLPEncoder
from vaeflow.noise import Noise
from vaeflow.records.checkpoint import KEY, describe, factory, load_weights, read

PARTS: dict[str, Any] = {
    "latent_features": 3,
    "encoder": functools.partial(MLPEncoder, hidden=[8]),
    "decoder": functools.partial(MLPDecoder, hidden=[8]),
    "flow": functools.partial(Inverse, bijection=FLOWS["iaf"]),
    "prior": functools.partial(FlowDensity, flow=FLOWS["planar"]),
    "optimizer": functools.partial(torch.optim.Adam, lr=1e-3),
    "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR,
}


def save(model: LikelihoodModel, path: Path) -> Path:
    trainer = Trainer(
        max_epochs=1, limit_train_batches=2, limit_val_batches=1, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, datamodule=Digits())
    trainer.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = Digits()
    model = VAE(data.shape, data.levels, **PARTS)
    return save(model, tmp_path_factory.mktemp("checkpoint") / "model.ckpt")


@pytest.fixture
def altered(checkpoint: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """The checkpoint with something changed in what it says of itself."""

    def altered(change: Callable[[dict[str, Any]], None]) -> Path:
        content = torch.load(checkpoint, weights_only=True)
        change(content)
        torch.save(content, tmp_path / "altered.ckpt")
        return tmp_path / "altered.ckpt"

    return altered


def test_a_model_made_in_python_loads_as_itself(checkpoint: Path) -> None:
    model = vaeflow.load(checkpoint)
    assert type(model) is VAE
    assert not model.training
    assert isinstance(model.posterior.flow, Inverse)
    x = vaeflow.load_data(checkpoint).examples("test", torch.arange(5))[0]
    noise = Noise(index=torch.arange(5))
    twice = vaeflow.load(checkpoint)
    with torch.no_grad():
        assert torch.equal(model.log_weights(x, noise, 3), twice.log_weights(x, noise, 3))
    assert dict(model.hparams) == dict(twice.hparams)


def test_the_data_come_with_it_and_may_be_changed(checkpoint: Path) -> None:
    assert isinstance(vaeflow.load_data(checkpoint), Digits)
    assert vaeflow.load_data(checkpoint, batch_size=7).batch_size == 7


def test_a_loaded_model_can_be_saved_again(checkpoint: Path, tmp_path: Path) -> None:
    again = save(vaeflow.load(checkpoint), tmp_path / "again.ckpt")
    assert read(again)[KEY] == read(checkpoint)[KEY]


def test_descriptions_are_plain_and_round_trip() -> None:
    described = describe(PARTS["flow"])
    assert described == {
        "class_path": "vaeflow.bijections.base.Inverse",
        "init_args": {
            "bijection": {
                "class_path": "vaeflow.bijections.autoregressive.InverseAutoregressive",
                "init_args": {"steps": 2, "hidden": [16]},
            }
        },
    }
    assert describe(factory(described, Bijection)) == described


ATTACKS = {
    "a function": "os.system",
    "a function through an allowed module": "torch.nn.parallel.distributed.os.system",
    "a function of an allowed package": "torch.nn.init.zeros_",
    "a class of another kind": "torch.nn.Linear",
    "an imported class": "vaeflow.records.checkpoint.Path",
    "an untrusted package": "sklearn.svm.SVC",
    "nothing": "vaeflow.bijections.Nothing",
    "no path": "Planar",
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("place", ["flow", "nested", "model", "data"])
def test_what_a_checkpoint_names_is_never_called(attack: str, place: str, altered: Any, tmp_path: Path) -> None:
    evil = {"class_path": ATTACKS[attack], "init_args": {}}

    def change(content: dict[str, Any]) -> None:
        parts = content[KEY]["model"]["init_args"]
        if place == "flow":
            parts["flow"] = evil
        elif place == "nested":
            parts["flow"]["init_args"]["bijection"] = evil
        else:
            content[KEY][place] = evil

    path = altered(change)
    with pytest.raises(VaeflowError) as error:
        (vaeflow.load_data if place == "data" else vaeflow.load)(path)
    assert ATTACKS[attack] in str(error.value)


@pytest.mark.parametrize(
    "value", ["os.system", ["os.system"], {"class_path": "os.system", "extra": 1}, {"init_args": {}}]
)
def test_a_part_that_is_no_description_is_refused(value: Any, altered: Any) -> None:
    path = altered(lambda content: content[KEY]["model"]["init_args"].update(flow=value))
    with pytest.raises(VaeflowError):
        vaeflow.load(path)


class Mine(Bijection):
    """A user's own bijection, in a package that vaeflow does not know."""

    def __init__(self, features: int, context_features: int = 0) -> None:
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(features))

    def forward(self, z: torch.Tensor, context: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        return z + self.shift, z.new_zeros(z.shape[:-1])

    def inverse(self, x: torch.Tensor, context: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        return x - self.shift, x.new_zeros(x.shape[:-1])


def test_your_own_parts_load_when_you_trust_their_package(tmp_path: Path) -> None:
    data = Digits()
    path = save(VAE(data.shape, data.levels, **{**PARTS, "flow": Mine}), tmp_path / "mine.ckpt")
    with pytest.raises(VaeflowError, match=r"trust=\['tests'\]"):
        vaeflow.load(path)
    with pytest.raises(VaeflowError, match=r"trust is 'tests', expected a list of packages, such as \['tests'\]"):
        vaeflow.load(path, trust="tests")
    assert isinstance(vaeflow.load(path, trust=["tests"]).posterior.flow, Mine)


def test_damaged_files_are_named(checkpoint: Path, tmp_path: Path) -> None:
    whole = checkpoint.read_bytes()
    for i, content in enumerate((whole[: len(whole) // 2], whole[:100], b"", b"no checkpoint", _flipped(whole))):
        path = tmp_path / f"damaged{i}.ckpt"
        path.write_bytes(content)
        with pytest.raises(VaeflowError, match=f"damaged{i}.ckpt is damaged") as error:
            vaeflow.load(path)
        assert "\n" not in str(error.value)
    with pytest.raises(VaeflowError, match=r"there is no checkpoint pretrained/mine\. Pretrained are .*vae_iaf"):
        read("pretrained/mine")
    with pytest.raises(VaeflowError, match="there is no checkpoint"):
        vaeflow.load(tmp_path / "nowhere.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(VaeflowError, match="not a checkpoint of vaeflow"):
        vaeflow.load(tmp_path / "other.ckpt")


def _flipped(whole: bytes) -> bytes:
    """One bit of the weights flipped, which torch.load itself does not notice."""
    middle = len(whole) // 2
    return whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]


class Other(VAE):
    """Another model class."""


def test_a_checkpoint_of_another_model_is_refused(checkpoint: Path) -> None:
    data = Digits()
    with pytest.raises(
        VaeflowError, match=r"is a checkpoint of vaeflow.models.vae.VAE, but the config asks for .*Other"
    ):
        load_weights(Other(data.shape, data.levels, **PARTS), read(checkpoint), checkpoint)
    with pytest.raises(VaeflowError, match="of a VAE with other sizes or parts"):
        load_weights(VAE(data.shape, data.levels), read(checkpoint), checkpoint)


def test_a_compressed_archive_is_no_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    """As one that unpacks to more than there is memory would be."""
    with (
        zipfile.ZipFile(checkpoint) as plain,
        zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
    with pytest.raises(VaeflowError, match=r"bomb.ckpt is damaged, or no checkpoint \(it is compressed"):
        read(tmp_path / "bomb.ckpt")


HOSTILE = {
    "a function": {"model": {"class_path": "os.system", "init_args": {}}},
    "a function of torch": {"model": {"init_args": {"flow": "torch.nn.functional.importlib.import_module"}}},
    "a bare path": {"trainer": {"callbacks": [{"class_path": "pytorch_lightning.callbacks.LambdaCallback",
                                               "init_args": {"on_train_start": "os.abort"}}]}},
    "a module imported elsewhere": {"model": {"class_path": "torch.nn.parallel.distributed.os.system"}},
    "the command line": {"trainer": {"callbacks": [{"class_path": "pytorch_lightning.cli.LightningCLI"}]}},
    "YAML in a text": {"trainer": {"callbacks": "[{class_path: pytorch_lightning.callbacks.LambdaCallback, "
                                                "init_args: {on_fit_start: os.abort}}]"}},
    "a list in a text": {"trainer": {"callbacks": "[os.abort]"}},
    "a file beside it": {"model": "checkpoints/more"},
    "a foreign module": {"data": {"class_path": "strangers.Data"}},
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_the_config_of_a_strangers_run_names_nothing_foreign(case: str, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "version_0"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": "Digits", "model": "VAE", **HOSTILE[case]}))
    (folder / "checkpoints/more").write_text("class_path: strangers.Model")
    (tmp_path / "strangers.py").write_text("raise SystemExit(77)")
    code, output = run("train", "--config", folder / "config.yaml")
    assert code == 1, output
    assert "config.yaml" in output
    says = ("if you trust its author", "is expected", "does not exist", "more of a config in a text")
    assert any(part in output for part in says)


def test_a_config_that_loaders_read_differently_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("data:\tstrangers.Data\nmodel: VAE\n")
    code, output = run("train", "--config", "config.yaml")
    assert code == 1
    assert "config.yaml is no YAML" in output


def test_a_config_names_your_own_classes_if_you_trust_them(run: Run, tmp_path: Path) -> None:
    (tmp_path / "my_own.py").write_text("from vaeflow.bijections import Planar\nclass Mine(Planar): pass")
    options = ("--trainer.max_epochs", 1, "--trainer.check_val_every_n_epoch", 1, "--num_samples", 0)
    assert run("train", "--config", "vae", "--model.flow", "my_own.Mine", *options)[0] == 0
    config = tmp_path / "runs/vae/version_0/config.yaml"
    code, output = run("train", "--config", config)
    assert code == 1
    assert "names my_own.Mine, which is not in vaeflow" in output
    code, output = run("train", "--config", config, "--trust", "my_own")
    assert code == 0, output
