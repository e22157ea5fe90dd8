"""Flows: densities, training steps and samples of MAF, RealNVP and NICE, and planar flows in both directions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import vaeflow.bijections as B
from benchmarks import floors, peers
from benchmarks.peers import Flow
from benchmarks.work import COMPILED, FLOOR, FUSED, OURS, Goal, Work, build, training_step, without_gradient
from vaeflow.distributions import FlowDensity


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

    @torch.no_grad()
    def round_trip(flow: Flow) -> float:
        assert flow.to_noise is not None
        assert flow.to_data is not None
        return (flow.to_noise(flow.to_data(z)) - z).abs().max().item()

    densities = {name: functools.partial(flow.log_prob, x) for name, flow in flows.items()}
    if compiled:
        densities[OURS + COMPILED] = functools.partial(torch.compile(flows[OURS].log_prob), x)
    yield Work(
        case,
        "log_prob",
        {name: without_gradient(run) for name, run in densities.items()},
        goals.get("log_prob", ()),
        failed,
        items=batch,
    )
    steps = {name: training_step(flow.module, functools.partial(_mean_nll, flow, x)) for name, flow in flows.items()}
    fused = {
        name + FUSED: training_step(flow.module, functools.partial(_mean_nll, flow, x), True)
        for name, flow in flows.items()
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
        {name: without_gradient(run) for name, run in samplers.items()},
        goals.get("sampling", ()),
        failed,
        {name: functools.partial(round_trip, flow) for name, flow in flows.items() if flow.to_noise is not None},
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
    forward = {name: without_gradient(functools.partial(flow, z)) for name, flow in flows.items()}
    yield Work(case, "forward", forward, goal, failed, items=batch)
    yield Work(
        case,
        "forward and backward",
        {n: functools.partial(both, f) for n, f in flows.items()},
        goal,
        failed,
        items=batch,
    )
