"""What a comparison leaves on disk: a page, a picture, and a run for TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vaeflow.evaluation.compare import Run, as_markdown, believed, title_of
from vaeflow.figures.style import NAME_LENGTH, WIDTH, literal, pixels, save_figure, styled

COLOURS = {"exact": "#0072B2", "dequantised": "#009E73", "importance-sampled": "#D55E00", "elbo": "#CC79A7",
           "reverse-kl": "#56B4E9"}  # fmt: skip


@styled
def draw(groups: Sequence[Sequence[Run]]) -> Figure:
    """A panel for each group: every run's score with its error, and for each VAE the way from −ELBO to it. The score of
    those that have no rank is written, not drawn."""
    heights = [1.1 + 0.34 * len(group) for group in groups]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.5))
    panels = figure.subplots(len(groups), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, group in zip(panels, groups, strict=True):
        places, ranked = range(len(group)), believed(group)
        widest = _widest(ranked) if ranked else 0.0
        for place, run in zip(places, group, strict=True):
            colour = COLOURS.get(run.results["kind"], "black")
            has_rank = place < len(ranked)
            if not has_rank or run.score > widest:
                text = f"{run.score:.4g} →" if has_rank else f"doubtful: {run.score:.4g}"
                axes.annotate(text, (0.995, place), xycoords=("axes fraction", "data"), fontsize=8,
                              ha="right", va="center", color=colour)  # fmt: skip
                continue
            elbo = run.results.get("elbo")
            if elbo is not None:
                axes.plot([-elbo, run.score], [place, place], color=colour, lw=2, alpha=0.5, zorder=1)
                axes.plot(-elbo, place, "o", mfc="white", mec=colour, ms=7, zorder=2)
            error = None if run.stderr is None else 2 * run.stderr
            axes.errorbar(run.score, place, xerr=error, fmt="o", color=colour, ms=7, capsize=3, zorder=3)
        axes.set_yticks(
            list(places), [literal(f"{run.name} ({run.results['model']})", 2 * NAME_LENGTH) for run in group]
        )
        axes.set_ylim(len(group) - 0.5, -0.5)
        axes.margins(x=0.08)
        axes.grid(axis="x", alpha=0.3)
        axes.set_title(literal(title_of(group)))
        energy = group[0].results["measure"] == "energy"
        axes.set_xlabel("KL in nats" if energy else "nll in nats per example, ± 2 standard errors")
        entropy = group[0].results.get("entropy")
        if not ranked:
            axes.set_xticks([])
        if entropy is not None:
            axes.axvline(entropy, color="0.4", ls="--", lw=1)
            axes.annotate(
                "entropy", (entropy, 1), xycoords=("data", "axes fraction"), fontsize=8, va="top", color="0.3"
            )
        first = group[0].results
        if ranked and first.get("bpd") and first["nll"]:
            ratio = first["bpd"] / first["nll"]
            top = axes.secondary_xaxis("top", functions=(lambda v, r=ratio: v * r, lambda v, r=ratio: v / r))
            top.set_xlabel("bits/dim", fontsize=8)
            top.tick_params(labelsize=8)
    _legend(figure, [run for group in groups for run in group])
    return figure


def _widest(group: Sequence[Run]) -> float:
    """The largest score that is drawn as a point: those of the worst quarter that lie more than three times as far from
    the best as the one before would press the others into one."""
    scores = [run.score for run in group]
    for before, score in pairwise(scores[len(scores) - len(scores) // 4 - 1 :]):
        if score - scores[0] > 3 * (before - scores[0]) > 0:
            return before
    return scores[-1]


def write(groups: Sequence[Sequence[Run]], folder: Path) -> list[Path]:
    """``compare.md``, ``compare.png`` and a TensorBoard run ``comparison`` in a folder."""
    from torch.utils.tensorboard import SummaryWriter

    folder.mkdir(parents=True, exist_ok=True)
    page, picture, events = folder / "compare.md", folder / "compare.png", folder / "comparison"
    markdown, figure = as_markdown(groups), draw(groups)
    page.write_text(markdown)
    save_figure(picture, figure)
    for old in events.glob("events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(events)) as writer:
        writer.add_text("comparison", markdown)
        writer.add_image("comparison", pixels(figure), dataformats="HWC")
    return [page, picture, events]


def _legend(figure: Figure, runs: Sequence[Run]) -> None:
    kinds = [kind for kind in COLOURS if any(run.results["kind"] == kind for run in runs)]
    handles = [Line2D([], [], marker="o", ls="", color=COLOURS[kind], label=kind) for kind in kinds]
    if any(run.results.get("elbo") is not None for run in runs):
        handles.append(Line2D([], [], marker="o", color="0.5", mfc="white", label="−ELBO, and its gap"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
