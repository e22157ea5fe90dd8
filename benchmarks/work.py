"""What is timed: a work, the contenders that do it, and the goals for ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import failure

OURS, FLOOR = "vaeflow", "floor"
FUSED, COMPILED = " (fused Adam)", " (compiled)"
ROWS = 5000
"""Pairs of an example and a sample in one chunk of an estimate."""


@dataclass(frozen=True)
class Goal:
    """At most so many times what another contender takes.

    Args:
        who: one of ours.
        than: another contender, or ``best peer``.
        at_most: the ratio of their times.
    """

    who: str
    than: str
    at_most: float
    in_addition: bool = False
    """Then it is the difference of their times in seconds that is at most so much."""


@dataclass
class Work:
    """One thing to be done.

    Args:
        case, name: such as ``MAF, D = 784`` and ``sampling``.
        contenders: what each does in one turn.
        goals: for the ratios of their times.
        failed: contenders that could not be built, and why.
        errors: the largest error of the round trip of each contender that makes one.
        items: how many things one turn makes, such as samples, where a rate is of interest.
    """

    case: str
    name: str
    contenders: dict[str, Callable[[], object]]
    goals: Sequence[Goal] = ()
    failed: dict[str, str] = field(default_factory=dict)
    errors: dict[str, Callable[[], float]] = field(default_factory=dict)
    items: int | None = None


def build(makers: dict[str, Callable[[], Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """What could be built, with the same seed each; and why the others could not."""
    built, failed = {}, {}
    for name, make in makers.items():
        torch.manual_seed(0)
        try:
            built[name] = make()
        except Exception as error:
            failed[name] = failure(error)
    return built, failed


def training_step(module: nn.Module, loss: Callable[[], Tensor], fused: bool = False) -> Callable[[], object]:
    """Loss, gradient and a step of Adam, as every library's own loop does it."""
    optimizer = torch.optim.Adam(module.parameters(), 1e-4, fused=fused or None)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def without_gradient(run: Callable[[], object]) -> Callable[[], object]:
    """The same where autograd does not watch."""
    return torch.no_grad()(run)
