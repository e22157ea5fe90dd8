"""The works that are timed, each with the contenders that do it and the goal for ours."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import vaeflow
import vaeflow.bijections as B
from vaeflow.benchmark import floors, peers
from vaeflow.benchmark.peers import AutoEncoder, Flow
from vaeflow.benchmark.timing import failure
from vaeflow.data import MNIST
from vaeflow.distributions import FlowDensity
from vaeflow.distributions.heads import Bernoulli
from vaeflow.errors import VaeflowError
from vaeflow.evaluation.log_likelihood import log_likelihood
from vaeflow.models import VAE
from vaeflow.nets import MLPDecoder, MLPEncoder
from vaeflow.noise import Noise

OURS, FLOOR = "vaeflow", "floor"
FUSED, COMPILED = " (fused Adam)", " (compiled)"


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
        errors: of the round trip of each contender, where it makes one.
        items: how many things one turn makes, such as samples, where a rate is of interest.
    """

    case: str
    name: str
    contenders: dict[str, Callable[[], object]]
    goals: Sequence[Goal] = ()
    failed: dict[str, str] = field(default_factory=dict)
    errors: Callable[[], dict[str, float]] = dict
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


def _without_gradient(run: Callable[[], object]) -> Callable[[], object]:
    return torch.no_grad()(run)


def flow_works(
    case: str,
    makers: dict[str, Callable[[], Flow]],
    features: int,
    batch: int,
    device: torch.device,
    goals: Mapping[str, Sequence[Goal]],
    compiled: bool = False,
) -> Iterator[Work]:
    """log_prob, training step and sampling of flows; ours by torch.compile, too, where its nets are no masked ones."""
    flows, failed = build(makers)
    for flow in flows.values():
        flow.module.to(device)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, features, generator=generator).to(device)
    z = torch.randn(batch, features, generator=generator).to(device)

    def round_trips() -> dict[str, float]:
        with torch.no_grad():
            return {
                name: (flow.to_noise(flow.to_data(z)) - z).abs().max().item()
                for name, flow in flows.items()
                if flow.to_data is not None and flow.to_noise is not None
            }

    densities = {name: functools.partial(flow.log_prob, x) for name, flow in flows.items()}
    if compiled:
        densities[OURS + COMPILED] = functools.partial(torch.compile(flows[OURS].log_prob), x)
    yield Work(
        case,
        "log_prob",
        {name: _without_gradient(run) for name, run in densities.items()},
        goals.get("log_prob", ()),
        failed,
        items=batch,
    )
    steps = {name: training_step(flow.module, functools.partial(_mean_nll, flow, x)) for name, flow in flows.items()}
    fused = {
        name + FUSED: training_step(flow.module, functools.partial(_mean_nll, flow, x), True)
        for name, flow in flows.items()
        if name in (OURS, FLOOR)
    }
    if compiled:
        losses = torch.compile(lambda: -flows[OURS].log_prob(x).mean())
        fused[OURS + COMPILED + FUSED] = training_step(flows[OURS].module, losses, True)
    yield Work(case, "train step", steps | fused, goals.get("train step", ()), failed, items=batch)
    samplers = {name: functools.partial(f.to_data, z) for name, f in flows.items() if f.to_data is not None}
    if compiled and flows[OURS].to_data is not None:
        samplers[OURS + COMPILED] = functools.partial(torch.compile(flows[OURS].to_data), z)
    yield Work(
        case,
        "sampling",
        {name: _without_gradient(run) for name, run in samplers.items()},
        goals.get("sampling", ()),
        failed,
        round_trips,
        items=batch,
    )


def _mean_nll(flow: Flow, x: Tensor) -> Tensor:
    return -flow.log_prob(x).mean()


def _density(flow: Any, features: int) -> Flow:
    density = FlowDensity(features, 0, flow)
    return Flow(density, density.log_prob, density.decode, density.encode)


def maf(features: int, hidden: Sequence[int], device: torch.device, batch: int = 128, steps: int = 5) -> Iterator[Work]:
    """Masked autoregressive flows; the floor of its sampling is one pass of the dense nets, too."""

    def floor() -> Flow:
        nets = floors.DenseAutoregressive(features, steps, hidden)

        def log_prob(x: Tensor) -> Tensor:
            z, log_det = nets(x)
            return floors.log_normal(z) + log_det

        return Flow(nets, log_prob, lambda z: nets(z)[0])

    def ours() -> Flow:
        return _density(lambda d, c: B.MaskedAutoregressive(d, c, steps=steps, hidden=hidden), features)

    makers = {OURS: ours, FLOOR: floor}
    makers |= {name: functools.partial(make, features, steps, hidden) for name, make in peers.MAF.items()}
    goals = {"sampling": [Goal(OURS, FLOOR, 1.0)]}
    if features == 784:
        goals |= {
            "log_prob": [Goal(OURS, FLOOR, 0.9)],
            "train step": [Goal(OURS, FLOOR, 0.85), Goal(OURS + FUSED, FLOOR + FUSED, 0.85)],
        }
    sizes = "×".join(map(str, hidden))
    yield from flow_works(
        f"MAF, D = {features}, K = {steps}, hidden {sizes}, batch {batch}", makers, features, batch, device, goals
    )


