"""Pictures from files, with all that they hold: 8 or 16 bits, transparency on a stated ground, one frame."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from PIL import Image, ImageOps

from vaeflow.errors import VaeflowError

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
Background = Literal["white", "black"]


class DecodedPicture(NamedTuple):
    """What a file of a picture holds.

    Args:
        values: ``(channels, height, width)`` of uint8, or of uint16 for greys of more than 8 bits.
        white: the value of white: 255, or 65,535, or what a ``.pgm`` says.
        is_transparent: whether the ground shows through somewhere.
    """

    values: np.ndarray
    white: int
    is_transparent: bool


def read_picture(path: Path, grey: bool, background: Background = "white") -> DecodedPicture:
    """A picture the right way up, in one channel of grey or in red, green and blue.

    Args:
        background: what lies below transparent pixels.

    Raises:
        VaeflowError: if it cannot be read, or not without a loss: real numbers, colours of 16 bits, several frames.
    """
    if background not in get_args(Background):
        raise VaeflowError(f"background is {background!r}, expected {' or '.join(get_args(Background))}.")
    try:
        with Image.open(path) as file:
            white = _white(path, file)
            image = ImageOps.exif_transpose(file)
            if file.mode.startswith("I"):
                if not grey:
                    raise VaeflowError(f"{path} holds 16-bit greys, expected 8-bit colours: set --data.grey true.")
                return DecodedPicture(_sixteen_bits(path, np.asarray(image), white)[None], white, False)
            is_transparent = False
            if image.has_transparency_data:
                image = image.convert("RGBA")
                is_transparent = bool(np.asarray(image.getchannel("A")).min() < 255)
                image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
            if image.mode == "LAB":
                image = image.convert("RGB")
            values = np.array(image.convert("L" if grey else "RGB"))
    except FileNotFoundError:
        raise VaeflowError(f"there is no file {path.resolve()}.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VaeflowError(f"{path} cannot be read as a picture ({error}).") from None
    if white != 255:
        values = np.rint(values * (white / 255)).astype(np.uint8)
    return DecodedPicture(values[None] if grey else values.transpose(2, 0, 1), white, is_transparent)


def scale_picture(values: np.ndarray, size: tuple[int, int], highest: int) -> np.ndarray:
    """The values of a picture scaled to a width and a height, what is over at two sides cut off.

    Args:
        highest: the largest value there can be, which interpolation might exceed.
    """
    if values.dtype == np.uint8:
        image = Image.fromarray(values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0)))
        scaled = np.minimum(np.array(ImageOps.fit(image, size)), min(highest, 255)).astype(np.uint8)
        return scaled[None] if len(values) == 1 else scaled.transpose(2, 0, 1)
    image = Image.fromarray(values[0].astype(np.float32))  # Pillow interpolates 32 bits, not 16
    return np.rint(np.array(ImageOps.fit(image, size))).clip(0, highest).astype(np.uint16)[None]


def _white(path: Path, file: Image.Image) -> int:
    """The value of white in a picture that was opened and not yet read.

    Raises:
        VaeflowError: if Pillow would leave out something of it: fractions, the lower half of 16 bits, further frames.
    """
    frames: int = getattr(file, "n_frames", 1)
    if frames > 1 and file.format != "MPO":  # of which the others are previews
        raise VaeflowError(f"{path} holds {frames} frames, expected one: save each as a picture of its own.")
    if file.mode == "F":
        raise VaeflowError(
            f"{path} holds real numbers, expected integers: save all as one .npy for --data Arrays, or convert them to "
            "8 bits."
        )
    tiles = [tile[3] for tile in getattr(file, "tile", [])]
    largest = next((args[1] for args in tiles if file.format == "PPM" and isinstance(args, tuple)), 255)
    is_deep = largest > 255 or re.search(r"(?<!BG)[A-Za-z];16", str(tiles))  # BGR;16 has 5 or 6 bits for each colour
    if is_deep and (not file.mode.startswith("I") or file.has_transparency_data):
        raise VaeflowError(
            f"{path} holds 16 bits for each colour or with transparency, of which 8 would be read: convert it to 8 "
            "bits, or to greys without transparency."
        )
    if file.mode.startswith("I"):
        return largest if largest > 255 else 65_535
    return largest if file.mode == "L" else 255


def _sixteen_bits(path: Path, values: np.ndarray, white: int) -> np.ndarray:
    """Greys as uint16."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65_535:
        raise VaeflowError(
            f"{path} holds values from {low} to {high}, expected at most 16 bits, 0 to 65535: save all as one .npy for "
            "--data Arrays."
        )
    return np.rint(values.astype(np.float64) * (white / 65_535)).astype(np.uint16)  # Pillow stretches those of a .pgm
