"""Data that change after a model was trained on them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.fuzz.case import Case, Change, Command, CommandOutcome, Step
from tests.fuzz.small import MADE, ONE_EPOCH, QUICK, TWO_EPOCHS, VAE, lost_files, results_in

Arrays = dict[str, np.ndarray]
FORMS = ("float64.npy", "float32.npy", "uint8.npy", "x.npz", "labels.npz", "splits.npz", "table.csv", "pictures",
         "classes")  # fmt: skip
OTHER = ("permuted", "grown", "shrunk", "one value", "replaced")
SAME = ("untouched", "touched", "retyped", "rewritten", "copied")
WHERE = ("moved", "moved and named", "deleted", "copied and altered", "elsewhere", "elsewhere, another there")
WORK = "work"


@st.composite
def replaced(draw: Any) -> Case:
    """A training on a file or a folder of pictures, a change of the data, and an evaluation, resumption or samples."""
    form = draw(st.sampled_from(FORMS))
    how = draw(st.sampled_from([*OTHER, *SAME, *WHERE]))
    follow = draw(st.sampled_from(["evaluate", "evaluate", "resume", "sample"]))
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    if how.startswith("elsewhere") and follow == "resume":  # runs are looked for where it is typed
        follow = "evaluate"
    is_folder, suffix = form in ("pictures", "classes"), form.partition(".")[2]
    name = f"data/{form}" if draw(st.booleans()) else form
    typed = f"{{folder}}/{WORK}/{name}" if draw(st.booleans()) else name
    key, option = ("--data.root", "--root") if is_folder else ("--data.path", "--path")
    before = _made(form, generator)
    after, is_same = _altered(before, how if how in OTHER else "permuted" if how.endswith("altered") else "", generator)
    files = {f"{WORK}/{path}": content for path, content in _encoded(name, form, before).items()}
    model = draw(st.sampled_from([MADE, VAE])) if suffix != "csv" and len(_shape(before)) > 2 else MADE
    data = ("--data", "ImageFolder" if is_folder else "Arrays")
    train = (*data, key, typed, *model, *QUICK)
    grey = ("--data.grey", "true") if is_folder and draw(st.booleans()) else ()
    steps: list[Step] = [Command("train", (*train, *grey, *ONE_EPOCH), folder=WORK)]
    found: tuple[str, ...] = ()
    place = WORK
    if how == "touched":
        steps += [Change("touch", path) for path in files]
    elif how in ("retyped", "rewritten"):
        new = _encoded(name, form, _retyped(before) if how == "retyped" else before, again=True)
        steps += [Change("write", f"{WORK}/{path}", content=content) for path, content in new.items()]
    elif how in OTHER:
        gone = files.keys() - {f"{WORK}/{path}" for path in _encoded(name, form, after)}
        steps += [Change("delete", path) for path in sorted(gone)]
        steps += [Change("write", f"{WORK}/{p}", content=content) for p, content in _encoded(name, form, after).items()]
    elif how.startswith("copied"):
        new_name, found = f"copies/{form}", (option, f"copies/{form}")
        copies = _encoded(new_name, form, before if how == "copied" else after)
        steps += [Change("write", f"{WORK}/{path}", content=content) for path, content in copies.items()]
    elif how.startswith("moved"):
        steps += [Change("move", f"{WORK}/{name}", f"{WORK}/moved/{form}")]
        found = (option, f"moved/{form}") if how == "moved and named" else ()
    elif how == "deleted":
        steps += [Change("delete", f"{WORK}/{name}")]
    elif how.startswith("elsewhere"):
        place = "away"
        if how.endswith("there"):
            other, _ = _altered(before, "replaced", generator)
            steps += [Change("write", f"{place}/{p}", content=c) for p, c in _encoded(name, form, other).items()]
    ckpt = ("--ckpt", "{run}/checkpoints/best.ckpt", *found)
    if follow == "evaluate":
        samples = ("--num-samples", "3") if model == VAE else ()
        steps += [Command("evaluate", (*ckpt, *samples, "--accelerator", "cpu", "--json", "out.json"), folder=place)]
    elif follow == "resume":
        again = (*train, *grey, key, found[1]) if found else (*train, *grey)
        steps += [Command("train", (*again, *TWO_EPOCHS, "--ckpt_path", "last"), folder=WORK)]
    else:
        steps += [Command("sample", (*ckpt, "--num", "4", "--npz"), folder=place)]
    if how in SAME or how == "moved and named":
        is_now = "same"
    elif how in OTHER or how == "copied and altered":
        is_now = "same" if is_same else "other"
    else:
        is_now = "unclear" if how.startswith("elsewhere") else "gone"
    recipe = f"{form} ({_shape(before)}), {how}, then {follow}"
    return Case(tuple(steps), files, recipe, {"data": is_now, "follow": follow, "place": place}, _check)


def _made(form: str, generator: np.random.Generator) -> Arrays:
    """The arrays of a form, by name."""
    rows = int(generator.integers(40, 80))
    x = generator.normal(size=(rows, int(generator.integers(2, 5))))
    images = generator.integers(0, 256, (rows, 4, 4), dtype=np.uint8)
    if form in ("pictures", "classes", "uint8.npy", "labels.npz"):
        labels = generator.integers(0, 3, rows)
        return {"x": images, "y": labels} if form == "labels.npz" else {"x": images}
    if form == "splits.npz":
        return {"train": x[:-20], "val": x[-20:-10], "test": x[-10:]}
    return {"x": x.astype(np.float32) if form in ("float32.npy", "float64.npy") else x}  # so that both types hold it


def _shape(arrays: Arrays) -> tuple[int, ...]:
    return next(iter(arrays.values())).shape


def _altered(arrays: Arrays, how: str, generator: np.random.Generator) -> tuple[Arrays, bool]:
    """Other data, and whether they are the same after all."""
    name = sorted(set(arrays) - {"y"})[int(generator.integers(len(set(arrays) - {"y"})))]
    x, rows = arrays[name], len(arrays[name])
    new = dict(arrays)
    if how == "permuted":
        order = generator.permutation(rows)
        new = {key: array[order] if len(array) == rows else array for key, array in arrays.items()}
    elif how == "grown":
        more = generator.integers(0, rows, int(generator.integers(1, 12)))
        noise = generator.normal(size=x[more].shape)
        added = x[more][:, ::-1] if x.dtype == np.uint8 else (x[more] + noise).astype(x.dtype)
        new[name] = np.concatenate([x, added])
        if "y" in new:
            new["y"] = np.concatenate([new["y"], new["y"][more]])
    elif how == "shrunk":
        new = {key: array[:-1] if len(array) == rows else array for key, array in arrays.items()}
    elif how == "one value":
        at = int(generator.integers(x.size))
        changed = x.copy()
        old = changed.flat[at]
        changed.flat[at] = old ^ 1 if x.dtype == np.uint8 else np.nextafter(old, x.dtype.type(np.inf))
        new[name] = changed
    elif how == "replaced":
        values = generator.integers(0, 256, x.shape) if x.dtype == np.uint8 else 3 * generator.normal(size=x.shape)
        new[name] = values.astype(x.dtype)
    is_same = all(np.array_equal(new[key], arrays[key]) for key in arrays)
    return new, is_same


def _retyped(arrays: Arrays) -> Arrays:
    """The same values in another type or order of bytes."""
    types = {"float32": "f8", "float64": ">f8", "int64": "i4", "uint8": "u1"}
    return {name: np.asfortranarray(array.astype(types[str(array.dtype)]))
            for name, array in arrays.items()}  # fmt: skip


def _encoded(name: str, form: str, arrays: Arrays, again: bool = False) -> dict[str, bytes]:
    """The files of arrays, by path.

    Args:
        again: otherwise encoded, with the same values.
    """
    buffer = io.BytesIO()
    if form.endswith(".npy"):
        x = arrays["x"]
        np.save(buffer, x if form != "float64.npy" or again else x.astype(np.float64))
    elif form.endswith(".npz"):
        named: Any = dict(reversed(arrays.items())) if again else arrays
        (np.savez_compressed if again else np.savez)(buffer, **named)
    elif form.endswith(".csv"):
        rows = [",".join(format(v, ".17e") if again else repr(float(v)) for v in row) for row in arrays["x"]]
        header = [] if again else [",".join(f"c{i}" for i in range(arrays["x"].shape[1]))]
        buffer.write("\n".join([*header, *rows, ""]).encode())
    else:
        return _pictures(name, form, arrays["x"], again)
    return {name: buffer.getvalue()}


def _pictures(name: str, form: str, x: np.ndarray, again: bool) -> dict[str, bytes]:
    from PIL import Image

    files = {}
    for place, values in enumerate(x):
        buffer = io.BytesIO()
        picture = Image.fromarray(values)
        (picture.convert("RGB") if again else picture).save(buffer, "PNG", compress_level=9 if again else 1)
        label = f"{'ab'[place % 2]}/" if form == "classes" else ""
        files[f"{name}/{label}{place:03d}.png"] = buffer.getvalue()
    return files


def _check(case: Case, outcomes: list[CommandOutcome], folder: Path) -> str | None:
    first, *rest = outcomes
    data, follow = case.facts["data"], case.facts["follow"]
    if first.code != 0 or not rest:
        return f"{first.command}: it could not be trained: {first.output.strip()[-400:]}"
    last = rest[0]
    wrong = {"evaluate": _wrong_evaluation, "resume": _wrong_resumption, "sample": _wrong_samples}[follow](
        case, first, last, folder
    )
    return f"{last.command}: the data are {data}, and {wrong}: {last.output.strip()[-400:]}" if wrong else None


def _wrong_evaluation(case: Case, first: CommandOutcome, last: CommandOutcome, folder: Path) -> str | None:
    data = case.facts["data"]
    if last.code != 0:
        return "they were refused" if data == "same" else None
    if data == "gone":
        return "something was evaluated"
    before = results_in(folder / WORK / (first.run or "") / "results.json")
    after = results_in(folder / case.facts["place"] / "out.json")
    said = [doubt for doubt in after["doubts"] if doubt not in before["doubts"]]
    if not all(" ".join(doubt.split()) in " ".join(last.output.split()) for doubt in said):
        return f"the table does not say what results.json does: {json.dumps(said)}"
    if data == "other":
        is_said = any("not the data that the model was trained on" in doubt for doubt in said)
        return None if is_said else f"nothing is said of it (nll {before['nll']}, then {after['nll']})"
    if said:
        return f"there is a doubt: {said[0]}" if data == "same" else None
    return None if after["nll"] == before["nll"] else f"the nll was {before['nll']} and is {after['nll']}"


def _wrong_resumption(case: Case, first: CommandOutcome, last: CommandOutcome, folder: Path) -> str | None:
    if case.facts["data"] == "same":
        return None if last.code == 0 else "it was not resumed"
    if last.code == 0:
        return "it was resumed"
    return lost_files(last)


def _wrong_samples(case: Case, first: CommandOutcome, last: CommandOutcome, folder: Path) -> str | None:
    return "there are no samples" if case.facts["data"] == "same" and last.code != 0 else None
