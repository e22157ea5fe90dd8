"""A VAE with two levels of latents: p(x, z₁, z₂) = p(x|z₁) p(z₁|z₂) p(z₂), q(z₂|x) q(z₁|x, z₂)."""

import torch

from vaeflow.distributions import DiagonalGaussian, Factorised, StandardNormal
from vaeflow.distributions.heads import likelihood_for
from vaeflow.estimate import Group, Terms
from vaeflow.models import LatentVariableModel
from vaeflow.nets import MLPDecoder, MLPEncoder


class TwoLevelVAE(LatentVariableModel):
    """Both posteriors and p(z₁|z₂) are Gaussians."""

    def __init__(self, lower: int = 16, upper: int = 8, hidden: int = 200, **shared) -> None:
        super().__init__(**shared)
        self.encoder = MLPEncoder(self.shape, hidden=[hidden, hidden])
        self.q_upper, self.p_upper = DiagonalGaussian(upper, hidden), StandardNormal(upper)
        self.q_lower, self.p_lower = DiagonalGaussian(lower, hidden + upper), DiagonalGaussian(lower, upper)
        head = likelihood_for(self.levels)(self.shape, self.levels)
        self.observation = Factorised(MLPDecoder(lower, head.decoder_shape, [hidden, hidden]), head, lower)
        self.declare_groups({"upper": (upper,), "lower": (lower,)})

    def infer(self, x, context):
        return x, self.encoder(x / (self.levels - 1) - 0.5)

    def terms(self, inferred, noise, num_samples):
        x, h = inferred
        upper, log_q_upper = self.q_upper.rsample_with_log_prob(num_samples, h, noise.within("upper"))
        given = torch.cat([h.expand(num_samples, -1, -1), upper], dim=-1)
        lower, log_q_lower = self.q_lower.rsample_with_log_prob(num_samples, given, noise.within("lower"))
        log_p_lower = self.p_lower.log_prob(lower, upper)
        groups = {
            "upper": Group(upper, log_q_upper, self.p_upper.log_prob(upper)),
            "lower": Group(lower, log_q_lower, log_p_lower),
        }
        return Terms(self.observation.log_prob(x, lower), groups)

    def generate(self, noise, context, given, temperature=1.0, mean=False):
        upper = given.get("upper", self.p_upper.sample(1, None, noise.within("upper"), temperature)[0])
        lower = given.get("lower", self.p_lower.sample(1, upper, noise.within("lower"), temperature)[0])
        return self.observation.mean(lower) if mean else self.observation.sample(1, lower, noise)[0]
