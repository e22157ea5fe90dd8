"""All results side by side: ranked within what is comparable, never across."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from vaeflow.errors import VaeflowError
from vaeflow.evaluation.doubts import doubts_about, remarks_on
from vaeflow.evaluation.results import score_of
from vaeflow.files import expanded, find_files

KEYS = {
    "measure": "measure",
    "test_fingerprint": "test data",
    "context": "context",
    "split": "split",
}
"""Results are compared only where all of these are the same, and what each is called."""
NEEDED = ("model", "data", "kind", "num_examples", "protocol", "num_parameters", *KEYS)


@dataclass(frozen=True)
class Run:
    """One ``results.json``.

    Args:
        name: the run's folder, within the one that has all that were asked for.
        results: what the file holds.
        nll: of every test example, ``(num_examples,)``, where it was kept.
    """

    name: str
    results: dict[str, Any]
    nll: np.ndarray | None = None

    @property
    def score(self) -> float:
        """nll, or kl of an energy; low is good."""
        return float(self.results[score_of(self.results)])

    @property
    def stderr(self) -> float | None:
        """Standard error of the score."""
        return self.results.get(f"{score_of(self.results)}_stderr")

    def behind(self, other: Run) -> tuple[float, float] | None:
        """How much larger the nll is than another run's, in nats, and the standard error of that: of the differences
        example by example, which mostly vary less than the examples do."""
        if self.nll is None or other.nll is None or len(self.nll) < 2:
            return None
        difference = self.nll - other.nll
        return float(difference.mean()), float(difference.std(ddof=1) / len(difference) ** 0.5)

    @property
    def key(self) -> tuple[Any, ...]:
        """What must be equal for two runs to be compared."""
        return (score_of(self.results), *(self.results[name] for name in KEYS))

    @property
    def num_samples(self) -> int | None:
        """K of a bound; None where the score is none."""
        return None if self.results["kind"] in ("exact", "reverse-kl") else self.results.get("num_samples") or 1

    @property
    def kind(self) -> str:
        """How the score was had, and with how many samples."""
        samples = f", K = {self.num_samples:,}" if self.num_samples else ""
        return self.results["kind"] + samples + (", doubtful" if self.is_doubtful else "")

    @property
    def is_doubtful(self) -> bool:
        """Whether there is a reason not to believe the score."""
        return any(doubts_about(self.results))


def find_runs(folders: Iterable[str | Path]) -> tuple[list[Run], list[str]]:
    """The runs below some folders, newest last, and a sentence for each ``results.json`` that is none.

    Raises:
        VaeflowError: if a folder does not exist or there are no results at all.
    """
    found: list[Run] = []
    complaints: list[str] = []
    where = [expanded(folder) for folder in folders]
    root = Path(os.path.commonpath([os.path.abspath(folder) for folder in where]))
    seen: set[Path] = set()
    for folder in where:
        if not folder.is_dir():
            raise VaeflowError(f"there is no folder {folder}.")
        for path in find_files(folder, "results.json"):
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            try:
                results = json.loads(path.read_text())
                missing = [name for name in NEEDED if name not in results]
                if missing:
                    raise ValueError(f"it has no {missing[0]}")
                float(results[score_of(results)])
            except (ValueError, TypeError, KeyError, OSError) as error:
                complaints.append(f"{path} was left out: {error}.")
                continue
            nll, complaint = _by_example(path.with_suffix(".npy"), results)
            complaints += complaint
            found.append(Run(_name(path.parent, root), results, nll))
        complaints += [
            f"{run} was left out: it has no results.json; scripts/evaluate.py --ckpt {quote(str(checkpoint))} --json "
            f"{quote(str(run / 'results.json'))} would make one."
            for checkpoint in find_files(folder, "checkpoints/best.ckpt")
            if not ((run := checkpoint.parent.parent) / "results.json").is_file()
        ]
    if not found:
        raise VaeflowError(
            f"there are no results in {', '.join(map(str, where))}: train.py writes a results.json for each run. "
            + " ".join(complaints)
        )
    return _short_names(found), list(dict.fromkeys(complaints))


def _by_example(path: Path, results: dict[str, Any]) -> tuple[np.ndarray | None, list[str]]:
    """The nll of every example, if it is that of the results, and a complaint if it is not."""
    if not path.is_file():
        return None, []
    try:
        nll = np.load(path)
        if nll.shape == (results["num_examples"],) and np.isclose(nll.mean(), results["nll"], rtol=1e-5, atol=1e-6):
            return nll, []
        reason = "it is of another evaluation than the results beside it"
    except (ValueError, TypeError, EOFError, OSError) as error:
        reason = str(error)
    return None, [f"{path} was left out: {reason}."]


def _name(run: Path, root: Path) -> str:
    """``vae_iaf/version_3``, with as much of the root before it as a name needs to say more than seed and version."""
    run = Path(os.path.abspath(run))
    while root != root.parent and (run == root or run.relative_to(root).parts[0].startswith(("version_", "seed_"))):
        root = root.parent
    return str(run.relative_to(root))


def _short_names(runs: list[Run]) -> list[Run]:
    """``vae_iaf`` instead of ``vae_iaf/version_3`` where an experiment has one run."""
    experiments = [str(Path(run.name).parent) if "version_" in run.name else run.name for run in runs]
    return [
        replace(run, name=experiment if experiments.count(experiment) == 1 and experiment != "." else run.name)
        for run, experiment in zip(runs, experiments, strict=True)
    ]


def comparable(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs by what they are comparable with, the largest group first, each ranked from the best, with those that are
    doubtful after all others."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(run.key, []).append(run)
    ranked = (sorted(group, key=lambda run: (run.is_doubtful, run.score)) for group in groups.values())
    return sorted(ranked, key=len, reverse=True)


def believed(group: Sequence[Run]) -> Sequence[Run]:
    """The runs of a group that have a rank: those that are not doubtful."""
    return [run for run in group if not run.is_doubtful]


def why_not(one: Run, other: Run) -> str:
    """In what two runs differ that keeps their numbers apart."""
    reasons = []
    if score_of(one.results) != score_of(other.results):
        reasons.append("a KL to an energy is no nll of data")
    for key, called in KEYS.items():
        mine, theirs = one.results[key], other.results[key]
        if mine == theirs:
            continue
        if key == "context":
            reasons.append("p(x) and p(x given the class) are different things")
        elif key == "test_fingerprint":
            what = [
                f"{r.results['data']}, {r.results['num_examples']:,} examples, {r.results['protocol']}"
                for r in (one, other)
            ]
            reasons.append(f"the test data differ ({what[0]}; {what[1]})")
        else:
            reasons.append(f"the {called} is {mine}, not {theirs}")
    return "; ".join(reasons)


def title_of(group: Sequence[Run]) -> str:
    """What a group's numbers are of."""
    first = group[0].results
    given = " given the class" if first["context"] else ""
    return f"{first['data']}, {first['measure']}, {first['num_examples']:,} {first['split']} examples{given}"


