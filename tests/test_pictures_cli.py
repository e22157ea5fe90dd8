"""The commands that make pictures, used as their users do: for every family, and with every input that is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vaeflow
from vaeflow.commands import gallery
from vaeflow.commands.configs import CONFIGS

pytestmark = pytest.mark.xdist_group("pictures")  # they share runs
Run = Callable[..., tuple[int, str]]
ROOT = CONFIGS.parent
TOY = ("--data.num_train", 300, "--data.num_val", 100, "--data.num_test", 100)
TRAINED: dict[str, tuple[object, ...]] = {
    "vae": (),
    "vae_iaf": (),
    "nice": (),
    "realnvp": (),
    "maf": (),
    "realnvp_image": ("--model.channels", 8),
    "spline": (),
    "vae_2d": (),
    "gaussian_mixture": (),
    "toys/nice": TOY,
    "toys/iaf": TOY,
    "energies/u1_planar": TOY,
    "mnist/vae": ("--trainer.limit_train_batches", 5),
    "mnist/realnvp": ("--trainer.limit_train_batches", 5, "--model.hidden", "[64]"),
}
"""Each is trained for one epoch."""
PLANE = ("toys/nice", "toys/iaf", "energies/u1_planar")
WITHOUT_CODES = ("gaussian_mixture",)
TAKE_IMAGES = [name for name in TRAINED if name not in PLANE + WITHOUT_CODES]
FLOWS = [name for name in TAKE_IMAGES if "vae" not in name]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A folder with one short run of every family in ``runs``."""
    from vaeflow.commands import train

    folder = tmp_path_factory.mktemp("families")
    for name, options in TRAINED.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("VAEFLOW_DATA", str(data_root))
            one = ("--trainer.max_epochs", 1, "--pictures.every", 0, "--num_samples", 0)
            patch.setattr("sys.argv", ["train.py", "--config", name, *map(str, (*one, *options))])
            train()
    return folder / "runs"


@pytest.fixture(autouse=True)
def _beside_them(checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_root: Path) -> None:
    monkeypatch.setenv("VAEFLOW_DATA", str(data_root))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(checkpoints)


def best(name: str) -> Path:
    return Path(f"runs/{name}/version_0/checkpoints/best.ckpt")


def is_picture(path: Path) -> bool:
    with Image.open(path) as image:
        values = np.asarray(image.convert("L"))
    return values.std() > 5 and min(values.shape) > 100


