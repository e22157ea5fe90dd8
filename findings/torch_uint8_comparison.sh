#!/usr/bin/env bash
# torch 2.13.0: comparing a tensor of bytes with a number outside 0 ... 255.
#
# Guess, before it was run: the comparison is of values, as NumPy's is, so that no byte is >= 256, none is == 256, all
# are < 256, and all are > -1.
#
# Seen: the number is first wrapped to a byte, without a word: 256 is 0, -1 is 255, 300 is 44. Every byte is >= 256,
# black pixels are == 256, none is < 256 and none is > -1. The usual check of image data, `x.max() >= levels` with 256
# levels, therefore refuses all images, and `(x < levels).all()` as a mask drops every pixel. NumPy 2 compares by value.
# What helps: x.max().item() >= levels, or x.to(torch.int64) >= levels.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import torch

pixels = np.array([0, 44, 200, 255], dtype=np.uint8)
x = torch.from_numpy(pixels)
found = {
    ">= 256": ((x >= 256).tolist(), (pixels >= 256).tolist()),
    "== 256": ((x == 256).tolist(), (pixels == 256).tolist()),
    "< 256": ((x < 256).tolist(), (pixels < 256).tolist()),
    "== 300": ((x == 300).tolist(), (pixels == 300).tolist()),
    "> -1": ((x > -1).tolist(), (pixels > -1).tolist()),
    "max() >= 256": ([bool(x.max() >= 256)], [bool(pixels.max() >= 256)]),
}
print("torch", torch.__version__, "numpy", np.__version__)
for what, (of_torch, of_numpy) in found.items():
    print(f"{what:14}torch {of_torch}  numpy {of_numpy}")
T, F = True, False
assert found == {
    ">= 256": ([T, T, T, T], [F, F, F, F]),
    "== 256": ([T, F, F, F], [F, F, F, F]),
    "< 256": ([F, F, F, F], [T, T, T, T]),
    "== 300": ([F, T, F, F], [F, F, F, F]),
    "> -1": ([F, F, F, F], [T, T, T, T]),
    "max() >= 256": ([T], [F]),
}, "torch compares otherwise now"
PY
