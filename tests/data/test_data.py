"""Data modules: values as the user gave them, fixed splits, an order that is a function of (seed, epoch)."""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import md5
from vaeflow.data import CIFAR10, MNIST, Arrays, DataModule, Digits, FreyFaces, ImageFolder
from vaeflow.data.batches import EvaluationBatches, TrainingBatches
from vaeflow.data.torchvision_sets import _read
from vaeflow.errors import VaeflowError
from vaeflow.noise import Noise


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """Writes arrays to a file and says where."""

    def save(name: str, *arrays: np.ndarray, **named: np.ndarray) -> str:
        path = tmp_path / name
        if path.suffix == ".csv":
            np.savetxt(path, arrays[0], delimiter=",")
        elif path.suffix == ".npz":
            np.savez(path, *arrays, **named)
        else:
            np.save(path, arrays[0])
        return str(path)

    return save


def pictures(folder: Path, count: int = 20, size: tuple[int, int] = (6, 5)) -> Path:
    generator = np.random.default_rng(0)
    for i in range(count):
        (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(
            folder / "ab"[i % 2] / f"{i}.png"
        )
    return folder


def check(
    data: DataModule, shape: tuple[int, ...], levels: int | None, measure: str, sizes: tuple[int, int, int]
) -> None:
    data.setup("fit")
    assert (data.shape, data.levels, data.measure) == (shape, levels, measure)
    assert tuple(len(data.splits[s][0]) for s in ("train", "val", "test")) == sizes
    assert "/".join(map(str, sizes)) in data.protocol
    x, y, index = next(iter(data.train_dataloader()))
    x = data.finish(x, Noise(index=index))
    assert x.is_floating_point()
    assert x.shape[1:] == shape
    assert len(x) == len(y) == len(index)
    if levels is not None:
        assert torch.equal(x, x.floor())
        assert x.min() >= 0
        assert x.max() < levels


def test_digits() -> None:
    data = Digits()
    check(data, (1, 8, 8), 17, "discrete-17", (1297, 200, 300))
    assert data.num_classes == 10
    other = Digits(split_seed=1)
    assert data.fingerprint() != other.fingerprint()
    assert data.fingerprint() == Digits(batch_size=7, seed=5).fingerprint()
    everything = torch.cat([data.splits[s][0] for s in ("train", "val", "test")]).flatten(1)
    assert len(everything.unique(dim=0)) == 1797


def test_mnist(data_root: Path) -> None:
    check(MNIST(str(data_root), binarise="none"), (1, 28, 28), 256, "discrete-256", (50_000, 10_000, 10_000))
    data = MNIST(str(data_root))
    check(data, (1, 28, 28), 2, "binary", (50_000, 10_000, 10_000))
    index = torch.arange(500)
    grey = data.splits["train"][0][index]
    draws = torch.stack([data.finish(grey, Noise(0, "train", epoch, index)) for epoch in range(50)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    error = draws.mean() - grey.float().mean() / 255
    assert error.abs() < 4 * (0.25 / draws.numel()) ** 0.5
    assert not torch.equal(draws[0], draws[1])
    threshold = MNIST(str(data_root), binarise="threshold")
    assert torch.equal(threshold.finish(grey, Noise()), (grey >= 128).float())
    # validation and test are drawn once, by their own seed alone
    again = MNIST(str(data_root), seed=9, batch_size=3)
    assert torch.equal(data.examples("val", index)[0], again.examples("val", index)[0])
    other = MNIST(str(data_root), binarise_seed=1)
    assert not torch.equal(data.examples("val", index)[0], other.examples("val", index)[0])
    assert "seed 0" in data.protocol
    assert "seed 1" in other.protocol
    more = MNIST(str(data_root), num_val=400)
    check(more, (1, 28, 28), 2, "binary", (59_600, 400, 10_000))
    assert more.fingerprint() == data.fingerprint()
    assert torch.equal(more.splits["train"][0][:50_000], data.splits["train"][0])
    assert "split 59600/400/10000" in more.protocol
    with pytest.raises(VaeflowError, match="num_val is 60000, of 60,000 images"):
        MNIST(str(data_root), num_val=60_000)


def test_the_real_mnist() -> None:
    root = os.environ.get("VAEFLOW_DATA", "data")
    if not Path(root, "MNIST").is_dir():
        pytest.skip("there is no MNIST in VAEFLOW_DATA or data/")
    data = MNIST(root, binarise="none")
    data.setup("fit")
    assert data.splits["train"][1][:5].tolist() == [5, 0, 4, 1, 9]
    assert data.splits["test"][1][:5].tolist() == [7, 2, 1, 0, 4]
    mean, scale = data.statistics()
    assert mean.mean().item() / 255 == pytest.approx(0.1307, abs=5e-4)
    assert (scale.square() + mean.square()).mean().sqrt().item() / 255 == pytest.approx(0.335, abs=2e-3)


def test_frey_faces(data_root: Path) -> None:
    data = FreyFaces(str(data_root))
    check(data, (1, 28, 20), 256, "discrete-256", (100, 200, 200))
    assert not torch.equal(data.splits["test"][0], _test(FreyFaces(str(data_root), split_seed=321)))


def _test(data: DataModule) -> torch.Tensor:
    data.setup("")
    return data.splits["test"][0]


def test_cifar10_is_downloaded(cifar_download: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = CIFAR10(str(tmp_path / "root"), flip=True)
    train, test = (_read(data, "CIFAR10", is_train) for is_train in (True, False))
    assert (tmp_path / "root" / "cifar-10-batches-py").is_dir()
    monkeypatch.setattr(
        data, "read", lambda: {"train": train, "val": train, "test": test}
    )  # too few for 45,000 + 5,000
    check(data, (3, 32, 32), 256, "discrete-256", (50, 50, 10))
    x, index = data.splits["train"][0], torch.arange(50)
    flipped = data.finish(x, Noise(0, "train", 0, index))
    mirrored = (flipped == x.float().flip(-1)).flatten(1).all(1)
    assert 5 < mirrored.sum() < 45
    assert torch.equal(flipped[~mirrored], x.float()[~mirrored])
    assert torch.equal(data.finish(x, Noise(0, "test", 0, index)), x.float())


def test_frey_faces_and_mnist_are_downloaded(
    data_root: Path, tmp_path: Path, serve: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = data_root / "freyfaces" / "frey_rawface.mat"
    monkeypatch.setattr("vaeflow.data.frey_faces.URL", f"{serve(frames.parent)}/{frames.name}")
    monkeypatch.setattr("vaeflow.data.frey_faces.MD5", md5(frames))
    data = FreyFaces(str(tmp_path))
    assert torch.equal(_test(data), _test(FreyFaces(str(data_root))))
    served = tmp_path / "served"
    served.mkdir()
    resources = []
    for file in sorted((data_root / "MNIST" / "raw").iterdir()):
        with gzip.open(served / f"{file.name}.gz", "wb", compresslevel=1) as archive:
            archive.write(file.read_bytes())
        resources.append((f"{file.name}.gz", md5(served / f"{file.name}.gz")))
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [serve(served) + "/"])
    monkeypatch.setattr("torchvision.datasets.MNIST.resources", resources)
    assert MNIST(str(tmp_path)).fingerprint() == MNIST(str(data_root)).fingerprint()


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    root = pictures(tmp_path)
    data = ImageFolder(str(root))
    check(data, (3, 5, 6), 256, "discrete-256", (16, 2, 2))
    for other in (".ipynb_checkpoints/0.png", "__MACOSX/a/0.png", "a/._0.png"):
        (root / other).parent.mkdir(parents=True, exist_ok=True)
        (root / other).write_bytes(b"no picture")
    assert ImageFolder(str(root)).fingerprint() == data.fingerprint()
    assert (data.num_classes, data.classes) == (2, ["a", "b"])
    check(ImageFolder(str(root), size=4, grey=True), (1, 4, 4), 256, "discrete-256", (16, 2, 2))


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv"])
def test_vectors_keep_their_values(name: str, save: Callable[..., str]) -> None:
    values = np.random.default_rng(0).normal(size=(40, 3)) * [1, 10, 100]
    data = Arrays(save(name, values))
    check(data, (3,), None, "continuous", (32, 4, 4))
    kept = torch.cat([data.splits[s][0] for s in ("train", "val", "test")])
    torch.testing.assert_close(kept.sort(0)[0].double(), torch.from_numpy(np.sort(values, 0)))
    mean, scale = data.statistics()
    torch.testing.assert_close(scale, data.splits["train"][0].double().std(0, correction=0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mean, data.splits["train"][0].double().mean(0), rtol=1e-6, atol=1e-6)
    values[:, 1] = 0.1  # whose mean is rounded
    data = Arrays(save(name, values))
    data.setup("fit")
    assert (data.statistics()[1] == 0).tolist() == [False, True, False]


def test_arrays_of_images_labels_and_own_splits(save: Callable[..., str]) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (30, 6, 4)).astype(np.uint8)
    check(Arrays(save("grey.npy", grey)), (1, 6, 4), 256, "discrete-256", (24, 3, 3))
    colour = np.stack([grey] * 3, -1)
    labels = np.arange(30) % 4
    data = Arrays(save("colour.npz", x=colour, y=labels))
    check(data, (3, 6, 4), 256, "discrete-256", (24, 3, 3))
    assert data.num_classes == 4
    split = Arrays(save("split.npz", train=grey[:20], val=grey[20:25], test=grey[25:]))
    check(split, (1, 6, 4), 256, "discrete-256", (20, 5, 5))
    assert torch.equal(split.splits["test"][0][:, 0], torch.from_numpy(grey[25:]))
    own = {"train": labels[:20], "val": labels[20:25], "test": labels[25:]}
    labelled = {**{name: grey[: len(y)] for name, y in own.items()}, **{f"y_{name}": y for name, y in own.items()}}
    split = Arrays(save("labelled.npz", **labelled))
    check(split, (1, 6, 4), 256, "discrete-256", (20, 5, 5))
    assert split.num_classes == 4
    assert {name: y.tolist() for name, (_, y) in split.splits.items()} == {n: y.tolist() for n, y in own.items()}
    binary = Arrays(save("binary.npy", (grey > 99).astype(np.int64)), levels=2)
    check(binary, (1, 6, 4), 2, "binary", (24, 3, 3))


def test_training_order_is_a_function_of_seed_and_epoch() -> None:
    batches = TrainingBatches(103, 10, seed=1)
    assert len(batches) == 10
    epochs = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        epochs.append(torch.cat(list(batches)))
    assert torch.equal(epochs[0], epochs[2])
    assert not torch.equal(epochs[0], epochs[1])
    assert len(epochs[0].unique()) == 100
    other = torch.cat(list(TrainingBatches(103, 10, seed=2)))
    assert not torch.equal(epochs[0], other)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_processes_share_batches_without_overlap(world_size: int) -> None:
    whole = list(TrainingBatches(100, 30, seed=0))
    parts = [list(TrainingBatches(100, 30, 0, rank, world_size)) for rank in range(world_size)]
    for i, batch in enumerate(whole):
        assert torch.equal(torch.cat([p[i] for p in parts]).sort()[0], batch.sort()[0])
    assert len(EvaluationBatches(21, 2**64)) == 1
    seen = torch.cat([torch.cat(list(EvaluationBatches(21, 6, rank, world_size))) for rank in range(world_size)])
    assert torch.equal(seen.sort()[0], torch.arange(21))


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(VaeflowError, match=r"batch_size is 10.* cannot be shared by 3"):
        TrainingBatches(100, 10, 0, 0, 3)
    assert [len(b) for b in TrainingBatches(7, 128, 0)] == [7]


BAD = {
    "nan": (lambda s: Arrays(s("x.npy", np.array([[math.nan]] * 20))), "example 0 of .*x.npy holds NaN or infinity"),
    "levels": (
        lambda s: Arrays(s("x.npy", np.full((20, 2), 7)), levels=5),
        r"values from 7 to 7, expected integers 0 to 4",
    ),
    "fractions": (lambda s: Arrays(s("x.npy", np.full((20, 2), 0.5)), levels=5), "expected integers 0 to 4"),
    "no levels": (lambda s: Arrays(s("x.npy", np.full((20, 2), 7))), "set --data.levels"),
    "integers as floats": (lambda s: Arrays(s("x.csv", np.eye(20))), "holds integers alone: set --data.levels"),
    "one level": (lambda s: Arrays(s("x.npy", np.zeros((20, 2))), levels=1), "levels is 1, expected at least 2"),
    "labels of no split": (
        lambda s: Arrays(s("x.npz", train=np.eye(9), val=np.eye(9), test=np.eye(9), y=np.arange(9)), levels=2),
        r"labels of x, expected labels of train, val, test \(y_train, y_val, y_test\)",
    ),
    "two values": (lambda s: Arrays(s("x.npy", np.eye(20, dtype=np.uint8))), "set --data.levels 2"),
    "bits": (lambda s: Arrays(s("x.npy", np.eye(20, dtype=bool))), "set --data.levels 2"),
    "channels first": (lambda s: Arrays(s("x.npy", np.full((20, 3, 9, 9), 7, np.uint8))), "channels to the end"),
    "shapes": (lambda s: Arrays(s("x.npz", train=np.eye(9), val=np.eye(8), test=np.eye(7))), "different shapes"),
    "one axis": (lambda s: Arrays(s("x.npy", np.zeros(9))), r"shape \(9,\).*expected numbers \(N, D\)"),
    "text": (lambda s: Arrays(s("x.npy", np.array([["a"]] * 9))), "expected numbers"),
    "few": (lambda s: Arrays(s("x.npy", np.full((9, 2), 0.5))), "holds 9 examples, expected at least 10"),
    "names": (
        lambda s: Arrays(s("x.npz", a=np.zeros((9, 2)), b=np.zeros((9, 2)))),
        "holds arrays a, b: expected train",
    ),
    "labels": (lambda s: Arrays(s("x.npz", x=np.zeros((20, 2)), y=np.zeros(3, int))), r"labels y of shape \(3,\)"),
    "pickle": (lambda s: Arrays(s("x.npy", np.array([[{}]] * 20, dtype=object))), "cannot be read as arrays"),
    "suffix": (lambda s: Arrays(_touch(s, "x.xlsx")), r"x.xlsx is no .npy, .npz, .csv, .tsv, .txt file"),
    "missing": (lambda s: Arrays("nowhere.npy"), "there is no file"),
    "not npy": (lambda s: Arrays(_touch(s, "y.npy")), "cannot be read as arrays"),
    "not csv": (lambda s: Arrays(_touch(s, "y.csv")), "has 3 names in line 1 but 2 cells in line 2"),
    "not npz": (lambda s: Arrays(_touch(s, "y.npz")), "cannot be read as arrays"),
    "batch": (lambda s: Digits(batch_size=0), "batch_size is 0"),
}


def _touch(save: Callable[..., str], name: str) -> str:
    path = Path(save("x.npy", np.zeros(1))).with_name(name)
    path.write_text("what, is, this\nno numbers\n")
    return str(path)


@pytest.mark.parametrize("case", BAD)
def test_bad_data_are_refused_in_one_sentence(case: str, save: Callable[..., str]) -> None:
    make, message = BAD[case]
    with pytest.raises(VaeflowError, match=message) as error:
        make(save).setup("fit")
    assert "\n" not in str(error.value)


def test_bad_pictures_are_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(VaeflowError, match=r"there are no pictures in .*empty"):
        ImageFolder(str(tmp_path / "empty"))
    with pytest.raises(VaeflowError, match="holds 4 pictures, expected at least 10"):
        ImageFolder(str(pictures(tmp_path / "few", 4)))
    loose = pictures(tmp_path / "loose")
    Image.new("RGB", (6, 5)).save(loose / "zz.png")
    with pytest.raises(VaeflowError, match=r"folders of classes, a, b, and beside them zz.png \(1 such in all\)"):
        ImageFolder(str(loose))
    mixed = pictures(tmp_path / "mixed")
    Image.new("RGB", (9, 9)).save(mixed / "a" / "zz.png")
    with pytest.raises(VaeflowError, match=r"zz.png is 9 × 9 pixels but 0.png is 6 × 5: set --data.size"):
        ImageFolder(str(mixed)).setup("fit")
    (mixed / "a" / "zz.png").write_bytes(b"no picture")
    with pytest.raises(VaeflowError, match=r"zz.png cannot be read as a picture"):
        ImageFolder(str(mixed)).setup("fit")


@pytest.mark.parametrize("make", [MNIST, CIFAR10, FreyFaces])
def test_data_that_are_not_there_name_the_folder_and_the_switch(
    make: type[DataModule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def no_network(*args: object, **kwargs: object) -> None:
        asked.append(args)
        raise OSError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(VaeflowError, match=f"not found in {tmp_path}.*set --data.root or VAEFLOW_DATA"):
        make(str(tmp_path)).setup("fit")  # type: ignore[call-arg]
    assert asked


def test_the_environment_names_the_folder(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEFLOW_DATA", str(data_root))
    assert FreyFaces().fingerprint() == FreyFaces(str(data_root)).fingerprint()


def test_a_damaged_matrix_is_named(tmp_path: Path) -> None:
    (tmp_path / "frey_rawface.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(VaeflowError, match=r"frey_rawface.mat is damaged"):
        FreyFaces(str(tmp_path)).setup("fit")
