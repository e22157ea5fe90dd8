"""Masked linear layers: what stands in masked entries has no part in anything."""

from __future__ import annotations

import pytest
import torch

from vaeflow.nets.masked import MaskedLinear

LAYERS = {
    "square": (70, sorted(r * 70 // 61 for r in range(61)), 1, False),
    "from the end": (70, sorted(r * 70 // 61 for r in range(61)), 1, True),
    "descending": (70, sorted((r for r in range(70)), reverse=True), 1, False),
    "groups": (130, [2 * r for r in range(65)], 3, False),
    "fewer units than columns": (300, [0, 0, 17, 170, 300], 1, True),
}
layers = pytest.mark.parametrize("name", LAYERS)


@layers
def test_a_unit_reads_the_first_or_last_columns(name: str) -> None:
    columns, reads, groups, from_end = LAYERS[name]
    layer = MaskedLinear(columns, reads, groups, from_end)
    for unit, many in enumerate(reads * groups):
        expected = torch.arange(columns) >= columns - many if from_end else torch.arange(columns) < many
        assert torch.equal(layer.mask[unit], expected)
    for unit, (start, stop) in enumerate(layer.ranges):
        assert layer.mask[unit].nonzero().flatten().tolist() == list(range(start, stop))
    for column, (start, stop) in enumerate(layer.readers):
        assert layer.mask[: len(reads), column].nonzero().flatten().tolist() == list(range(start, stop))


@layers
def test_what_a_unit_does_not_read_cannot_reach_it(name: str) -> None:
    """Not in the weight, not in an input, and not in a cotangent, even if it is NaN."""
    torch.manual_seed(0)
    layer = MaskedLinear(*LAYERS[name]).double()
    with torch.no_grad():
        layer.weight.copy_(torch.where(layer.mask, layer.weight, torch.nan))
    x = torch.randn(3, layer.in_features, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    by_x, by_weight = torch.autograd.grad(y.sum(), (x, layer.weight))
    assert y.isfinite().all()
    assert by_x.isfinite().all()
    assert by_weight[~layer.mask].eq(0).all()