def table_of(group: Sequence[Run]) -> list[list[str]]:
    """A header and a row for each run, as text; columns that say nothing are left out."""
    energy = group[0].results["measure"] == "energy"
    header = ["", "run", "model", "kind", "KL ± s.e., nats" if energy else "nll ± s.e., nats", "behind 1",
              "bits/dim", "−ELBO", "gap", "parameters", "training", "sampling 64"]  # fmt: skip
    rows = []
    ranked = len(believed(group))
    for rank, run in enumerate(group, 1):
        r = run.results
        digits = 4 if energy or abs(run.score) < 10 else 2
        error = "" if run.stderr is None else f" ± {run.stderr:.{digits}f}"
        elbo = r.get("elbo")
        behind = run.behind(group[0]) if 1 < rank <= ranked else None
        rows.append(
            [
                str(rank) if rank <= ranked else "–",
                run.name,
                r["model"],
                run.kind,
                f"{run.score:.{digits}f}{error}",
                "" if behind is None else "{0:.{2}f} ± {1:.{2}f}".format(*behind, digits),
                "" if r.get("bpd") is None else f"{r['bpd']:.4f}",
                "" if elbo is None else f"{-elbo:.2f}",
                "" if elbo is None else f"{-elbo - run.score:.2f}",
                f"{r['num_parameters']:,}",
                _seconds(r.get("training_seconds")),
                _seconds(r.get("sampling_seconds")),
            ]
        )
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    return [[row[i] for i in kept] for row in [header, *rows]]


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds / 60:.3g} min"


