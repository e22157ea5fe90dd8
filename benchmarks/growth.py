"""How time and memory grow with the dimension, the steps, the batch and the number of samples."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

import vaeflow.bijections as B
from benchmarks.autoencoders import vae_model
from benchmarks.report import duration, mebibytes
from benchmarks.timing import slope, take_turns
from benchmarks.work import ROWS
from vaeflow.estimate import log_likelihood
from vaeflow.figures.style import WIDTH, styled
from vaeflow.noise import Noise

DIMENSIONS = [2, 8, 32, 128, 512, 1024, 3072]
STEPS = [1, 2, 4, 8, 16]
BATCHES = [16, 64, 256, 1024, 4096]
SAMPLES = [50, 200, 800, 3200]
HIDDEN, K, BATCH = 512, 5, 128
LONGEST = 20.0
"""What would take longer, in seconds, by the growth so far, is left out."""

FLOWS: dict[str, Callable[[int, int], B.Bijection]] = {
    "MAF": lambda d, k: B.MaskedAutoregressive(d, steps=k, hidden=[HIDDEN]),
    "IAF": lambda d, k: B.InverseAutoregressive(d, steps=k, hidden=[HIDDEN]),
    "RealNVP": lambda d, k: B.Composition(B.Coupling(d, hidden=[HIDDEN], swap=i % 2 == 1) for i in range(k)),
}
TEXTBOOK = "MAF, a pass for each dimension"


def by_textbook(flow: B.MaskedAutoregressive, z: Tensor) -> Tensor:
    """Sampling as the papers describe it: D passes of every net, each for one feature more."""
    for step in flow.bijections:
        x = torch.zeros_like(z)
        for i in step.made.order:
            x[..., i] = step.transformer(z[..., i], step.made(x)[..., i, :])[0]
        z = x
    return z


@torch.no_grad()
def measure(device: torch.device, repeats: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Medians in seconds and peaks of memory in MiB, by what grows, what is done, and size."""
    repeats = max(3, repeats // 5)
    grown: dict[str, Any] = {}

    def add(what: str, name: str, sizes: list[int], make: Callable[[int], Callable[[], object]]) -> None:
        curve: dict[str, list[float]] = {"size": [], "seconds": [], "memory_mb": []}
        for size in sizes:
            if len(curve["seconds"]) > 1:
                b = slope(curve["size"][-2:], curve["seconds"][-2:])
                if curve["seconds"][-1] * (size / curve["size"][-1]) ** b > LONGEST:
                    break
            say(f"{name}, {what} = {size}")
            timing = take_turns({name: make(size)}, repeats, device, lambda turn: None)[name]
            if timing.failed:
                curve["failed"] = [f"{what} = {size}: {timing.failed}"]  # type: ignore[list-item]
                break
            for key, value in (("size", size), ("seconds", timing.median), ("memory_mb", timing.memory_mb)):
                curve[key].append(value)
        grown.setdefault(what, {})[name] = curve

    for what, sizes in (("D", DIMENSIONS), ("K", STEPS), ("batch", BATCHES)):
        for name, doing, make in _works(what, device):
            add(what, f"{name}, {doing}" if doing else name, sizes, make)
    model = vae_model().to(device)
    x = torch.rand(20, 784, generator=torch.Generator().manual_seed(0)).round().to(device)
    noise = Noise(0, "test", 0, torch.arange(20, device=device))
    add(
        "importance samples",
        "VAE + IAF, nll of 20 examples",
        SAMPLES,
        lambda k: functools.partial(log_likelihood, model, x, noise, k, rows=ROWS),
    )
    return grown


def _works(what: str, device: torch.device) -> Iterator[tuple[str, str, Callable[[int], Callable[[], object]]]]:
    """Name, what is done, and what makes it of a size; the other sizes stand still, D at 128."""

    def made(name: str, size: int) -> tuple[Any, Tensor]:
        d, k, batch = {"D": (size, K, BATCH), "K": (128, size, BATCH), "batch": (128, K, size)}[what]
        torch.manual_seed(0)
        return FLOWS[name](d, k).to(device), torch.randn(batch, d, device=device)

    def density(name: str, size: int) -> Callable[[], object]:
        flow, x = made(name, size)
        return functools.partial(flow.inverse, x)

    def sampling(name: str, size: int) -> Callable[[], object]:
        flow, z = made(name, size)
        return functools.partial(flow, z)

    def textbook(size: int) -> Callable[[], object]:
        return functools.partial(by_textbook, *made("MAF", size))

    for name in FLOWS:
        yield name, "density", functools.partial(density, name)
        yield name, "sampling", functools.partial(sampling, name)
    if what == "D":
        yield TEXTBOOK, "", textbook


def slopes(curve: dict[str, Any]) -> tuple[float, float]:
    """b of time ∝ sizeᵇ over the last three sizes, where fixed costs no longer hide it, and of memory."""
    size = curve["size"][-3:]
    return slope(size, curve["seconds"][-3:]), slope(size, curve["memory_mb"][-3:])


def markdown(grown: dict[str, Any]) -> str:
    """One table for all that grows, with the exponents."""
    fixed = f"K = {K}, hidden {HIDDEN}, batch {BATCH}, D = 128 unless it grows"
    lines = [
        f"### Growth ({fixed})",
        "",
        "| what grows | work | time, from the least to the largest | time ∝ | memory ∝ |",
        "|---|---|---|---:|---:|",
    ]
    for what, curves in grown.items():
        for name, curve in curves.items():
            if len(curve["size"]) < 2:
                lines.append(f"| {what} | {name} | {(curve.get('failed') or ['not measured'])[0]} | | |")
                continue
            seconds, size = curve["seconds"], curve["size"]
            span = f"{duration(seconds[0])} at {size[0]:,} … {duration(seconds[-1])} at {size[-1]:,}"
            span += f"; {curve['failed'][0]}" if "failed" in curve else ""
            exponent, memory = slopes(curve)
            grows = f"{what}^{exponent:.2f} | {what}^{memory:.2f}, {mebibytes(curve['memory_mb'][-1])} at last"
            lines.append(f"| {what} | {name} | {span} | {grows} |")
    lines += ["", "Exponents are of least squares over the three largest sizes, where fixed costs no longer hide them."]
    return "\n".join([*lines, ""])


@styled
def draw(grown: dict[str, Any]) -> Figure:
    """Time against D: density and sampling of MAF, IAF and RealNVP side by side."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True, sharex=True)
    colours = {"MAF": "C0", "IAF": "C1", "RealNVP": "C2"}
    for axes, doing in zip(panels, ("density", "sampling"), strict=True):
        for name, colour in colours.items():
            curve = grown["D"][f"{name}, {doing}"]
            axes.loglog(curve["size"], curve["seconds"], "o-", color=colour, ms=4, label=name)
        if doing == "sampling" and TEXTBOOK in grown["D"]:
            curve = grown["D"][TEXTBOOK]
            axes.loglog(curve["size"], curve["seconds"], "o--", color="0.5", ms=4, label=TEXTBOOK)
        axes.set_title(f"{doing}: {'x → z' if doing == 'density' else 'z → x'}")
        axes.set_xlabel("D")
        axes.grid(alpha=0.3)
        axes.set_xticks(DIMENSIONS, [str(d) for d in DIMENSIONS])
        axes.tick_params(axis="x", labelsize=8)
        axes.minorticks_off()
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    panels[0].set_ylabel(f"seconds for a batch of {BATCH}")
    return figure
