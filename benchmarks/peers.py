"""The same models in other libraries, each with its own scale function and its own permutation.

Where a library's own parts make another architecture, they are changed to make it equal: it is said beside each. A
library is imported when its contender is built, so that one that is missing or broken is reported and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.floors import log_normal, mlp
from benchmarks.work import ROWS


@dataclass
class Flow:
    """A flow to be timed.

    Args:
        module: holds the parameters.
        log_prob: x ``(batch, D)`` → ``(batch,)``.
        to_data: z → x, where there is one.
        to_noise: x → z, with which ``to_data`` makes a round trip.
    """

    module: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    to_data: Callable[[Tensor], Tensor] | None = None
    to_noise: Callable[[Tensor], Tensor] | None = None


# -------------------------------------------------------------------------------------------------------------- MAF


def _nflows_maf(features: int, steps: int, hidden: Sequence[int]) -> Flow:
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow as NFlow
    from nflows.transforms import CompositeTransform, MaskedAffineAutoregressiveTransform, ReversePermutation

    parts: list[Any] = []
    for _ in range(steps):
        parts += [
            MaskedAffineAutoregressiveTransform(
                features, hidden[0], num_blocks=len(hidden) - 1, use_residual_blocks=False
            ),
            ReversePermutation(features),
        ]
    flow = NFlow(CompositeTransform(parts), StandardNormal([features]))
    return Flow(flow, flow.log_prob, lambda z: flow._transform.inverse(z)[0], lambda x: flow._transform(x)[0])


def _normflows_maf(features: int, steps: int, hidden: Sequence[int]) -> Flow:
    """A ReLU is added behind the first masked layer, which has none, and a reversal between steps."""
    import normflows
    from normflows.distributions import DiagGaussian
    from normflows.flows import MaskedAffineAutoregressive, Permute

    flows: list[Any] = []
    for _ in range(steps):
        step = MaskedAffineAutoregressive(features, hidden[0], num_blocks=len(hidden) - 1, use_residual_blocks=False)
        net = step.autoregressive_net
        net.initial_layer = nn.Sequential(net.initial_layer, nn.ReLU())
        reversal = Permute(features, mode="swap")
        flows += [_Turned(step), reversal]
    flow = normflows.NormalizingFlow(DiagGaussian(features, trainable=False), flows)
    return Flow(flow, flow.log_prob, flow, flow.inverse)


class _Turned(nn.Module):
    """A normflows map whose fast direction normalises."""

    def __init__(self, flow: Any) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, z: Tensor) -> Any:
        return self.flow.inverse(z)

    def inverse(self, x: Tensor) -> Any:
        return self.flow(x)


def _zuko_maf(features: int, steps: int, hidden: Sequence[int]) -> Flow:
    import zuko

    flow = zuko.flows.MAF(features, transforms=steps, hidden_features=hidden)
    return Flow(flow, lambda x: flow().log_prob(x), lambda z: flow().transform.inv(z), lambda x: flow().transform(x))


def _pyro_flow(modules: Any, between: Callable[[Tensor], Tensor]) -> Flow:
    """Transforms that normalise, each followed by a permutation that is its own inverse. Their caches are cleared: with
    them they would return what they computed in the turn before."""

    def to_noise(x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(())
        for module in modules:
            module.clear_cache()
            y = module(x)
            log_det = log_det + module.log_abs_det_jacobian(x, y)
            x = between(y)
        return x, log_det

    def to_data(z: Tensor) -> Tensor:
        for module in reversed(modules):
            module.clear_cache()
            z = module.inv(between(z))
        return z

    def log_prob(x: Tensor) -> Tensor:
        z, log_det = to_noise(x)
        return log_normal(z) + log_det

    return Flow(modules, log_prob, to_data, lambda x: to_noise(x)[0])


def _pyro_maf(features: int, steps: int, hidden: Sequence[int]) -> Flow:
    """Its autoregressive transforms generate fast: here they are turned round."""
    from pyro.distributions.transforms import AffineAutoregressive
    from pyro.nn import AutoRegressiveNN

    order: Any = torch.arange(features)
    modules: Any = nn.ModuleList(
        AffineAutoregressive(
            AutoRegressiveNN(features, list(hidden), permutation=order if k % 2 == 0 else order.flip(0))
        )
        for k in range(steps)
    )
    return _pyro_flow(modules, lambda x: x)


def _pythae_maf(features: int, steps: int, hidden: Sequence[int]) -> Flow:
    from pythae.models.normalizing_flows import MAF, MAFConfig

    flow = MAF(
        MAFConfig(
            input_dim=(features,),
            n_made_blocks=steps,
            n_hidden_in_made=len(hidden),
            hidden_size=hidden[0],
            include_batch_norm=False,
        )
    )

    def log_prob(x: Tensor) -> Tensor:
        out = flow(x)
        return log_normal(out.out) + out.log_abs_det_jac

    return Flow(flow, log_prob, lambda z: flow.inverse(z).out, lambda x: flow(x).out)


MAF = {"nflows": _nflows_maf, "normflows": _normflows_maf, "zuko": _zuko_maf, "pyro": _pyro_maf, "pythae": _pythae_maf}


# -------------------------------------------------------------------------------------------------------- couplings


def _nflows_coupling(features: int, steps: int, hidden: Sequence[int], affine: bool) -> Flow:
    """Its nets take a context as well: here they leave it out."""
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow as NFlow
    from nflows.transforms import AdditiveCouplingTransform, AffineCouplingTransform, CompositeTransform

    class Net(nn.Sequential):
        def forward(self, x: Tensor, context: Any = None) -> Tensor:
            return super().forward(x)

    make = AffineCouplingTransform if affine else AdditiveCouplingTransform
    parts = [make(torch.arange(features) % 2 == k % 2, lambda a, b: Net(*mlp([a, *hidden, b]))) for k in range(steps)]
    flow = NFlow(CompositeTransform(parts), StandardNormal([features]))
    return Flow(flow, flow.log_prob, lambda z: flow._transform.inverse(z)[0], lambda x: flow._transform(x)[0])


def _normflows_coupling(features: int, steps: int, hidden: Sequence[int], affine: bool) -> Flow:
    import normflows
    from normflows.distributions import DiagGaussian
    from normflows.flows import AffineCouplingBlock, Permute

    half = features // 2
    flows: list[Any] = []
    for _ in range(steps):
        net = mlp([half, *hidden, (2 if affine else 1) * half])
        flows += [AffineCouplingBlock(net, scale=affine), Permute(features, mode="swap")]
    flow = normflows.NormalizingFlow(DiagGaussian(features, trainable=False), flows)
    return Flow(flow, flow.log_prob, flow, flow.inverse)


def _zuko_coupling(features: int, steps: int, hidden: Sequence[int], affine: bool) -> Flow:
    import zuko

    univariate = {} if affine else {"univariate": zuko.transforms.AdditiveTransform, "shapes": [()]}
    flow = zuko.flows.NICE(features, transforms=steps, hidden_features=hidden, **univariate)
    return Flow(flow, lambda x: flow().log_prob(x), lambda z: flow().transform.inv(z), lambda x: flow().transform(x))


def _pyro_coupling(features: int, steps: int, hidden: Sequence[int], affine: bool) -> Flow:
    """It always keeps the first half: the features are turned round between steps."""
    from pyro.distributions.transforms import affine_coupling

    assert affine, "it has no additive couplings"
    modules: Any = nn.ModuleList(affine_coupling(features, list(hidden)) for _ in range(steps))
    return _pyro_flow(modules, lambda x: x.flip(-1))


def _freia_coupling(features: int, steps: int, hidden: Sequence[int], affine: bool) -> Flow:
    """A block of it maps both halves: half as many blocks."""
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import GLOWCouplingBlock, NICECouplingBlock

    flow = SequenceINN(features)
    for _ in range(steps // 2):
        block = GLOWCouplingBlock if affine else NICECouplingBlock
        flow.append(block, subnet_constructor=lambda a, b: mlp([a, *hidden, b]))

    def log_prob(x: Tensor) -> Tensor:
        z, log_det = flow(x)
        return log_normal(z) + log_det

    return Flow(flow, log_prob, lambda z: flow(z, rev=True)[0], lambda x: flow(x)[0])


COUPLING = {
    "nflows": _nflows_coupling,
    "normflows": _normflows_coupling,
    "zuko": _zuko_coupling,
    "pyro": _pyro_coupling,
    "FrEIA": _freia_coupling,
}

# ----------------------------------------------------------------------------------------------------------- planar


def _normflows_planar(features: int, steps: int) -> nn.Module:
    from normflows.flows import Planar

    return _Chain([Planar((features,)) for _ in range(steps)])


def _pythae_planar(features: int, steps: int) -> nn.Module:
    from pythae.models.normalizing_flows import PlanarFlow, PlanarFlowConfig

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flow = PlanarFlow(PlanarFlowConfig(input_dim=(features,)))

        def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
            out = self.flow(z)
            return out.out, out.log_abs_det_jac

    return _Chain([Step() for _ in range(steps)])


def _pyro_planar(features: int, steps: int) -> nn.Module:
    from pyro.distributions.transforms import Planar

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flow: Any = Planar(features)

        def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
            self.flow.clear_cache()
            x = self.flow(z)
            return x, self.flow.log_abs_det_jacobian(z, x)

    return _Chain([Step() for _ in range(steps)])


class _Chain(nn.Module):
    """Maps after each other, their log-determinants added up."""

    def __init__(self, steps: Sequence[nn.Module]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(())
        for step in self.steps:
            z, log_det = step(z)
            total = total + log_det
        return z, total


PLANAR = {"normflows": _normflows_planar, "pyro": _pyro_planar, "pythae": _pythae_planar}

# -------------------------------------------------------------------------------------------------------------- VAE


@dataclass
class AutoEncoder:
    """A VAE with an IAF to be timed.

    Args:
        module: holds the parameters.
        loss: x ``(batch, pixels)`` in {0, 1} → a scalar.
        log_likelihood: x, number of samples → ``(batch,)``, in as many rows at once as suit it.
    """

    module: nn.Module
    loss: Callable[[Tensor], Tensor]
    log_likelihood: Callable[[Tensor, int], Tensor]


def _pythae_vae(pixels: int, hidden: Sequence[int], latent: int, steps: int, width: int) -> AutoEncoder:
    from pythae.models import VAE_IAF, VAE_IAF_Config
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(mlp([pixels, *hidden], nn.Tanh), nn.Tanh())
            self.mean, self.log_variance = nn.Linear(hidden[-1], latent), nn.Linear(hidden[-1], latent)

        def forward(self, x: Tensor) -> Any:
            h = self.body(x.flatten(1))
            return ModelOutput(embedding=self.mean(h), log_covariance=self.log_variance(h))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp([latent, *hidden[::-1], pixels], nn.Tanh)

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=torch.sigmoid(self.body(z)))

    config = VAE_IAF_Config(
        input_dim=(pixels,),
        latent_dim=latent,
        n_made_blocks=steps,
        n_hidden_in_made=1,
        hidden_size=width,
        reconstruction_loss="bce",
    )
    model = VAE_IAF(config, Encoder(), Decoder())

    def log_likelihood(x: Tensor, num_samples: int) -> Tensor:
        with torch.no_grad():
            return torch.as_tensor(model.get_nll(x, n_samples=num_samples, batch_size=num_samples))

    return AutoEncoder(model, lambda x: model({"data": x}).loss, log_likelihood)


def _normflows_vae(pixels: int, hidden: Sequence[int], latent: int, steps: int, width: int) -> AutoEncoder:
    """Its MAF turned round is the IAF; the sign of the bound is this script's."""
    import normflows
    from normflows.distributions import DiagGaussian, NNDiagGaussian
    from normflows.distributions.decoder import NNBernoulliDecoder
    from normflows.flows import MaskedAffineAutoregressive, Permute

    encoder = nn.Sequential(mlp([pixels, *hidden], nn.Tanh), nn.Tanh(), nn.Linear(hidden[-1], 2 * latent))
    flows: list[Any] = []
    for _ in range(steps):
        step = MaskedAffineAutoregressive(latent, width, num_blocks=0, use_residual_blocks=False, activation=F.relu)
        step.autoregressive_net.initial_layer = nn.Sequential(step.autoregressive_net.initial_layer, nn.ReLU())
        flows += [step, Permute(latent, mode="swap")]
    model = normflows.NormalizingFlowVAE(
        DiagGaussian(latent, trainable=False),
        NNDiagGaussian(encoder),
        flows,
        NNBernoulliDecoder(mlp([latent, *hidden[::-1], pixels], nn.Tanh)),
    )

    def loss(x: Tensor) -> Tensor:
        _, log_q, log_p = model(x, 1)
        return (log_q - log_p).mean()

    def log_likelihood(x: Tensor, num_samples: int) -> Tensor:
        with torch.no_grad():
            _, log_q, log_p = model(x, num_samples)
        return torch.logsumexp(log_p - log_q, 1)

    def in_chunks(x: Tensor, num_samples: int) -> Tensor:
        return torch.cat([log_likelihood(part, num_samples) for part in x.split(max(1, ROWS // num_samples))])

    return AutoEncoder(model, loss, in_chunks)


VAE = {"normflows": _normflows_vae, "pythae": _pythae_vae}
