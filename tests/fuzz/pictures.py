"""Folders of pictures in all modes and formats, and arrays of pictures with labels."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from tests.fuzz.case import Case, Command, CommandOutcome
from tests.fuzz.small import MADE, ONE_EPOCH, QUICK, VAE
from vaeflow.errors import VaeflowError

MODES = ["1", "L", "L", "LA", "P", "P and transparent", "RGB", "RGBA", "I", "I;16", "I;16", "F", "CMYK"]
FORMATS = ["PNG", "PNG", "TIFF", "JPEG", "BMP", "GIF", "WEBP"]
ENDINGS = {"PNG": "png", "TIFF": "tif", "JPEG": "jpg", "BMP": "bmp", "GIF": "gif", "WEBP": "webp"}
CLASSES = ["Ba$$in", "$x$", "a_b^c", "_", "ü", "日本", "class 1", "%s", "{0}", "\\alpha", "#1", "cat", "dog", "a.png",
           "test", "val", "train", "0", "10"]  # fmt: skip
EXACT = ("1", "L", "P", "I;16", "I", "F", "RGB", "LA")
"""Modes of which grey levels can be counted in the files: RGB is grey here, as is the palette."""


@st.composite
def pictures(draw: Any) -> Case:
    """A training on a folder of pictures; one time in ten on an array of them with labels that have gaps."""
    if draw(st.integers(0, 9)) == 0:
        return draw(_labelled())
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    mode, form = draw(st.sampled_from(MODES)), draw(st.sampled_from(FORMATS))
    values = draw(st.sampled_from(["random", "random", "random", "one value", "few"]))
    bits = draw(st.sampled_from([8, 12, 16])) if mode in ("I", "I;16") else 8
    size = draw(st.tuples(st.integers(2, 9), st.integers(2, 9)))
    layout = draw(st.sampled_from(["flat", "classes", "classes", "splits", "splits of classes"]))
    grey = draw(st.booleans()) or mode == "F"
    edge = draw(st.sampled_from([None, None, None, 1, 5, 16]))
    places = _places(draw, layout)
    files, levels, form = _drawn(places, mode, form, size, bits, values, generator)
    every = draw(st.sampled_from(["0", "0", "0", "1"]))
    model = VAE if every == "1" else draw(st.sampled_from([MADE, VAE]))
    more = (*(("--data.grey", "true") if grey else ()), *(("--data.size", str(edge)) if edge else ()))
    typed = ("--data", "ImageFolder", "--data.root", "pictures", *more, *model, *ONE_EPOCH, *QUICK)
    if every == "1":
        typed = (*typed, "--pictures.every", "1")
    facts = {
        "grey": grey,
        "edge": edge,
        "levels": levels if mode in EXACT and form != "JPEG" else None,
        "bits": bits if mode != "F" else 16,
        "is_one_value": values == "one value",
        "layout": layout,
        "places": tuple(places),
    }
    recipe = f"{len(places)} pictures of mode {mode}, {form}, {size[0]} × {size[1]}, {bits} bits, {values}, {layout}"
    return Case((Command("train", typed),), files, recipe, facts, _check)


@st.composite
def _labelled(draw: Any) -> Case:
    """An array of pictures whose labels have gaps, and a class-conditional model."""
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    labels = draw(st.lists(st.integers(0, 12), min_size=1, max_size=3, unique=True))
    buffer = io.BytesIO()
    x = generator.integers(0, 17, (60, 4, 4), dtype=np.uint8)
    np.savez(buffer, x=x, y=generator.choice(labels, 60))
    data = ("--data", "Arrays", "--data.path", "x.npz", "--data.levels", "17")
    every = draw(st.sampled_from(["0", "1"]))
    typed = (*data, *VAE, "--model.class_conditional", "true", *ONE_EPOCH, *QUICK, "--pictures.every", every)
    sample = Command("sample", ("--ckpt", "{run}/checkpoints/best.ckpt", "--num", "6", "--npz"))
    facts = {"labels": tuple(labels)}
    return Case((Command("train", typed), sample), {"x.npz": buffer.getvalue()}, f"{labels=}", facts, _check_labels)


def _places(draw: Any, layout: str) -> list[str]:
    """The folder of each picture."""
    some = draw(st.lists(st.sampled_from(CLASSES[:-5]), min_size=2, max_size=3, unique=True))
    if layout == "flat":
        return [""] * draw(st.integers(10, 20))
    if layout == "classes":  # among which train, val and test are not all
        some = draw(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=3, unique=True).filter(
            lambda names: not {"train", "test"} <= set(names)))  # fmt: skip
        return [f"{some[place % len(some)]}/" for place in range(draw(st.integers(12, 20)))]
    counts = {"train": draw(st.integers(8, 16)), "val": draw(st.integers(2, 5)), "test": draw(st.integers(2, 5))}
    classes = [f"{name}/" for name in some] if layout == "splits of classes" else [""]
    return [f"{split}/{classes[place % len(classes)]}" for split, count in counts.items() for place in range(count)]


def _drawn(
    places: list[str], mode: str, form: str, size: tuple[int, int], bits: int, values: str, generator: Any
) -> tuple[dict[str, bytes], int, str]:
    """The files, how many grey levels they hold together, and their format: TIFF where it cannot have the mode."""
    most = 2**bits - 1
    few = generator.integers(0, most + 1, 4)
    held: set[float] = set()
    files = {}
    for number, place in enumerate(places):
        ints = generator.integers(0, most + 1, size)
        if values != "random":
            ints = np.full(size, few[0]) if values == "one value" else generator.choice(few, size)
        picture, shown = _picture(mode, ints, generator, values == "one value")
        try:
            content = _saved(picture, form)
        except (OSError, ValueError, KeyError):
            form = "TIFF"  # of the first one, and so of all
            content = _saved(picture, form)
        held |= set(shown.ravel().tolist())
        files[f"pictures/{place}{number:03d}.{ENDINGS[form]}"] = content
    return files, len(held), form


def _picture(mode: str, values: Any, generator: Any, is_one_value: bool) -> tuple[Any, Any]:
    """A picture of a mode, and the grey levels that it shows."""
    bytes_ = values.astype(np.uint8)
    if mode == "1":
        return Image.fromarray(values > 127), values > 127
    if mode in ("I", "I;16"):
        return Image.fromarray(values.astype(np.int32 if mode == "I" else np.uint16)), values
    if mode == "F":
        return Image.fromarray((values / 255).astype(np.float32)), values
    if mode == "LA":  # black ink of any opacity
        return Image.merge("LA", [Image.fromarray(bytes_ * 0), Image.fromarray(bytes_)]), values
    if mode.startswith("P"):
        picture = Image.fromarray(bytes_, "L").convert("P")
        if mode != "P":
            picture.info["transparency"] = 0
        return picture, values
    if mode in ("RGB", "RGBA", "CMYK"):
        bands = [Image.fromarray(bytes_)] * 3
        opacity = bytes_ if is_one_value else generator.integers(0, 256, values.shape).astype(np.uint8)
        return Image.merge(mode, bands if mode == "RGB" else [*bands, Image.fromarray(opacity)]), values
    return Image.fromarray(bytes_), values


def _saved(picture: Any, form: str) -> bytes:
    buffer = io.BytesIO()
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    if "transparency" in picture.info:
        options["transparency"] = picture.info["transparency"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture.save(buffer, form, **options)
    with Image.open(io.BytesIO(buffer.getvalue())) as again:
        if again.mode != picture.mode and {again.mode, picture.mode} & {"I", "I;16", "F", "LA", "RGBA", "CMYK"}:
            raise ValueError(f"{form} turns {picture.mode} into {again.mode}")
    return buffer.getvalue()


def _check(case: Case, outcomes: list[CommandOutcome], folder: Path) -> str | None:
    from vaeflow.data import ImageFolder

    (outcome,) = outcomes
    facts = case.facts
    if outcome.code != 0:
        return None
    if facts["is_one_value"]:
        return f"all pixels have one value, and it was trained: {case.recipe}"
    try:
        data = ImageFolder(str(folder / "pictures"), size=facts["edge"], grey=facts["grey"])
        data.setup("")
    except VaeflowError as error:
        return f"it was trained, but now the pictures are refused: {error}"
    kept = len(set().union(*(x.unique().tolist() for x, _ in data.splits.values())))
    held = facts["levels"]
    if held is not None and facts["edge"] is None:
        least = held if facts["bits"] == 8 else 0.75 * min(held, 256)  # deep pictures may be scaled to 256 levels
        if kept < least:
            return f"the files hold {held} grey levels, the tensors {kept}: {case.recipe}"
    if facts["layout"].startswith("splits"):
        expected = {split: sum(place.startswith(split) for place in facts["places"]) for split in data.splits}
        found = {split: len(x) for split, (x, _) in data.splits.items()}
        if found != expected:
            return f"the folders are splits of {expected}, and the splits are {found}"
        if {"train", "test"} & set(data.class_names):
            return f"the splits' folders are classes: {data.class_names}"
    return None


def _check_labels(case: Case, outcomes: list[CommandOutcome], folder: Path) -> str | None:
    if len(outcomes) < 2 or outcomes[1].code != 0:
        return None
    (path,) = (folder / (outcomes[0].run or "")).glob("pictures/*.npz")
    labels = set(np.load(path)["y"].tolist())
    return (
        f"samples have labels {labels}, trained were {case.facts['labels']}"
        if labels - set(case.facts["labels"])
        else None
    )
