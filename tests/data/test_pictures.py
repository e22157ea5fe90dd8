"""Pictures: what a file holds is kept, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vaeflow.data import ImageFolder
from vaeflow.data.examples import own_examples
from vaeflow.data.pictures import read_picture, scale_picture
from vaeflow.errors import VaeflowError

GREY = np.random.default_rng(0).integers(0, 256, (6, 5), np.uint8)
DEEP = np.random.default_rng(1).integers(0, 4096, (6, 5)).astype(np.uint16)


def folder(path: Path, *images: Any, ending: str = "png", **options: Any) -> str:
    """A folder of twelve pictures, from these in turn."""
    path.mkdir()
    for i in range(12):
        images[i % len(images)].save(path / f"{i:02d}.{ending}", **options)
    return str(path)


def test_greys_of_16_bits_are_kept(tmp_path: Path) -> None:
    root = folder(tmp_path / "deep", Image.fromarray(DEEP), Image.fromarray(DEEP[::-1]))
    data = ImageFolder(root, grey=True)
    assert (data.shape, data.levels) == ((1, 6, 5), 65_536)
    kept = data.examples("train", torch.tensor([0]))[0][0, 0]
    assert kept.numpy().tolist() in (DEEP.tolist(), DEEP[::-1].tolist())
    assert ImageFolder(root, grey=True, levels=4096).measure == "discrete-4096"
    with pytest.raises(VaeflowError, match=r"00.png has values up to \d{4}, expected integers 0 to 999"):
        ImageFolder(root, grey=True, levels=1000).setup("")
    with pytest.raises(VaeflowError, match=r"00.png holds 16-bit greys.*--data.grey true"):
        ImageFolder(root)
    for i in range(12):
        Image.fromarray(DEEP.astype(np.int32)).save(Path(root) / f"{i:02d}.tif")  # Pillow's mode I
        (Path(root) / f"{i:02d}.png").unlink()
    data = ImageFolder(root, grey=True)
    assert data.examples("test", torch.tensor([0]))[0].flatten().tolist() == DEEP.flatten().tolist()
    Image.fromarray(GREY).save(Path(root) / "13.png")
    with pytest.raises(VaeflowError, match=r"13.png has 8 bits but 00.tif has 16"):
        ImageFolder(root, grey=True).setup("")


@pytest.mark.parametrize(("magic", "white"), [("P5", 4095), ("P2", 1023), ("P5", 15), ("P5", 65_535)])
def test_a_pgm_keeps_its_values(magic: str, white: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, white + 1, (4, 3))
    content = f"{magic}\n3 4\n{white}\n".encode()
    text = " ".join(map(str, values.flatten())).encode()
    (tmp_path / "a.pgm").write_bytes(
        content + (text if magic == "P2" else values.astype("u1" if white < 256 else ">u2").tobytes())
    )
    picture = read_picture(tmp_path / "a.pgm", grey=True)
    assert picture.values[0].tolist() == values.tolist()
    assert picture.white == white


@pytest.mark.parametrize("size", [(3, 3), (9, 4)])
def test_16_bits_are_scaled_as_8_are(size: tuple[int, int]) -> None:
    smooth = np.add.outer(np.arange(12) * 15, np.arange(10) * 9).astype(np.uint8)[None]
    eight = scale_picture(smooth, size, 255)
    sixteen = scale_picture(smooth.astype(np.uint16) * 257, size, 65_535)
    assert sixteen.shape == (1, size[1], size[0])
    assert np.abs(sixteen / 257 - eight).max() <= 1
    assert (sixteen % 257).any()  # finer than 8 bits
    edge = np.repeat([0, 4095], 4)[None, None].repeat(4, 1).astype(np.uint16)
    assert scale_picture(edge, (16, 8), 4095).max() == 4095  # which the curve through an edge exceeds
    assert scale_picture((edge > 0).astype(np.uint8) * 15, (16, 8), 15).max() == 15


TRANSPARENT: dict[str, tuple[str, dict[str, Any]]] = {
    "RGBA": ("RGBA", {}),
    "LA": ("LA", {}),
    "L": ("L", {"transparency": 0}),
    "RGB": ("RGB", {"transparency": (0, 0, 0)}),
    "P": ("P", {"transparency": 0}),
}


@pytest.mark.parametrize("mode", TRANSPARENT)
def test_transparent_pixels_lie_on_a_stated_ground(mode: str, tmp_path: Path) -> None:
    """Black ink where the left half is opaque, on nothing."""
    kind, options = TRANSPARENT[mode]
    images = []
    for shade in (90, 200):
        opaque = np.zeros((4, 6), np.uint8)
        opaque[:, :3] = shade
        grey = Image.fromarray(opaque)
        if kind.endswith("A"):
            alpha = Image.fromarray((opaque > 0).astype(np.uint8) * 255)
            image = Image.merge("LA", (grey, alpha)).convert(kind)
        elif kind == "P":
            image = Image.fromarray(opaque // shade, "P")
            image.putpalette([0, 0, 0, shade, shade, shade])
        else:
            image = grey.convert(kind)
        images.append(image)
    root = folder(tmp_path / mode, *images, **options)
    for background, value in (("white", 255.0), ("black", 0.0)):
        for grey_only in (True, False):
            data = ImageFolder(root, grey=grey_only, background=background)  # type: ignore[arg-type]
            assert data.protocol.endswith(f", on {background}")
            x = data.examples("train", torch.arange(3))[0]
            assert (x[..., 3:] == value).all()
            assert set(x[..., :3].unique().tolist()) <= {90.0, 200.0}
    opaque_root = folder(tmp_path / "opaque", Image.fromarray(GREY).convert("RGBA"))
    assert "white" not in ImageFolder(opaque_root).protocol


def test_black_and_white_have_two_levels_if_asked(tmp_path: Path) -> None:
    root = folder(tmp_path / "ink", Image.fromarray(GREY > 99), Image.fromarray(GREY > 150))
    assert ImageFolder(root, grey=True, levels=2).examples("train", torch.arange(5))[0].unique().tolist() == [0, 1]
    assert ImageFolder(root, grey=True).examples("train", torch.arange(5))[0].unique().tolist() == [0, 255]
    grey = folder(tmp_path / "grey", Image.fromarray(GREY))
    with pytest.raises(VaeflowError, match=r"00.png has values up to \d+, expected integers 0 to 1"):
        ImageFolder(grey, grey=True, levels=2).setup("")


def _frames(path: Path) -> None:
    Image.fromarray(GREY).save(path, save_all=True, append_images=[Image.fromarray(GREY[::-1])])


def _deep_colours(path: Path) -> None:
    path.write_bytes(b"P6\n2 2\n65535\n" + np.arange(12).astype(">u2").tobytes())


LOST = {
    "real.tif": (lambda p: Image.fromarray(GREY.astype(np.float32)).save(p), "holds real numbers, .*--data Arrays"),
    "frames.gif": (_frames, "holds 2 frames, expected one"),
    "pages.tif": (_frames, "holds 2 frames, expected one"),
    "animated.png": (_frames, "holds 2 frames, expected one"),
    "deep.ppm": (_deep_colours, "holds 16 bits for each colour"),
    "deep_ground.png": (lambda p: Image.fromarray(DEEP).save(p, transparency=3), "or with transparency"),
    "signed.tif": (lambda p: Image.fromarray(GREY - np.int32(300)).save(p), r"values from -\d+ to -?\d+, expected"),
    "large.tif": (lambda p: Image.fromarray(GREY + np.int32(70_000)).save(p), "expected at most 16 bits"),
}


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize("grey", [True, False])
def test_what_would_be_lost_is_refused(name: str, grey: bool, tmp_path: Path) -> None:
    write, message = LOST[name]
    write(tmp_path / name)
    if name in ("signed.tif", "large.tif") and not grey:
        message = "16-bit greys"
    with pytest.raises(VaeflowError, match=message) as error:
        read_picture(tmp_path / name, grey)
    assert "\n" not in str(error.value)
    with pytest.raises(VaeflowError, match=message):
        own_examples([tmp_path / name], (1 if grey else 3, 6, 5), 256)


def test_arguments_that_cannot_be_and_pictures_of_one_value(tmp_path: Path) -> None:
    root = folder(tmp_path / "grey", Image.fromarray(GREY))
    for arguments, message in (
        ({"size": 0}, "size is 0, expected at least 1"),
        ({"size": -8}, "size is -8, expected at least 1"),
        ({"levels": 1}, "levels is 1, expected at least 2"),
        ({"levels": 65_537}, "at most 65,536"),
        ({"background": "grey"}, "background is 'grey', expected white or black"),
    ):
        with pytest.raises(VaeflowError, match=message):
            ImageFolder(root, **arguments)  # type: ignore[arg-type]
    blank = folder(tmp_path / "blank", Image.new("RGBA", (4, 4)))
    with pytest.raises(VaeflowError, match="all values of the training split of blank are 255"):
        ImageFolder(blank).setup("")


def test_own_pictures_of_other_depths(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    shape = (1, 6, 5)
    Image.fromarray(DEEP).save(tmp_path / "deep.png")
    with pytest.raises(
        VaeflowError, match=r"holds greys up to \d{4} of 65535, .* 256 levels of the data: save it with"
    ):
        own_examples([tmp_path / "deep.png"], shape, 256)
    assert own_examples([tmp_path / "deep.png"], shape, 4096)[0, 0].tolist() == DEEP.tolist()
    with pytest.raises(VaeflowError, match="expected integers 0 to 999"):
        own_examples([tmp_path / "deep.png"], shape, 1000)
    Image.fromarray(DEEP * 16).save(tmp_path / "full.png")
    capfd.readouterr()
    x = own_examples([tmp_path / "full.png"], shape, 17)
    assert x[0, 0].tolist() == np.rint(DEEP * 16 / 65_535 * 16).tolist()
    assert "full.png is rounded from 65536 levels to 17" in capfd.readouterr().err
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    assert own_examples([tmp_path / "grey.png"], shape, 65_536)[0, 0].tolist() == (GREY * 257.0).tolist()
    assert "grey.png has 256 levels, which are spread over 65536" in capfd.readouterr().err
    ink = Image.merge("LA", (Image.new("L", (5, 6)), Image.fromarray(GREY)))
    ink.save(tmp_path / "ink.png")
    for background in ("white", "black"):
        x = own_examples([tmp_path / "ink.png"], shape, 256, background)  # type: ignore[arg-type]
        assert x[0, 0].tolist() == (255.0 - GREY if background == "white" else 0.0 * GREY).tolist()
        assert f"ink.png is laid on {background}" in capfd.readouterr().err
    assert own_examples([tmp_path / "grey.png"], shape, 300, as_they_are=True)[0, 0].tolist() == GREY.tolist()
    np.save(tmp_path / "none.npy", np.zeros((0, 6, 5)))
    with pytest.raises(VaeflowError, match="expected at least one example"):
        own_examples([tmp_path / "none.npy"], shape, 256)
