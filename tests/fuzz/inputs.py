"""Configs with odd values, damaged checkpoints, and odd arrays, tables and pictures."""

from __future__ import annotations

import functools
import io
import string
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.fuzz.case import Case, single
from vaeflow.commands.configs import config_names, find_config, read_config

ONE_STEP = ("--trainer.max_steps", "1", "--num_samples", "1", "--pictures.every", "0", "--trainer.accelerator", "cpu")


NUMBERS = ["0", "1", "-1", "2", "3", "7", "64", "1000", "99999", "1000000000000", "18446744073709551616", "0.5",
           "-0.5", "1e-30", "1e30", "nan", "inf", "-inf", "0x10", "1_000", "٣", "1,5"]  # fmt: skip
WORDS = ["", " ", "null", "true", "false", "[]", "{}", "[[1]]", "[1, 2]", "[0]", "[-3]", "[1.5]", "[null]", "{a: 1}",
         "-", "--", "!!python/object:os.system", "&a *a", "VAE", "Planar", "Digits", "Bernoulli", "relu", "Gated",
         "Flow", "os.system", "torch.nn.Linear", "torch.optim.LBFGS", "torch.optim.SparseAdam", "vaeflow",
         "vaeflow.errors", "vaeflow.models.VAE", "MLPEncoder", "Categorical", "Coupling", "ELBO", "IWAE", "random",
         "cosine", "../..", "/", "CON", "a/b", "%s", "{0}", "$HOME", "~"]  # fmt: skip


def _keys(config: Any, above: str = "") -> Iterator[str]:
    """All keys of a config, in the form in which they are typed."""
    for key, value in config.items():
        name = f"{above}.{key}" if above else key
        if isinstance(value, dict):
            if "class_path" in value:
                yield name
                yield from _keys(value.get("init_args") or {}, name)
            else:
                yield from _keys(value, name)
        else:
            yield name


@functools.cache
def _options() -> dict[str, list[str]]:
    """The keys of every config's own, and some of all."""
    shared = ["seed_everything", "data.batch_size", "data.seed", "model.seed", "num_samples", "memory_mb",
              "experiment", "evaluation_seed", "checkpoint_every", "on_nonfinite", "ckpt_path", "model.optimizer",
              "model.optimizer.lr", "model.lr_scheduler", "model.class_conditional", "trainer.max_epochs",
              "trainer.precision", "trainer.gradient_clip_val", "trainer.gradient_clip_algorithm",
              "trainer.accumulate_grad_batches", "trainer.limit_train_batches", "trainer.limit_val_batches",
              "trainer.check_val_every_n_epoch", "trainer.val_check_interval", "trainer.log_every_n_steps",
              "trainer.devices", "trainer.strategy", "trainer.callbacks", "trainer.logger", "trainer.detect_anomaly",
              "trainer.overfit_batches", "trainer.max_time", "trainer.min_epochs", "trainer.deterministic",
              "trainer.benchmark", "pictures.every", "pictures.num", "no_such_key", "model.no_such_key",
              "data.no_such_key", "data", "model"]  # fmt: skip
    of_vae = ["model.flow", "model.flow.steps", "model.flow.hidden", "model.prior", "model.likelihood",
              "model.encoder", "model.decoder", "model.latent_features", "model.objective",
              "model.objective.num_samples", "model.objective.free_bits",
              "model.objective.kl_warmup_epochs"]  # fmt: skip
    found = {}
    for name in config_names():
        if name.startswith(("mnist", "freyfaces")):
            continue
        config = read_config(find_config(name))
        own = list(_keys(config))
        found[name] = [*own, *own, *shared, *(of_vae if "vae" in name else [])]
    return found


@st.composite
def configs(draw: Any) -> Case:
    """A config of ours with up to three keys set to anything."""
    options = _options()
    name = draw(st.sampled_from(sorted(options)))
    typed: list[str] = []
    text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
    some = [st.sampled_from(NUMBERS), st.sampled_from(WORDS), st.integers(-3, 300).map(str), st.floats(0, 3).map(str)]
    values = st.integers(0, 12).flatmap(lambda which: text if which == 12 else some[which % 4])
    for key in draw(st.lists(st.sampled_from(options[name]), min_size=1, max_size=3)):
        typed += [f"--{key}={draw(values)}"]
    small = ["--data.num_train", "200", "--data.num_val", "50", "--data.num_test", "50"] if "toys" in name else []
    return single("train", ("--config", name, *ONE_STEP, *small, *typed))