def couplings(
    name: str, features: int, steps: int, hidden: Sequence[int], batch: int, affine: bool, device: torch.device
) -> Iterator[Work]:
    """RealNVP or NICE."""
    transformer = B.Affine if affine else B.Additive

    def floor() -> Flow:
        nets = floors.DenseCouplings(features, steps, hidden, affine)

        def log_prob(x: Tensor) -> Tensor:
            z, log_det = nets.to_noise(x)
            return floors.log_normal(z) + log_det

        return Flow(nets, log_prob, nets.to_data, lambda x: nets.to_noise(x)[0])

    def ours() -> Flow:
        def make(d: int, c: int) -> B.Bijection:
            return B.Composition(B.Coupling(d, c, transformer, hidden=hidden, swap=k % 2 == 1) for k in range(steps))

        return _density(make, features)

    makers = {OURS: ours, FLOOR: floor}
    makers |= {
        peer: functools.partial(make, features, steps, hidden, affine)
        for peer, make in peers.COUPLING.items()
        if affine or peer != "pyro"
    }
    goal = [Goal(OURS, FLOOR, 1.05), Goal(OURS + COMPILED, FLOOR, 1.05)]
    training = [Goal(OURS, FLOOR, 1.05), Goal(OURS + COMPILED + FUSED, FLOOR + FUSED, 1.05)]
    training += [] if affine else [Goal(OURS + FUSED, "best peer", 1 / 1.4)]
    goals = {"log_prob": goal, "train step": training, "sampling": goal}
    sizes = f"{len(hidden)}×{hidden[0]}"
    yield from flow_works(
        f"{name}, D = {features}, K = {steps}, MLP {sizes}, batch {batch}", makers, features, batch, device, goals, True
    )


def planar(device: torch.device, features: int = 40, steps: int = 16, batch: int = 256) -> Iterator[Work]:
    """Planar flows without a context."""
    makers: dict[str, Callable[[], nn.Module]] = {
        OURS: lambda: B.Planar(features, steps=steps),
        FLOOR: lambda: floors.GramPlanar(features, steps),
    }
    makers |= {name: functools.partial(make, features, steps) for name, make in peers.PLANAR.items()}
    flows, failed = build(makers)
    for flow in flows.values():
        flow.to(device)
    z = torch.randn(batch, features, generator=torch.Generator().manual_seed(1)).to(device)

    def both(flow: nn.Module) -> None:
        flow.zero_grad()
        x, log_det = flow(z)
        (x.square().sum() - log_det.sum()).backward()

    case = f"planar, D = {features}, K = {steps}, batch {batch}"
    goal = [Goal(OURS, FLOOR, 1.2)]
    forward = {name: _without_gradient(functools.partial(flow, z)) for name, flow in flows.items()}
    yield Work(case, "forward", forward, goal, failed, items=batch)
    yield Work(
        case,
        "forward and backward",
        {n: functools.partial(both, f) for n, f in flows.items()},
        goal,
        failed,
        items=batch,
    )


class WithoutContext(B.InverseAutoregressive):
    """An IAF that leaves out the encoder's features, as those of the other libraries do."""

    def __init__(self, features: int, context_features: int, steps: int, hidden: Sequence[int]) -> None:
        super().__init__(features, 0, steps, hidden, activation="relu")

    def condition(self, context: Any) -> Any:
        return super().condition(None if isinstance(context, Tensor) else context)


def vae_model(
    pixels: int = 784, hidden: Sequence[int] = (200, 200), latent: int = 50, steps: int = 4, width: int = 320
) -> VAE:
    """A VAE of binary vectors with an IAF."""
    return VAE(
        shape=(pixels,),
        levels=2,
        latent_features=latent,
        encoder=functools.partial(MLPEncoder, hidden=list(hidden), activation="tanh"),
        decoder=functools.partial(MLPDecoder, hidden=list(hidden), activation="tanh"),
        flow=functools.partial(WithoutContext, steps=steps, hidden=[width]),
        likelihood=Bernoulli,
    )


