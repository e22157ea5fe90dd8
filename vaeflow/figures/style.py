"""One style for all pictures, and how pictures are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from vaeflow.errors import VaeflowError

styled = matplotlib.rc_context(fname=str(Path(__file__).with_name("vaeflow.mplstyle")))
"""Decorates what draws and what saves, when some colours are looked up: the style is that of the file beside this one,
whatever the user's own settings are."""
FIGURES = (".png", ".pdf", ".svg")
NAME_LENGTH = 40
"""How many characters of a name a picture has room for."""
WIDTH = 8.0
"""Of a figure in inches, at 120 dots each: what a README shows without scaling it down."""


@styled
def pixels(figure: Figure) -> np.ndarray:
    """A figure as an image ``(height, width, 3)`` of uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def shortened(text: str, most: int = NAME_LENGTH) -> str:
    """Text of at most so many characters, an ellipsis for the rest."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def literal(text: str, most: int = 200) -> str:
    """Text that matplotlib draws as it stands, in one line: titles, and names that users have given to classes, files
    and runs.

    A dollar is no mathematics then, white space is a blank, and what cannot be printed a replacement character. A
    leading underscore, which keeps a label out of a legend, hides behind a space of no width.

    >>> literal("Ba$$in")
    'Ba\\\\$\\\\$in'
    """
    shown = "".join(
        c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in shortened(text, most)
    )
    return ("\N{ZERO WIDTH SPACE}" if shown.startswith("_") else "") + shown.replace("$", r"\$")


def headline(figure: Figure, title: str) -> None:
    """The title of a figure of several panels."""
    figure.suptitle(literal(title), x=0.01, ha="left", fontsize=10)


def check_outputs(paths: Sequence[Path], force: bool) -> None:
    """Raise a :class:`VaeflowError` if a file is there already, without ``force``, or cannot be written. Called
    before the work begins."""
    for path in paths:
        if path.is_dir():
            raise VaeflowError(f"{path} is a folder, expected the name of a file to write.")
        if path.exists() and not force:
            raise VaeflowError(f"{path} exists already: --force overwrites it, --out takes another name.")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        try:
            beside = _beside(folder / path.name)
            beside.touch()
            beside.unlink()
        except OSError as error:
            reason = error.strerror or str(error)
            raise VaeflowError(f"{path} cannot be written ({reason.lower()}): --out takes another name.") from None


@styled
def save_figure(path: Path, figure: Figure) -> None:
    """A figure as ``.png``, ``.pdf`` or ``.svg``."""
    kind = path.suffix[1:]
    options: dict[str, Any] = {"pil_kwargs": {"optimize": True}} if kind == "png" else {}
    write(path, lambda to: figure.savefig(to, format=kind, bbox_inches="tight", **options))


def save_animation(path: Path, frames: Sequence[np.ndarray], seconds: float = 4.0) -> None:
    """Frames ``(height, width, 3)`` of uint8, as a ``.gif`` or ``.webp`` that runs there and back for ever."""
    steps = np.linspace(0, len(frames) - 1, min(len(frames), 100)).round().astype(int)  # a browser shows 50 a second
    there = [Image.fromarray(frames[i]) for i in steps]
    pictures = [*there, *there[-2:0:-1]]
    options = {"lossless": True} if path.suffix == ".webp" else {}
    write(
        path,
        lambda to: pictures[0].save(
            to,
            format=path.suffix[1:].upper(),
            save_all=True,
            append_images=pictures[1:],
            duration=max(20, int(1000 * seconds / len(pictures))),
            loop=0,
            **options,
        ),
    )


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Arrays by name, as a ``.npz`` that ``numpy.load`` reads without pickle."""

    def save(to: Path) -> None:
        with to.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    write(path, save)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Save under another name first: a file is there whole, or not at all."""
    beside = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(beside)
        beside.replace(path)
    except OSError as error:
        raise VaeflowError(f"{path} cannot be written ({error.strerror or error}).") from None
    finally:
        beside.unlink(missing_ok=True)
