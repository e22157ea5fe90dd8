#!/usr/bin/env bash
# torch 2.13.0 and 2.14.1: the gradient of clamp exactly at its bounds.
#
# Guess, before it was run: 1 in both releases, as the value is inside the closed interval, and the same whether the
# bounds are numbers or tensors.
#
# Seen: 1 in 2.13.0; in 2.14.1 it is 0 where the bounds are numbers, and 0.5 where they are tensors. Whoever keeps a value
# in [0, 1] by clamp against rounding, as splines do with the place within a bin, has a Jacobian at the ends, which are
# the knots, that depends on the release and on the type of the bounds; a fresh spline, which is the identity, has the
# derivative 0 at 0, and its log-determinant by autograd is -inf there. What helps: torch.where(x < 0, 0, x) and so on.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 2.13.0 2.14.1; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install -q "torch==$version" numpy==2.4.6
    "$folder/$version/bin/python" - "$version" <<'PY'
import sys

import torch

expected = {
    "2.13.0": {"numbers": [1.0, 1.0, 1.0], "tensors": [1.0, 1.0, 1.0]},
    "2.14.1": {"numbers": [0.0, 1.0, 0.0], "tensors": [0.5, 1.0, 0.5]},
}[sys.argv[1]]
x = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
bounds = {"numbers": (0.0, 1.0), "tensors": (torch.tensor(0.0), torch.tensor(1.0))}
found = {}
for name, (low, high) in bounds.items():
    (gradient,) = torch.autograd.grad(x.clamp(low, high).sum(), x)
    found[name] = gradient.tolist()
print("torch", torch.__version__, found)
assert found == expected, f"clamp's gradient is another now: {found}, expected {expected}"
PY
done