def vae(device: torch.device, batch: int = 128) -> Iterator[Work]:
    """A VAE with an IAF: a step of training, and an importance-sampled likelihood."""
    pixels, hidden, latent, steps, width = sizes = (784, (200, 200), 50, 4, 320)

    def ours() -> AutoEncoder:
        model = vae_model(*sizes)

        def loss(x: Tensor) -> Tensor:
            noise = Noise(0, "train", 0, torch.arange(len(x), device=x.device))
            return model.losses(x, noise, None)[0]

        def estimate(x: Tensor, num_samples: int) -> Tensor:
            noise = Noise(0, "test", 0, torch.arange(len(x), device=x.device))
            return log_likelihood(model, x, noise, num_samples, rows=ROWS).log_likelihood

        return AutoEncoder(model, loss, estimate)

    def floor() -> AutoEncoder:
        nets = floors.DenseVAE(*sizes)
        return AutoEncoder(
            nets, lambda x: -nets.log_weights(x, 1, 0).mean(), lambda x, n: nets.log_weights(x, n, ROWS).logsumexp(0)
        )

    makers: dict[str, Callable[[], AutoEncoder]] = {OURS: ours, FLOOR: floor}
    makers |= {name: functools.partial(make, *sizes) for name, make in peers.VAE.items()}
    models, failed = build(makers)
    for model in models.values():
        model.module.to(device)
    x = torch.rand(batch, pixels, generator=torch.Generator().manual_seed(1)).round().to(device)
    case = f"VAE + IAF, {pixels}-{'-'.join(map(str, hidden))}-{latent}, K = {steps}, hidden {width}"
    train = {n: training_step(m.module, functools.partial(m.loss, x)) for n, m in models.items()}
    fused = {
        n + FUSED: training_step(models[n].module, functools.partial(models[n].loss, x), True) for n in (OURS, FLOOR)
    }
    losses = torch.compile(models[OURS].loss)
    fused[OURS + COMPILED + FUSED] = training_step(models[OURS].module, functools.partial(losses, x), True)
    goals = [Goal(who, "best peer", 1 / 1.3) for who in (OURS, OURS + FUSED, OURS + COMPILED + FUSED)]
    yield Work(f"{case}, batch {batch}", "train step", train | fused, goals, failed, items=batch)

    examples, samples = x[:100], 500
    decoder = models[FLOOR].module
    draws = torch.randn(ROWS // len(examples), len(examples), latent).to(device)

    def decoder_alone() -> None:
        for _ in range(samples * len(examples) // ROWS):
            decoder.log_likelihood(examples, draws)

    estimate: dict[str, Callable[[], object]]
    estimate = {n: functools.partial(m.log_likelihood, examples, samples) for n, m in models.items()}
    estimate["decoder + likelihood"] = decoder_alone
    yield Work(
        f"{case}, {len(examples)} examples × {samples} samples",
        "importance sampling",
        {name: _without_gradient(run) for name, run in estimate.items()},
        [Goal(OURS, "decoder + likelihood", 1 / 0.65)],
        failed,
        items=len(examples) * samples,
    )


def data(device: torch.device, batch: int = 128) -> Iterator[Work]:
    """An epoch of MNIST through the data module, beside one of the smallest of the models that are trained on it."""
    mnist = MNIST(batch_size=batch)
    try:
        mnist.setup("fit")
    except VaeflowError as error:
        yield Work("MNIST", "an epoch", {}, failed={OURS: str(error)})
        return
    torch.manual_seed(0)
    shape = mnist.shape
    model = VAE(shape=shape, levels=2, latent_features=2).to(device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    x, _ = mnist.splits["train"]
    order = torch.randperm(len(x)).split(batch)

    def epoch() -> Iterator[tuple[Tensor, Noise]]:
        for part in mnist.train_dataloader():
            x, y, index = (value.to(device) for value in part)
            x, y, index = mnist.on_after_batch_transfer((x, y, index), 0)
            yield x, Noise(0, "train", 0, index)

    def through_module() -> None:
        for _ in epoch():
            pass

    def copy() -> None:
        for index in order:
            x[index].to(device).float()

    def with_model() -> None:
        for x, noise in epoch():
            optimizer.zero_grad()
            model.losses(x, noise, None)[0].backward()
            optimizer.step()

    contenders: dict[str, Callable[[], object]]
    contenders = {OURS: through_module, "memory copy": copy, "VAE with 2 latents, trained": with_model}
    goals = [Goal(OURS, "VAE with 2 latents, trained", 0.05)]
    yield Work(f"MNIST, binarised anew, batch {batch}", "an epoch of data", contenders, goals, items=len(x))


def start_up(device: torch.device) -> Iterator[Work]:
    """From the command line to the help text, and to the end of the first training step."""
    script = Path(vaeflow.__file__).parent.parent / "scripts" / "train.py"

    def run(*arguments: str) -> Callable[[], object]:
        command = [sys.executable, *arguments]

        def start() -> None:
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run(command, check=True, capture_output=True, cwd=folder)

        return start

    step = ["--config", "vae", "--trainer.max_steps", "1", "--num_samples", "0", "--trainer.accelerator", device.type]
    contenders = {
        "train.py --help": run(str(script), "--help"),
        "train.py, first step": run(str(script), *step),
        IMPORT: run("-c", "import pytorch_lightning.cli"),
    }
    goals = [Goal("train.py --help", IMPORT, 0.7, True), Goal("train.py, first step", IMPORT, 3.0, True)]
    yield Work("start-up", "a process", contenders, goals)


IMPORT = "import pytorch_lightning.cli"
ROWS = 5000
"""Pairs of an example and a sample in one chunk of an estimate."""

CASES: dict[str, Callable[[torch.device], Iterator[Work]]] = {
    "maf64": lambda device: maf(64, [512, 512], device),
    "maf784": lambda device: maf(784, [1024], device),
    "realnvp": lambda device: couplings("RealNVP", 64, 8, [256, 256], 256, True, device),
    "nice": lambda device: couplings("NICE", 784, 4, [1000] * 5, 128, False, device),
    "planar": planar,
    "vae": vae,
    "data": data,
    "startup": start_up,
}