def notes_of(group: Sequence[Run]) -> list[str]:
    """What a reader of a group's table must know."""
    notes = []
    kinds = {run.results["kind"] for run in group}
    if kinds & {"dequantised", "importance-sampled", "elbo"}:
        bounds = sorted(kinds - {"exact", "reverse-kl"})
        notes.append(f"{_sentence(', '.join(bounds))}: bounds from above of the nll, which may be lower.")
    one_draw = any(run.results["kind"] == "dequantised" and run.results["num_samples"] == 1 for run in group)
    if one_draw and any(run.results["num_samples"] > 1 for run in group):
        notes.append(
            "Dequantised with one draw of noise is to a flow what −ELBO is to a VAE: more draws (evaluate.py "
            "--num-samples) lower it, as they do the importance-sampled bound."
        )
    counts = sorted({run.num_samples for run in believed(group) if run.num_samples})
    if len(counts) > 1:
        notes.append(
            f"K differs ({', '.join(f'{n:,}' for n in counts)}), and a bound falls with K: rank by one only "
            f"(evaluate.py --ckpt CHECKPOINT --num-samples {counts[-1]} --json RUN/results.json)."
        )
    if len(ranked := believed(group)) > 1:
        best, second = ranked[:2]
        behind = second.behind(best)
        spread = (
            sum(e**2 for e in (best.stderr, second.stderr) if e is not None) ** 0.5 if behind is None else behind[1]
        )
        if second.score - best.score <= 2 * spread:
            of = "independent samples" if behind is None else "their difference"
            notes.append(f"The first two differ by less than two standard errors of {of}.")
        if any(run.behind(best) for run in ranked[1:]):
            notes.append(
                "Behind 1: the mean difference to the first, example by example. Every ± is over test examples, not "
                "over trainings."
            )
    protocols = dict.fromkeys(run.results["protocol"] for run in group)
    if len(protocols) > 1:
        notes.append(f"The same test data, but otherwise protocols differ: {'; '.join(protocols)}.")
    entropy = group[0].results.get("entropy")
    if entropy is not None:
        notes.append(f"The data's entropy is {entropy:.4f} nats: nothing goes below it in expectation.")
    notes += [f"{run.name}: {doubt}" for run in group for doubt in remarks_on(run.results)]
    return notes


def as_text(groups: Sequence[Sequence[Run]]) -> str:
    """The comparison for a terminal."""
    parts = []
    for number, group in enumerate(groups, 1):
        title = (f"{number}. " if len(groups) > 1 else "") + title_of(group)
        lines = [title, "─" * len(title)]
        if number > 1:
            lines += [f"Not ranked with table 1: {why_not(group[0], groups[0][0])}."]
        rows = table_of(group)
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        text = rows[0].index("kind")
        for row in rows:
            cells = (c.ljust(w) if i <= text else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            lines.append("  ".join(cells).rstrip())
        parts.append("\n".join([*lines, *notes_of(group)]))
    return "\n\n".join(parts)


def as_markdown(groups: Sequence[Sequence[Run]]) -> str:
    """The comparison as a Markdown page."""
    parts = ["# Comparison", ""]
    for number, group in enumerate(groups, 1):
        parts += [f"## {number}. {title_of(group)}", "", f"{_sentence(group[0].results['protocol'])}.", ""]
        if number > 1:
            parts += [f"Not ranked with table 1: {why_not(group[0], groups[0][0])}.", ""]
        header, *rows = table_of(group)
        text = header.index("kind")
        parts += [
            _row(header),
            _row(["---" if i <= text else "---:" for i in range(len(header))]),
            *map(_row, rows),
            "",
        ]
        parts += [f"- {note}" for note in notes_of(group)] + [""]
    return "\n".join(parts)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _row(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", r"\|") for cell in cells]  # such as a run's name has
    return f"| {' | '.join(escaped)} |"