@st.composite
def checkpoints(draw: Any, content: bytes) -> Case:
    """A checkpoint with bits flipped, bytes overwritten, cut off, put in or taken out, or swapped."""
    spoilt = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(spoilt) - 1)))
        how = draw(st.sampled_from(["flip", "write", "cut", "insert", "remove", "swap", "zero"]))
        if not spoilt:
            break
        if how == "flip":
            spoilt[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "write":
            more = draw(st.binary(min_size=1, max_size=64))
            spoilt[at : at + len(more)] = more
        elif how == "cut":
            del spoilt[at:]
        elif how == "insert":
            spoilt[at:at] = draw(st.binary(min_size=1, max_size=64))
        elif how == "remove":
            del spoilt[at : at + draw(st.integers(1, 10_000))]
        elif how == "zero":
            size = draw(st.integers(1, 10_000))
            spoilt[at : at + size] = bytes(len(spoilt[at : at + size]))
        else:
            half = len(spoilt) // 2
            spoilt = spoilt[half:] + spoilt[:half]
    resumed = ("--config", "vae", *ONE_STEP, "--ckpt_path", "spoilt.ckpt")
    evaluated = ("--ckpt", "spoilt.ckpt", "--num-samples", "1", "--accelerator", "cpu")
    script, arguments = draw(st.sampled_from([("evaluate", evaluated), ("train", resumed)]))
    return single(script, arguments, {"spoilt.ckpt": bytes(spoilt)})


@st.composite
def arrays(draw: Any) -> Case:
    """An array, several, a table or a picture, of any type, shape and values, at times spoilt."""
    kind = draw(st.sampled_from(["npy", "npy", "npz", "csv", "png", "anything"]))
    levels = draw(st.sampled_from([*[None] * 10, "2", "16", "256", "256", "1", "0", "-1"]))
    options = [] if levels is None else ["--data.levels", levels]
    model = draw(
        st.sampled_from([["--model", "VAE"], ["--model", "RealNVP"], ["--model", "GaussianModel"], ["--model", "MADE"]])
    )
    if kind == "png":
        from PIL import Image

        files, generator = {}, np.random.default_rng(draw(st.integers(0, 1000)))
        odd = draw(st.sampled_from([[], [], [(1, 1)], [(9, 8)]]))
        for number in range(draw(st.sampled_from([14, 14, 10, 9, 1]))):
            size = draw(st.sampled_from([(8, 8), *odd]))
            mode, buffer = draw(st.sampled_from(["L", "RGB", "RGBA", "1", "P"])), io.BytesIO()
            noise = Image.fromarray(generator.integers(0, 256, (*size[::-1], 3), np.uint8))
            (noise if draw(st.integers(0, 5)) else Image.new("L", size)).convert(mode).save(buffer, "PNG")
            files[f"pictures/{number}.png"] = _spoilt(draw, buffer.getvalue())
        return single("train", ("--data", "ImageFolder", "--data.root", "pictures", *model, *ONE_STEP), files)
    buffer = io.BytesIO()
    if kind == "npy":
        np.save(buffer, draw(_array()), allow_pickle=True)
    elif kind == "npz":
        names = draw(
            st.lists(st.sampled_from(["x", "y", "train", "val", "test", "y_train", "z"]), max_size=4, unique=True)
        )
        np.savez(buffer, **{name: draw(_array()) for name in names})
    elif kind == "csv":
        alphabet = string.digits + ".,-eE\n naif\t;\"'"
        buffer.write(draw(st.text(alphabet, max_size=300)).encode())
    else:
        buffer.write(draw(st.binary(max_size=300)))
    name = f"x.{kind if kind != 'anything' else draw(st.sampled_from(['npy', 'npz', 'csv', 'txt']))}"
    arguments = ("--data", "Arrays", "--data.path", name, *options, *model, *ONE_STEP)
    return single("train", arguments, {name: _spoilt(draw, buffer.getvalue())})


@st.composite
def _array(draw: Any) -> np.ndarray:
    if draw(st.booleans()):  # what anyone has
        return np.random.default_rng(draw(st.integers(0, 1000))).normal(size=(40, 4))
    rows = draw(st.sampled_from([0, 1, 5, 10, 40, 40, 40]))
    shape = (rows, *draw(st.sampled_from([(), (1,), (2,), (4,), (4,), (0,), (4, 4), (4, 4, 1), (4, 4, 3), (2, 2, 9),
                                          (1, 1, 1, 1)])))  # fmt: skip
    dtype = draw(st.sampled_from(["f4", "f8", "f2", ">f8", "i8", "u1", "i1", "u8", "?", "c8", "U3", "O", "M8[s]"]))
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    values = generator.normal(0, draw(st.sampled_from([1.0, 0.0, 1e-30, 1e30, 3.0])), shape)
    if (dtype[-1:].isdigit() and dtype[0] in "iu") or dtype == "?":
        values = np.abs(values).clip(0, draw(st.sampled_from([1, 15, 255, 1e9])))
    with np.errstate(all="ignore"):
        array = values.astype("i8").astype(dtype) if dtype[0] in "MO" else values.astype(dtype)
    if array.size and array.dtype.kind == "f" and draw(st.booleans()):
        array.flat[0] = draw(st.sampled_from([np.nan, np.inf, -np.inf, 0.0]))
    return array


def _spoilt(draw: Any, content: bytes) -> bytes:
    """The same, or, one time in four, cut off or altered."""
    if not content or draw(st.integers(0, 3)):
        return content
    at = draw(st.integers(0, len(content) - 1))
    return content[:at] if draw(st.booleans()) else content[:at] + b"\xff" + content[at + 1 :]
