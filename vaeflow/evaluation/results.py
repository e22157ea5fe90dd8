"""What an evaluation found, in a file and as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from vaeflow.evaluation.doubts import remarks_on
from vaeflow.files import whole


def score_of(results: dict[str, Any]) -> str:
    """What the model is judged by: nll, or kl where there are no data but an energy."""
    return "kl" if results["kind"] == "reverse-kl" else "nll"


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write results as JSON, and nll_by_example beside it as ``.npy``, each of them whole or not at all."""
    nll = results["nll_by_example"]
    if nll is not None:
        with whole(path.with_suffix(".npy")) as file:
            np.save(file, nll)
    else:
        path.with_suffix(".npy").unlink(missing_ok=True)
    with whole(path) as file:
        file.write(json.dumps({k: v for k, v in results.items() if k != "nll_by_example"}, indent=2).encode() + b"\n")


def table(results: dict[str, Any]) -> str:
    """The results as a small table for the terminal, with a warning where the number should not be trusted."""
    known = {
        "exact": "exact",
        "reverse-kl": "reverse, estimated from samples of the model",
        "unbiased": f"unbiased estimate, K = {results['num_samples']}",
    }
    bound = known.get(results["kind"], f"bound: {results['kind']}, K = {results['num_samples']}")
    score = score_of(results)
    value = _number(results[score], 3 if score == "nll" else 4)
    if results[f"{score}_stderr"] is not None:
        value += f" ± {_number(results[f'{score}_stderr'], 3 if score == 'nll' else 4)}"
    preprocessed = _number(results["nll_preprocessed"], 3)
    if results.get("nll_preprocessed_stderr") is not None:
        preprocessed += f" ± {_number(results['nll_preprocessed_stderr'], 3)}"
    all_rows = [
        (score, value, f"nats ({bound})"),
        ("entropy of the data", _number(results["entropy"], 3), "nats, which nothing can go below in expectation"),
        ("pre-processed", preprocessed, "nats of the data as the model sees them"),
        ("bits/dim", _number(results["bpd"], 4), ""),
        ("ELBO", _number(results["elbo"], 3), "nats"),
        ("gap to ELBO", _number(results["elbo_gap"], 3), "nats"),
        ("KL", _number(results["kl"] if score == "nll" else None, 3), "nats"),
        ("reconstruction", _number(results["reconstruction"], 3), "nats"),
        ("active units", _number(results["active_units"], 0), f"of {results['latent_features']}"),
        ("effective samples", _number(results["effective_sample_size"], 1), f"of {results['num_samples']}"),
        ("parameters", f"{results['num_parameters']:,}", ""),
        ("weights", *_weights(results.get("weights"))),
        ("training", _number(results["training_seconds"], 1), "s"),
        ("evaluation", _number(results["evaluation_seconds"], 1), "s"),
    ]
    rows = [row for row in all_rows if row[1]]
    width = max(len(name) for name, _, _ in rows)
    value_width = max(len(value) for _, value, _ in rows)
    given = " given the class" if results["context"] else ""
    title = "{model} on {data}, {split} split: {num_examples:,} examples, {measure}".format(**results) + given
    lines = [f"  {name:<{width}}  {value:>{value_width}}  {unit}".rstrip() for name, value, unit in rows]
    return "\n".join([title, "─" * len(title), *lines, *(f"  {doubt}" for doubt in remarks_on(results))])


def _weights(words: str | None) -> tuple[str, str]:
    """The epoch of what was evaluated, and the file, as they stand in two columns."""
    file, _, rest = (words or "").partition(", ")
    epoch, comma, averaged = rest.partition(", ")
    return epoch, f"{file}{comma}{averaged}"


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return ""
    return f"{value:,.{digits}f}" if abs(value) < 1e9 else f"{value:.3e}"
