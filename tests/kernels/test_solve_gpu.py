"""The kernel for GPUs: on one, or run by Triton in Python."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch

import vaeflow.bijections as B
from tests.conftest import redraw
from vaeflow import kernels
from vaeflow.bijections import sequential
from vaeflow.bijections.transformers import Transformer
from vaeflow.kernels.context import context_rows

sequential_solve_gpu = pytest.importorskip("vaeflow.kernels.sequential_solve_gpu")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CASES: dict[str, dict[str, Any]] = {
    "one layer": {"features": 9, "hidden": [14], "activation": "elu"},
    "three layers": {"features": 7, "hidden": [5, 12, 4], "activation": "tanh"},
    "reversed": {"features": 8, "hidden": [12, 7], "reverse": True, "activation": "silu"},
    "fewer units than features": {"features": 10, "hidden": [3, 2], "activation": "softplus"},
    "residual, reversed, random": {
        "features": 7, "hidden": [6, 9], "residual_blocks": 2, "reverse": True, "degrees": "random",
        "activation": "gelu", "transformer": B.Gated,
    },
    "additive": {"features": 6, "hidden": [9], "transformer": B.Additive, "activation": "leaky_relu"},
    "gated": {"features": 6, "hidden": [9], "transformer": B.Gated, "activation": "relu"},
    "one feature": {"features": 1, "hidden": [5], "activation": "relu"},
}  # fmt: skip


def make(name: str, conditional: bool, dtype: torch.dtype = torch.float64) -> B.MaskedAutoregressiveStep:
    arguments = dict(CASES[name])
    step = B.MaskedAutoregressiveStep(arguments.pop("features"), 3 if conditional else 0, **arguments)
    return redraw(step.double(), 1.0).to(DEVICE, dtype)  # type: ignore[return-value]


def both(
    step: B.MaskedAutoregressiveStep, value: torch.Tensor, context: torch.Tensor | None, inverse: bool = False
) -> tuple[Any, Any]:
    """What the kernel gives, and the definition in torch."""
    transformer: Transformer = step.transformer
    conditioned = step.made.condition(context).value
    transform = transformer.inverse if inverse else transformer.forward
    with torch.no_grad():
        flat, rows = value.reshape(-1, step.made.features), context_rows(conditioned, value)
        y, log_det = sequential_solve_gpu.solve(step.made, transformer, inverse, flat, rows)
        got = y.view(value.shape), log_det.view(value.shape[:-1])
        return got, sequential._solve_in_steps_of(transform, step.made, value, conditioned)


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(DEVICE, dtype)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("conditional", "inverse"), [(False, True), (True, False)])
def test_it_is_what_steps_give(name: str, conditional: bool, inverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequential_solve_gpu, "shape_of_program", lambda samples: (4, 2))
    step = make(name, conditional)
    got, wanted = both(step, normal(3, step.made.features), normal(3, 3) if conditional else None, inverse)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_contexts_are_shared_by_samples_of_many_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequential_solve_gpu, "shape_of_program", lambda samples: (2, 1))
    step = make("residual, reversed, random", True)
    got, wanted = both(step, normal(3, 3, 7).mT.contiguous().mT, normal(3, 3))
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
    empty, log_det = sequential_solve_gpu.solve(step.made, step.transformer, False, normal(0, 7), normal(0, 0))
    assert empty.shape == (0, 7)
    assert log_det.shape == (0,)


def test_panels_of_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """More columns than a product takes at once, and what is masked is never read."""
    monkeypatch.setattr(sequential_solve_gpu, "PANEL", 4)
    monkeypatch.setattr(sequential_solve_gpu, "shape_of_program", lambda samples: (2, 1))
    step = make("reversed", False, torch.float32)
    value = normal(2, 8, dtype=torch.float32)
    got, wanted = both(step, value, None)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    for stage in step.made.stages:
        stage.weight.data[~stage.mask] = torch.nan
    again, _ = both(step, value, None)
    assert torch.equal(again[0], got[0])
    assert torch.equal(again[1], got[1])


def test_it_compiles_for_a_gpu() -> None:
    """Which Triton does on any machine, down to what the processor runs."""
    program = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from vaeflow.kernels import random_bits_gpu, sequential_solve_gpu

def build(kernel, pointers, **constants):
    types = {name: pointers.get(name, "constexpr" if name in constants else "i32") for name in kernel.arg_names}
    assert compile(ASTSource(kernel, types, constants), target=GPUTarget("cuda", 80, 32)).asm["cubin"]

build(random_bits_gpu._random_bits, {"index": "*i64", "out": "*i64", "key": "i64"}, PANEL=1024)
for number in ("fp32", "fp64"):
    floats = dict.fromkeys(("value", "context", "known", "sums", "image", "log_det"), f"*{number}")
    for reverse, samples, activation, transformer in (
        (True, 1, "gelu", "Gated"), (False, 8, "softplus", "Affine"), (True, 8, "elu", "Additive"),
    ):
        build(
            sequential_solve_gpu._solve, {"table": "*i64", "counts": "*i64", **floats}, OUTPUTS=2, REVERSE=reverse,
            CONDITIONAL=reverse, ACTIVATION=activation, TRANSFORMER=transformer, INVERSE=reverse, SAMPLES=samples,
            COLUMNS=128,
        )
"""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_without_triton_one_warning_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_unusable", set())
    monkeypatch.setitem(sys.modules, "vaeflow.kernels.sequential_solve_gpu", None)
    with pytest.warns(UserWarning, match=r"triton cannot be used \(.*\), so that sampling .* longer"):
        assert kernels.attempt("sequential_solve_gpu", "solve") is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels.attempt("sequential_solve_gpu", "solve") is None


@pytest.mark.parametrize("error", [RuntimeError("Failed to find C compiler"), OSError("disk full")])
def test_what_cannot_be_compiled_is_done_in_steps(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(kernels, "_unusable", set())
    monkeypatch.setattr(sequential_solve_gpu, "solve", broken)
    with pytest.warns(UserWarning, match=f"triton cannot be used \\({error}\\)"):
        assert kernels.attempt("sequential_solve_gpu", "solve") is None


def test_too_little_memory_is_no_reason_to_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(kernels, "_unusable", set())
    monkeypatch.setattr(sequential_solve_gpu, "solve", greedy)
    with pytest.raises(torch.OutOfMemoryError):
        kernels.attempt("sequential_solve_gpu", "solve")
    assert not kernels._unusable