@pytest.mark.parametrize("name", TAKE_IMAGES)
def test_interpolation_of_every_family(name: str, run: Run, tmp_path: Path) -> None:
    """The ends of the paths are the reconstructions, and for flows the original integers exactly."""
    code, output = run("interpolate", "--experiment", name, "--num", 2, "--steps", 3, "--out", "new/a.png")
    assert code == 0, output
    assert is_picture(tmp_path / "new/a.png")
    with Image.open(tmp_path / "new/a.gif") as film:
        assert film.n_frames == 16
    with np.load("new/a.npz", allow_pickle=False) as arrays:
        ends, x, codes = (torch.from_numpy(arrays[key]) for key in ("ends", "x", "codes"))
    model, data = vaeflow.load(best(name)), vaeflow.load_data(best(name))
    originals, y = data.examples("test", torch.arange(4))
    assert torch.equal(ends.flatten(0, 1), originals)
    decoded = torch.stack([x[:, 0], x[:, -1]], 1).flatten(0, 1)
    if name in FLOWS:
        assert torch.equal(decoded, originals)
    else:
        again = model.decode(model.encode(originals, model.context_of(y))).detach()
        torch.testing.assert_close(decoded, again, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(codes[:, 4], (codes[:, 0] + codes[:, -1]) / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FLOWS)
def test_flows_give_back_the_integers_after_training(name: str) -> None:
    """On every test example of the digits, and on 300 of MNIST's."""
    model, data = vaeflow.load(best(name)), vaeflow.load_data(best(name))
    x, y = data.examples("test", torch.arange(300))
    assert model.started
    assert torch.equal(model.decode(model.encode(x, model.context_of(y)), model.context_of(y)), x)


def test_interpolation_in_all_its_ways(run: Run, tmp_path: Path) -> None:
    iaf = ("interpolate", "--experiment", "vae_iaf")
    assert run(*iaf, "--label", 3, 8, "--num", 2, "--space", "z0", "--method", "spherical", "--out", "a.png")[0] == 0
    with np.load("a.npz") as arrays:
        assert arrays["codes"].shape == (2, 41, 16 + 200)
        ends = torch.from_numpy(arrays["ends"])
    data = vaeflow.load_data(best("vae_iaf"))
    assert torch.equal(ends[:, 0], data.examples("test", data.of_class("test", "3")[:2])[0])
    assert torch.equal(ends[:, 1], data.examples("test", data.of_class("test", "8")[:2])[0])
    assert run(*iaf, "--corners", "--index", 5, 6, 7, 8, "--animation", "webp", "--out", "b.png")[0] == 0
    with np.load("b.npz") as arrays:
        assert arrays["x"].shape == (11, 11, 1, 8, 8)
    assert (tmp_path / "b.webp").is_file()
    np.save("mine.npy", data.examples("test", torch.arange(2))[0].numpy())
    assert run(*iaf, "--file", "mine.npy", "--animation", "none", "--out", "c.pdf")[0] == 0
    assert not (tmp_path / "c.gif").exists()
    assert run(*iaf, "--label", 3, 3, "--num", 2, "--out", "f.png")[0] == 0
    with np.load("f.npz") as arrays:  # the second 3s are others
        threes = data.examples("test", data.of_class("test", "3")[:4])[0]
        assert torch.equal(torch.from_numpy(arrays["ends"]), torch.stack([threes[:2], threes[2:]], dim=1))
    levels = ("interpolate", "--experiment", "realnvp_image", "--levels")
    assert run(*levels, "scale_2", "--out", "d.png")[0] == 0
    code, output = run(*levels, "scale_3", "--out", "e.png")
    assert (code, "there is no level scale_3 in this latent space: it has scale_1, scale_2." in output) == (1, True)


def test_names_are_those_of_the_runs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = []
    monkeypatch.setattr("vaeflow.figures.layers.headline", lambda figure, title: titles.append(title))
    assert run("layers", "--experiment", "toys/nice", "--out", "l.png")[0] == 0
    assert run("layers", "--ckpt", best("nice").resolve(), "--out", "m.png")[0] == 0
    assert titles == [
        "toys/nice (NICE on 8gaussians), layer by layer; from z to x there are 9",
        "nice (NICE on Digits), layer by layer; from z to x there are 5",
    ]


def test_pictures_of_ones_own_are_scaled_and_inverted(run: Run, tmp_path: Path) -> None:
    Image.fromarray(np.full((30, 20), 255, np.uint8)).save("white.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("black.png")
    own = ("interpolate", "--experiment", "nice", "--file", "white.png", "black.png", "--animation", "none")
    code, output = run(*own, "--out", "a.png")
    assert code == 0, output
    assert "white.png is scaled and cut from 20 × 30 to 8 × 8 pixels" in output
    assert "black.png is" not in output
    assert run(*own, "--invert", "--out", "b.png")[0] == 0
    for name, first in (("a", 16), ("b", 0)):
        with np.load(f"{name}.npz") as arrays:
            assert (arrays["ends"][0, 0] == first).all()
            assert (arrays["ends"][0, 1] == 16 - first).all()


def test_small_data_have_pictures_without_options(run: Run, tmp_path: Path) -> None:
    (tmp_path / "runs").unlink()
    x = np.random.default_rng(0).integers(0, 17, (40, 4, 4)).astype(np.uint8)
    np.save("small.npy", x)
    short = ("--trainer.max_epochs", 1, "--pictures.every", 0, "--num_samples", 0)
    own = ("--data", "Arrays", "--data.path", "small.npy", "--data.levels", 17)
    assert run("train", "--config", "nice", "--experiment", "small", *short, *own)[0] == 0
    for script in ("interpolate", "reconstruct", "layers", "sample"):  # four test examples
        code, output = run(script, "--experiment", "small", "--out", f"{script}.png")
        assert code == 0, output
    code, output = run("reconstruct", "--experiment", "small", "--num", 5, "--out", "a.png")
    assert (code, "--num is 5, but the test split has 4 examples." in output) == (1, True)


def test_pictures_lie_in_the_runs_folder_unless_told_otherwise(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "runs/nice/version_0/pictures"
    code, output = run("interpolate", "--ckpt", best("nice"))
    assert code == 0, output
    assert {path.name for path in folder.iterdir()} == {"interpolation.png", "interpolation.gif", "interpolation.npz"}
    assert "runs/nice/version_0/pictures/interpolation.gif" in output
    code, output = run("interpolate", "--ckpt", best("nice"))
    assert (code, "interpolation.png exists already: --force overwrites it" in output) == (1, True)
    assert run("interpolate", "--ckpt", best("nice"), "--force")[0] == 0
    shutil.rmtree(folder)
    shutil.copy(best("nice"), "moved.ckpt")
    assert run("sample", "--ckpt", "moved.ckpt")[0] == 0
    assert (tmp_path / "pictures/moved_samples.png").is_file()


@pytest.mark.parametrize("name", [name for name in TRAINED if name != "gaussian_mixture"])
def test_samples_and_reconstructions_of_every_family(name: str, run: Run, tmp_path: Path) -> None:
    code, output = run("sample", "--experiment", name, "--num", 20, "--temperature", 0.8, "--npz", "--out", "s.png")
    assert code == 0, output
    assert is_picture(tmp_path / "s.png")
    model = vaeflow.load(best(name))
    with np.load("s.npz", allow_pickle=False) as arrays:
        drawn = torch.from_numpy(arrays["x"])
    torch.testing.assert_close(drawn, model.sample(20, vaeflow.Noise(0), temperature=0.8), rtol=1e-3, atol=1e-3)
    if name != "energies/u1_planar":
        assert run("reconstruct", "--experiment", name, "--num", 5, "--out", "r.png")[0] == 0
        assert is_picture(tmp_path / "r.png")


def test_neighbours_of_samples(run: Run, tmp_path: Path) -> None:
    arguments = ("--mean", "--num", 5, "--neighbours", 3, "--npz", "--out", "n.png")
    code, output = run("sample", "--experiment", "vae", *arguments)
    assert code == 0, output
    assert "distance to the nearest training example, median: " in output
    assert is_picture(tmp_path / "n.png")
    with np.load("n.npz") as arrays:
        assert arrays["neighbours"].shape == arrays["distances"].shape == (5, 3)
        x, index, distances = arrays["x"], arrays["neighbours"], arrays["distances"]
    train = vaeflow.load_data(best("vae")).examples("train", torch.arange(1297))[0].numpy()
    every = np.sqrt(((x[:, None] - train) ** 2).sum((2, 3, 4)))
    assert (index[:, 0] == every.argmin(1)).all()
    np.testing.assert_allclose(distances, np.sort(every, 1)[:, :3], rtol=1e-4)


@pytest.mark.parametrize("name", ["vae", "vae_iaf", "maf", "mnist/vae"])
def test_attributes(name: str, run: Run, tmp_path: Path) -> None:
    for method in ("means", "probe"):
        arguments = ("--attribute", 3, "--strength", "-3:3:7", "--num", 2, "--method", method, "--limit", 100)
        code, output = run("attribute", "--experiment", name, *arguments, "--out", f"{method}.png")
        assert code == 0, output
        assert "100 training examples with the attribute, 100 without" in output
        assert is_picture(tmp_path / f"{method}.png")
    assert (tmp_path / "means.png").read_bytes() != (tmp_path / "probe.png").read_bytes()


def test_attributes_by_two_lists(run: Run, tmp_path: Path) -> None:
    lists = ("attribute", "--experiment", "vae_iaf", "--positive", "3,8,20-40", "--negative", "50-90", "--space", "z0")
    code, output = run(*lists, "--index", 4, 2, "--out", "a.png")
    assert (code, "23 training examples with the attribute, 41 without" in output) == (0, True), output
    code, output = run("attribute", "--experiment", "vae", "--attribute", 3, "--against", 8, "--out", "b.png")
    assert code == 0, output


def test_planes_of_two_latents(run: Run, tmp_path: Path) -> None:
    assert run("manifold", "--experiment", "vae_2d", "--points", 6, "--out", "m.png")[0] == 0
    code, output = run("posterior", "--experiment", "vae_2d", "vae_2d", "--index", 3, 5, "--out", "p.png")
    assert code == 0, output
    assert "KL(q(z|x) ‖ p(z|x))" in output
    for picture in ("m.png", "p.png"):
        assert is_picture(tmp_path / picture)
    shutil.copytree("runs/vae_2d/version_0", "other/a/version_0")
    other = Path("other/a/version_0/checkpoints/best.ckpt")
    checkpoint: Any = torch.load(other, weights_only=True)
    checkpoint["vaeflow"]["data"]["init_args"]["split_seed"] = 7
    torch.save(checkpoint, other)
    code, output = run("posterior", "--ckpt", best("vae_2d"), other, "--half-width", 9, "--out", "q.png")
    assert (code, "is of other examples than runs/vae_2d/" in output) == (1, True), output


@pytest.mark.parametrize("name", ["nice", "realnvp", "maf", "toys/nice", "toys/iaf", "energies/u1_planar"])
def test_layers(name: str, run: Run, tmp_path: Path) -> None:
    code, output = run("layers", "--experiment", name, "--out", "l.png")
    assert code == 0, output
    assert is_picture(tmp_path / "l.png")


@pytest.mark.parametrize("name", PLANE)
def test_the_plane(name: str, run: Run, tmp_path: Path) -> None:
    assert run("density", "--experiment", name, "--points", 40, "--out", "d.png")[0] == 0
    assert is_picture(tmp_path / "d.png")
    if name != "energies/u1_planar":
        assert run("interpolate", "--experiment", name, "--out", "i.png")[0] == 0
        assert is_picture(tmp_path / "i.png")


VAE_CKPT = ("--experiment", "vae")
WRONG: dict[str, tuple[tuple[object, ...], int, str]] = {
    "no checkpoint": (("interpolate",), 2, "give --ckpt with a checkpoint's path, or --experiment"),
    "two": (("sample", "--ckpt", "a", "--experiment", "b"), 2, "give --ckpt with a checkpoint's path, or --experiment"),
    "no such run": (("sample", "--experiment", "vea"), 1, "there is no run vea with a best.ckpt in runs: there are "),
    "no runs": (("sample", "--experiment", "a", "--runs", "b"), 1, "in b: there are no runs there."),
    "no such file": (("sample", "--ckpt", "nothing.ckpt"), 1, "there is no checkpoint nothing.ckpt"),
    "not a checkpoint": (("interpolate", "--ckpt", "text.ckpt"), 1, "text.ckpt is damaged, or no checkpoint"),
    "of another program": (
        ("interpolate", "--ckpt", "lightning.ckpt"), 1,
        "lightning.ckpt is not a checkpoint of vaeflow, but of another class, saved by Lightning 2.0.1."),
    "weights alone": (
        ("interpolate", "--ckpt", "weights.ckpt"), 1, "weights.ckpt is not a checkpoint of vaeflow, but holds w, b."),
    "of a class that is gone": (
        ("sample", "--ckpt", "gone.ckpt"), 1, "names vaeflow.models.vae.Gone, which does not exist in this"),
    "of an older version": (
        ("sample", "--ckpt", "old.ckpt"), 1, "old.ckpt was written by vaeflow 0.0.1, whose models "),
    "index outside": (
        ("interpolate", *VAE_CKPT, "--index", 0, 300), 1,
        "index 300 is outside the test split, which has 300 examples, 0 to 299."),
    "negative index": (("reconstruct", *VAE_CKPT, "--index", -1), 1, "index -1 is outside the test split"),
    "index outside of lists": (
        ("attribute", *VAE_CKPT, "--positive", 1, "--negative", 2000), 1, "index 2000 is outside the train split"),
    "no such label": (
        ("interpolate", *VAE_CKPT, "--label", 3, 11), 1, "Digits has labels 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and none"),
    "no such attribute": (("attribute", *VAE_CKPT, "--attribute", "smile"), 1, "and none called smile."),
    "no labels": (
        ("attribute", "--experiment", "toys/nice", "--attribute", 1), 1, "an attribute is added to images, but"),
    "odd labels": (("interpolate", *VAE_CKPT, "--label", 3), 1, "--label wants pairs: the label that"),
    "more than there are": (
        ("interpolate", *VAE_CKPT, "--label", 3, 8, "--num", 100), 1, "examples with the label 3, not 100."),
    "index and label": (("interpolate", *VAE_CKPT, "--label", 3, "--index", 8), 1, "leave out --label and --file."),
    "label of no class": (("sample", *VAE_CKPT, "--label", 3), 1, "but this model has no classes."),
    "split": (("reconstruct", *VAE_CKPT, "--split", "testing"), 1, "expected train, val or test"),
    "strength": (
        ("attribute", *VAE_CKPT, "--attribute", 3, "--strength", "-3:3"), 1,
        "--strength is -3:3, expected FIRST:LAST:COUNT, such as -3:3:7."),
    "no attribute": (("attribute", *VAE_CKPT), 2, "give --attribute NAME, or two lists"),
    "against itself": (
        ("attribute", *VAE_CKPT, "--attribute", 3, "--against", 3, 4), 1, "both have the attribute and lack it"),
    "against, of lists": (
        ("attribute", *VAE_CKPT, "--positive", 1, "--negative", 2, "--against", 3), 2, "leave out --against: two"),
    "temperature of codes": (
        ("reconstruct", "--experiment", "nice", "--temperature", 1), 1, "NICE draws no codes, they are functions of x"),
    "no examples": (("reconstruct", "--experiment", "energies/u1_planar"), 1, "U1 is an energy, which has no exam"),
    "no ends": (("interpolate", "--experiment", "energies/u1_planar"), 1, "U1 is an energy, which has no examples."),
    "columns": (("layers", "--experiment", "nice", "--columns", 1), 2, "`columns` is 1, expected 2 or more."),
    "points": (("posterior", "--experiment", "vae_2d", "--points", 1), 2, "`points` is 1, expected 2 or more."),
    "half width": (
        ("posterior", "--experiment", "vae_2d", "--half-width", 0.5), 1, "beyond the grid: --half-width is 0.5"),
    "mean of a flow": (
        ("sample", "--experiment", "nice", "--mean"), 1, "--mean is the mean of p(x|z), which NICE has not"),
    "backwards": (
        ("attribute", *VAE_CKPT, "--positive", "9-3", "--negative", 2), 1, "'9-3' runs backwards, expected"),
    "no checkpoint, old output": (("sample", "--ckpt", "no.ckpt", "--out", "old.png"), 1, "there is no checkpoint"),
    "half a list": (("attribute", *VAE_CKPT, "--positive", "1,2"), 2, "give --attribute NAME, or two lists"),
    "no list": (
        ("attribute", *VAE_CKPT, "--positive", "1,x", "--negative", 2), 1, "'1,x' is no list of numbers, such as 3,8,"),
    "folder": (("sample", *VAE_CKPT, "--out", "/proc/a.png"), 1, "/proc/a.png cannot be written"),
    "a file as a folder": (("sample", *VAE_CKPT, "--out", "text.ckpt/a.png"), 1, "a.png cannot be written"),
    "exists": (("sample", *VAE_CKPT, "--out", "old.png"), 1, "old.png exists already: --force overwrites it"),
    "exists beside": (("interpolate", *VAE_CKPT, "--out", "other.png"), 1, "other.npz exists already"),
    "ending": (("sample", *VAE_CKPT, "--out", "a.txt"), 1, "expected a name that ends in one of .png, .pdf, .svg."),
    "temperature": (("sample", *VAE_CKPT, "--temperature", -1), 2, "`temperature` is -1, expected 0 or more."),
    "number": (("sample", *VAE_CKPT, "--num", 0), 2, "`num` is 0, expected more than 0."),
    "space": (("interpolate", *VAE_CKPT, "--space", "z0"), 1, "--space is z0, but this model has z alone."),
    "no latent space": (
        ("interpolate", "--experiment", "gaussian_mixture"), 1, "GaussianMixtureModel has no latent space to go"),
    "no latent space, attribute": (
        ("attribute", "--experiment", "gaussian_mixture", "--attribute", 3), 1, "GaussianMixtureModel has no laten"),
    "no plane": (("manifold", *VAE_CKPT), 1, "VAE has a latent space of 16 dimensions, expected one of two"),
    "no posterior": (("posterior", "--experiment", "toys/nice"), 1, "NICE has no approximate posterior"),
    "no layers": (("layers", *VAE_CKPT), 1, "VAE has no layers that lead from noise to data"),
    "no density of the plane": (("density", *VAE_CKPT), 1, "a density is drawn of points of the plane"),
    "corners": (("interpolate", *VAE_CKPT, "--corners", "--label", 1, 2), 1, "--corners wants four labels, not 2."),
    "own file": (("reconstruct", *VAE_CKPT, "--file", "text.png"), 1, "text.png cannot be read as a picture"),
    "no such picture": (("figures", "--only", "a.png"), 1, "the gallery has no picture a.png: it has "),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_in_one_sentence(what: str, run: Run, tmp_path: Path) -> None:
    for name in ("text.ckpt", "text.png", "old.png", "other.npz"):
        (tmp_path / name).write_text("no checkpoint and no picture")
    torch.save({"pytorch-lightning_version": "2.0.1", "state_dict": {}}, "lightning.ckpt")
    torch.save({"w": torch.zeros(1), "b": torch.zeros(1)}, "weights.ckpt")
    checkpoint: Any = torch.load(best("vae"), weights_only=True)
    described = checkpoint["vaeflow"]["model"]
    torch.save({**checkpoint, "vaeflow": {"version": vaeflow.__version__, "data": None, "model": {
        **described, "class_path": "vaeflow.models.vae.Gone"}}}, "gone.ckpt")  # fmt: skip
    torch.save({**checkpoint, "vaeflow": {"version": "0.0.1", "data": None, "model": {
        **described, "init_args": {**described["init_args"], "an_old_argument": 3}}}}, "old.ckpt")  # fmt: skip
    before = {*tmp_path.rglob("*"), *(tmp_path / "runs").resolve().rglob("*")}
    arguments, expected, message = WRONG[what]
    code, output = run(*arguments)
    assert (code, message in output) == (expected, True), output
    assert len([line for line in output.splitlines() if line.strip()]) == 1, output
    assert {*tmp_path.rglob("*"), *(tmp_path / "runs").resolve().rglob("*")} == before


def test_the_gallery_is_what_its_commands_make(run: Run, tmp_path: Path) -> None:
    """The page in the repository is the one that ``figures.py`` writes, and its pictures are there, and small."""
    assert (ROOT / "docs/gallery.md").read_text() == gallery.page()
    pictures = [ROOT / "docs/figures" / picture.file for picture in gallery.PICTURES]
    for picture in pictures:
        assert is_picture(picture)
    assert sorted((ROOT / "docs/figures").iterdir()) == sorted(pictures)
    assert sum(picture.stat().st_size for picture in pictures) < 2e6
    code, output = run("figures", "--only", "push_forward.png")
    assert code == 0, output
    assert is_picture(tmp_path / "docs/figures/push_forward.png")
    assert not (tmp_path / "docs/gallery.md").exists()  # which would show pictures that are not there


def test_the_gallery_trains_what_it_shows(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").unlink()
    train = gallery.trained("vae", "--trainer.max_epochs 1 --num_samples 0 --pictures.every 0")
    drawn = "python scripts/interpolate.py --experiment gallery/vae --num 1 --animation none"
    pictures = tuple(gallery.Picture(f"{k}.png", "One.", (train, drawn)) for k in "ab")
    monkeypatch.setattr(gallery, "PICTURES", pictures)
    code, output = run("figures", "--out", "my docs")
    assert code == 0, output
    assert sorted(path.name for path in (tmp_path / "my docs/figures").iterdir()) == ["a.png", "b.png"]
    assert [path.name for path in (tmp_path / "runs/gallery/vae").iterdir()] == ["version_0"]  # trained once
    assert f"```bash\n{train}\n{drawn}\n```" in (tmp_path / "my docs/gallery.md").read_text()
    assert run("figures", "--out", "my docs", "--reuse")[0] == 0
    assert [path.name for path in (tmp_path / "runs/gallery/vae").iterdir()] == ["version_0"]
    assert run("figures", "--out", "my docs")[0] == 0
    assert len(list((tmp_path / "runs/gallery/vae").iterdir())) == 2


def test_latent_dimensions_are_trained_once(run: Run, tmp_path: Path) -> None:
    (tmp_path / "runs").unlink()
    arguments = (
        "--dimensions",
        2,
        3,
        "--train",
        "--trainer.max_epochs 1 --num_samples 2 --pictures.every 0",
        "--num",
        4,
    )
    code, output = run("latent_dimensions", *arguments, "--out", "l.png")
    assert code == 0, output
    assert is_picture(tmp_path / "l.png")
    for dimension in (2, 3):
        assert (
            vaeflow.load(f"runs/latent_dimensions/{dimension}/version_0/checkpoints/best.ckpt").latent_features
            == dimension
        )
    assert run("latent_dimensions", *arguments, "--out", "m.png")[0] == 0
    assert [path.name for path in (tmp_path / "runs/latent_dimensions/2").iterdir()] == ["version_0"]
    assert run("latent_dimensions", *arguments, "--config", "vae_2d", "--out", "n.png")[0] == 0
    assert len(list((tmp_path / "runs/latent_dimensions/2").iterdir())) == 2  # another model is another run
