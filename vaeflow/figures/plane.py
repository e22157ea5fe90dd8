"""Points of the plane, with the data behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from torch import Tensor

Range = tuple[float, float]


@dataclass(frozen=True)
class Plane:
    """What a picture of data in the plane shows of it.

    Args:
        across, up: the ranges of both coordinates.
        data: some of the validation data, ``(N, 2)``, None where there are none.
    """

    across: Range
    up: Range
    data: Tensor | None

    def holds(self, x: Tensor) -> Tensor:
        """Which points ``(n, 2)`` lie within the ranges, ``(n,)``."""
        (left, right), (bottom, top) = self.across, self.up
        return (x[:, 0] >= left) & (x[:, 0] <= right) & (x[:, 1] >= bottom) & (x[:, 1] <= top)


def plane_of(data: Any) -> Plane | None:
    """That of data in the plane, None of others."""
    if data.shape != (2,):
        return None
    across, up = data.window()
    return Plane(across, up, data.splits["val"][0][:2000] if data.has_examples else None)


def show_plane(axes: Axes, plane: Plane) -> None:
    """Axes of the plane, the data in light grey."""
    if plane.data is not None:
        axes.scatter(plane.data[:, 0], plane.data[:, 1], s=3, color="0.75", lw=0, label="data", zorder=0)
    axes.set(xlabel="$x_1$", ylabel="$x_2$", xlim=plane.across, ylim=plane.up, aspect="equal")
