"""What is trained for each table, with the figures that were published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A number of each row.

    Args:
        title: with its unit.
        of: the number of ``results.json``, low is good, or None where it has none.
        stderr: its standard error over test examples.
        falls_with_samples: whether it is a bound, tighter with more of them.
    """

    title: str
    of: Callable[[Results], float | None]
    stderr: Callable[[Results], float | None] = lambda results: None
    digits: int = 2
    falls_with_samples: bool = False


@dataclass(frozen=True)
class Published:
    """A figure that was published.

    Args:
        value: as it was printed, in the column's unit.
        source: paper, arXiv number, table.
        is_verified: whether it was looked up there, or quoted by who had; else it is from memory.
    """

    value: str
    source: str
    is_verified: bool = True

    @property
    def digits(self) -> int:
        """How many stand after the point."""
        return len(self.value.partition(".")[2])

    def __str__(self) -> str:
        return self.value if self.is_verified else f"{self.value} \\*"


@dataclass(frozen=True)
class Row:
    """One model of a table.

    Args:
        options: of ``train.py``; ``{seed}`` is the run's.
        published: by the column's title.
        note: what is to be known of it.
    """

    options: str
    published: Mapping[str, Published] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of one data set, under one protocol.

    Args:
        title: of its section.
        protocol: data, split, measure, what is said of all rows.
        num_samples: K of the evaluation.
        seeds: by default.
        columns: what is measured.
        rows: by name.
    """

    title: str
    protocol: str
    num_samples: int
    seeds: tuple[int, ...]
    columns: tuple[Column, ...]
    rows: Mapping[str, Row]


def _of(name: str, factor: float = 1.0) -> Callable[[Results], float | None]:
    return lambda results: None if results.get(name) is None else factor * results[name]


def _per_dimension(name: str, factor: float = 1.0) -> Callable[[Results], float | None]:
    """A number in nats as bits/dim."""
    nats = _of(name, factor)
    return lambda results: None if (n := nats(results)) is None else n * results["bpd"] / results["nll"]


NLL = Column("nll, nats", _of("nll"), _of("nll_stderr"), falls_with_samples=True)
ELBO = Column("−ELBO, nats", _of("elbo", -1.0))
BPD = Column("nll, bits/dim", _of("bpd"), _per_dimension("nll_stderr"), 3, falls_with_samples=True)
ELBO_BPD = Column("−ELBO, bits/dim", _per_dimension("elbo", -1.0), digits=3)
PREPROCESSED = Column("nll pre-processed, nats", _of("nll_preprocessed"), _of("nll_preprocessed_stderr"), 1)
KL = Column("KL(q ‖ p), nats", _of("kl"), _of("kl_stderr"), 4)

# ------------------------------------------------------------------------------------------------------------ the rows

_BFLOAT16 = "--trainer.precision bf16-mixed"
_IWAE = "Burda et al. 2016, 1509.00519, table 1"
_IAF = "Kingma et al. 2016, 1606.04934, table 1, as others quote it: residual nets, 128 samples, means of five runs"
_MAF = "Papamakarios et al. 2017, 1705.07057, table 2, as others quote it"
_NICE = "Dinh et al. 2014, 1410.8516, as others quote it"


def _digits() -> dict[str, Row]:
    names = ["uniform", "gaussian", "gaussian_mixture", "deep_gmm", "vae_2d", "vae", "vae_planar", "vae_radial",
             "vae_iaf", "vae_sylvester", "iwae", "vdvae", "gated_pixelcnn", "made", "nice", "realnvp",
             "realnvp_image", "glow", "maf", "spline"]  # fmt: skip
    return {name: Row(f"--config {name}") for name in names}


def _freyfaces() -> dict[str, Row]:
    figures = {
        "vae": ("vae", "", "4.53", "4.40"),
        "vae_planar": ("vae_planar", "", "4.40", "4.31"),
        "vae_radial": ("vae_radial", "", None, None),
        "vae_iaf": ("vae_iaf", "", "4.47", "4.38"),
        "vae_sylvester_o": ("vae_sylvester", " --model.flow.kind orthogonal", "4.51", "4.39"),
        "vae_sylvester_h": ("vae_sylvester", " --model.flow.kind householder", "4.46", "4.35"),
        "vae_sylvester_t": ("vae_sylvester", " --model.flow.kind triangular", "4.45", "4.35"),
    }
    source = "van den Berg et al. 2018, 1803.05649"
    quoted = f"{source}, as quoted by Grathwohl et al. 2019, 1810.01367, table 3"
    rows = {}
    for name, (config, more, bound, nll) in figures.items():
        published = {}
        if bound is not None and nll is not None:
            is_quoted = name[-2:] not in ("_o", "_h")
            published[ELBO_BPD.title] = Published(bound, quoted if is_quoted else source, is_quoted)
            published[BPD.title] = Published(nll, source, is_verified=False)
        options = f"--config freyfaces/{config} --data.split_seed {{seed}}{more} {_BFLOAT16}"
        if name != "vae_iaf":  # large matrix products are most of a step there
            options += " --compile"
        rows[name] = Row(options, published)
    return rows


def _mnist_mlp() -> dict[str, Row]:
    def published(value: str) -> dict[str, Published]:
        return {NLL.title: Published(value, _IWAE)}

    iwae_50 = "--model.objective IWAE --model.objective.k 50 --model.objective.gradient_samples 10"
    rows = {
        "vae": Row("--config mnist/vae --trainer.max_epochs 1000", published("86.76")),
        "iwae_5": Row("--config mnist/iwae --trainer.max_epochs 1000", published("85.54")),
        "iwae_5_dreg": Row(
            "--config mnist/iwae --model.objective.doubly_reparameterised true --trainer.max_epochs 900",
            published("85.54"),
            "900 epochs, with the doubly reparameterised gradient (Tucker et al. 2018, 1810.04152).",
        ),
        "iwae_50": Row(
            f"--config mnist/vae {iwae_50} --model.objective.doubly_reparameterised true",
            published("84.78"),
            "300 epochs, doubly reparameterised, the gradient through 10 of the 50 draws, picked by their weights.",
        ),
    }
    for row in ("vae", "iwae_5"):
        options = f"{rows[row].options} --data.num_val 400 {_BFLOAT16}"
        note = "59,600 images to train on, as published, which makes a fifth more steps; in bfloat16."
        rows[f"{row}_59600"] = replace(rows[row], options=options, note=note)
    rows["iwae_5_dreg_59600"] = replace(
        rows["iwae_5_dreg"],
        options=f"{rows['iwae_5_dreg'].options} --data.num_val 400",
        note="59,600 images to train on, as published; 900 epochs, doubly reparameterised.",
    )
    rows["vae_300"] = Row("--config mnist/vae", note="300 epochs, to be set beside the rows with a flow.")
    for flow in ("planar", "iaf", "sylvester"):
        rate = "; learning rate 0.004, all others 0.008." if flow == "planar" else "."
        rows[f"vae_{flow}"] = Row(f"--config mnist/vae_{flow}", note=f"300 epochs, as all rows with a flow{rate}")
        for name, objective in {"5": "--model.objective IWAE --model.objective.k 5", "50": iwae_50}.items():
            options = f"--config mnist/vae_{flow} {objective} --model.objective.doubly_reparameterised true"
            rows[f"iwae_{name}_{flow}"] = Row(options, note=f"300 epochs, doubly reparameterised, as `iwae_50`{rate}")
    return rows


def _mnist_conv() -> dict[str, Row]:
    flows = {
        "vae": "",
        "planar": " --model.flow Planar --model.flow.steps 16",
        "iaf": " --model.flow InverseAutoregressive --model.flow.steps 8 --model.flow.hidden '[1920]'",
        "sylvester": " --model.flow Sylvester --model.flow.steps 16 --model.flow.bottleneck 32",
    }
    figures = {"vae_32": Published("81.08", _IAF), "iaf_32": Published("79.10", _IAF)}
    rows = {}
    for latents in (32, 64):
        for name, flow in flows.items():
            row = f"{name}_{latents}"
            published = {NLL.title: figures[row]} if row in figures else {}
            rows[row] = Row(f"--config mnist/paper/vae_conv --model.latent_features {latents}{flow}", published)
    return rows


def _mnist_continuous() -> dict[str, Row]:
    def row(options: str, epochs: int, published: str = "") -> Row:
        figures = {PREPROCESSED.title: Published(published, _MAF)} if published else {}
        length = f"--trainer.max_epochs {epochs} --trainer.check_val_every_n_epoch 1"
        return Row(f"--config mnist/{options} --model.noise_once true {length}", figures)

    averaged = (  # the mean of the weights in place of a learning rate that falls
        "--model.optimizer torch.optim.AdamW --model.optimizer.lr 1e-3 --model.optimizer.weight_decay 0.1 "
        "--model.optimizer.fused true --model.lr_scheduler null "
        "--trainer.callbacks+ EMAWeightAveraging --trainer.callbacks.decay 0.999"
    )
    return {
        "gaussian": row("gaussian", 1, "1366.9"),
        "made": row(f"made {averaged}", 100, "1380.8"),
        "made_mog": row("made --model.components 10 --model.hidden '[1024]'", 10, "1038.5"),
        "realnvp_5": row("realnvp", 4, "1323.2"),
        "realnvp_10": row("realnvp --model.couplings 10", 4, "1370.7"),
        "maf_5": row("maf", 5, "1300.5"),
        "maf_10": row("maf --model.steps 10", 5, "1313.1"),
        "maf_mog_5": row("maf --model.components 10", 5, "1100.3"),
        "nice": row("nice", 10),
        "spline": row("spline", 5),
        "maf_5_fresh": Row("--config mnist/maf", note="20 epochs, with a new draw of the noise in each."),
        "nice_own": Row(
            "--config mnist/nice --model.preprocess UnitInterval --model.base StandardLogistic "
            "--trainer.max_epochs 1500",
            {PREPROCESSED.title: Published("-1980.50", _NICE)},
            "its own paper's way, to be set beside no other row: the density of pixels on [0, 1], a logistic base, "
            "1,500 epochs with a new draw of the noise in each.",
        ),
    }


def _energies() -> dict[str, Row]:
    flows = {f"planar_{k}": f"--model.flow.steps {k}" for k in (2, 8, 32)}
    flows["iaf"] = (
        "--model.flow InverseAutoregressive --model.flow.steps 4 --model.flow.hidden '[64]' "
        "--model.flow.transformer Affine"  # the paper's gate only contracts: 0.53 on U1 where this has 0.09
    )
    flows["spline"] = (
        "--model.flow InverseAutoregressive --model.flow.steps 2 --model.flow.hidden '[64]' "
        "--model.flow.transformer RationalQuadraticSpline --model.flow.transformer.bound 5"
    )
    return {
        f"u{u}_{name}": Row(f"--config energies/u{u}_planar {options}")
        for u in (1, 2, 3, 4)
        for name, options in flows.items()
    }


TABLES: dict[str, Table] = {
    "digits": Table(
        "Digits",
        "scikit-learn's digits, 8 × 8, 17 grey levels, 1,297 / 200 / 300 examples, measure `discrete-17`. Densities of "
        "real numbers bound P(x) by log (1/K) Σ p(x + u) over draws of the noise, VAEs by importance sampling.",
        5000,
        (0,),
        (BPD, NLL, ELBO),
        _digits(),
    ),
    "freyfaces": Table(
        "Frey Faces",
        "1,965 images of 28 × 20, 256 grey levels, split 1,565 / 200 / 200 by the seed, a categorical head over the "
        "levels. Flows have 4 steps, planar and radial ones 16, orthogonal Sylvester flows a bottleneck of 8; the "
        "published ones 16, and 32, from memory.",
        5000,
        (123, 321, 231),
        (BPD, ELBO_BPD),
        _freyfaces(),
    ),
    "mnist_mlp": Table(
        "MNIST, dynamically binarised, nets 784-200-200-50",
        "50,000 / 10,000 / 10,000 images, pixels drawn anew with their grey level's probability in every epoch, and "
        "once, with a fixed seed, for validation and test. Published are 3,280 epochs of batch 20 on 59,600 images.",
        5000,
        (0,),
        (NLL, ELBO),
        _mnist_mlp(),
    ),
    "mnist_conv": Table(
        "MNIST, dynamically binarised, convolutions",
        "50,000 / 10,000 / 10,000 images, pixels drawn anew with their grey level's probability in every epoch, and "
        "once, with a fixed seed, for validation and test; gated convolutions, 32 and 64 latents.",
        5000,
        (0,),
        (NLL, ELBO),
        _mnist_conv(),
    ),
    "mnist_continuous": Table(
        "MNIST, grey levels, MAF's protocol",
        "50,000 / 10,000 / 10,000 images, dequantised by one draw of uniform noise for each image, logit with "
        "α = 10⁻⁶. *Pre-processed* is minus the mean log-density of the logits, which the paper has with another sign; "
        "its ± are two standard errors, these one. `made` and RealNVP have two hidden layers of 1,024, as in the "
        "paper; MAFs and `made_mog` have one.",
        1,
        (0,),
        (PREPROCESSED, NLL, BPD),
        _mnist_continuous(),
    ),
    "energies": Table(
        "Energies of the plane",
        "KL(q ‖ p) to exp(−U)/Z, log Z by quadrature, from 100,000 samples of q. No figures were published.",
        1,
        (0,),
        (KL,),
        _energies(),
    ),
}
