"""The direction of an attribute in latent space, and what adding it to examples does: the smile vector.

Sources: Larsen et al. 2016, arXiv 1512.09300, section 4.2 (difference of means); White 2016, arXiv 1609.04468.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vaeflow.errors import VaeflowError
from vaeflow.figures.images import blocks_of_tiles, limits_of, tiles
from vaeflow.figures.streaming import decoded, encoded
from vaeflow.figures.style import styled
from vaeflow.latents import LatentSpace

Finding = Literal["means", "probe"]


@dataclass(frozen=True)
class Direction:
    """A direction in latent space: ``vector`` ``(code_features,)``, and how well its probe tells the attribute in codes
    that it was not fitted to, balanced accuracy, None of a difference of means."""

    vector: Tensor
    accuracy: float | None = None


def direction(having: Tensor, lacking: Tensor, method: Finding = "means", seed: int = 0) -> Direction:
    """The direction d ``(code_features,)`` of an attribute.

    ``means``: d = μ₁ − μ₀, from the mean code without it to the mean code with it. ``probe``: the normal w of a
    logistic regression's plane, in codes of unit variance, as long as the way between the means is along it:
    w (w·(μ₁ − μ₀)) / (w·w). A probe sees no dimension that does not tell the attribute, where a difference of means
    takes along whatever else differs.

    Args:
        having, lacking: codes ``(N, code_features)`` with and without the attribute.
        seed: of the split by which the probe's accuracy is measured: fitted to nine tenths, measured on the rest.
    """
    for codes, what in ((having, "has"), (lacking, "lacks")):
        if not len(codes):
            raise VaeflowError(f"no training example {what} the attribute.")
    between = having.mean(0) - lacking.mean(0)
    if method == "means":
        return Direction(between)
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    codes = torch.cat([having, lacking]).double()
    labels = torch.cat([torch.ones(len(having)), torch.zeros(len(lacking))]).numpy()
    if min(len(having), len(lacking)) < 10:
        raise VaeflowError(
            f"a probe wants at least 10 examples with the attribute and 10 without, not {len(having)} and "
            f"{len(lacking)}: take --method means."
        )
    scale = codes.std(0).clamp(min=1e-6)
    white = ((codes - codes.mean(0)) / scale).numpy()
    probe = LogisticRegression(class_weight="balanced", max_iter=2000)
    fitted, held, fitted_labels, held_labels = train_test_split(
        white, labels, test_size=0.1, stratify=labels, random_state=seed
    )
    right = probe.fit(fitted, fitted_labels).predict(held) == held_labels
    accuracy = np.mean([right[held_labels == label].mean() for label in (0, 1)])
    w = torch.from_numpy(probe.coef_[0])
    along = w * (w @ (between / scale)) / (w @ w)
    return Direction((along * scale).to(having.dtype), float(accuracy))


def resynthesise(
    model: Any,
    space: LatentSpace,
    x: Tensor,
    y: Tensor,
    sets: tuple[Tensor, Tensor],
    data: Any,
    strength: Tensor,
    method: Finding = "means",
    rows: int = 256,
) -> tuple[Tensor, Direction]:
    """Examples ``(n, *shape)`` with an attribute added: D(E(x) + s d) at every strength s, ``(n, strengths, *shape)``,
    and its direction d.

    Args:
        y: labels ``(n,)``.
        sets: indices of training examples that have the attribute, and that lack it.
        strength: ``(strengths,)``.
        rows: that go through the model at once.
    """
    having, lacking = (encoded(model, space, x, y, rows) for x, y in (data.examples("train", index) for index in sets))
    found = direction(having, lacking, method)
    codes = encoded(model, space, x, y, rows)
    moved = codes[:, None] + strength.to(codes.dtype)[:, None] * found.vector
    changed = decoded(model, space, moved.flatten(0, 1), y.repeat_interleave(len(strength)), rows)
    return changed.unflatten(0, moved.shape[:2]), found


@styled
def draw(x: Tensor, changed: Tensor, strength: Tensor, title: str, levels: int | None) -> Figure:
    """A row for each example: itself, and the same with the attribute added at every strength.

    Args:
        x: the examples, ``(rows, *shape)``.
        changed: ``(rows, strengths, *shape)``.
    """
    limits = limits_of(x, levels)
    return blocks_of_tiles(
        [tiles(x[:, None], limits), tiles(changed, limits)],
        [["example"], [f"{s:+.2g}" if s else "0" for s in strength.tolist()]],
        title,
        "strength: +1 adds to the example's code the mean code of examples with the attribute − that of those without",
    )
