"""The semi-supervised model M2 of Kingma et al. 2014: a class-conditional VAE with a classifier q(y|x).

    p(x, y, z) = p(y) p(z) p(x|z, y),   q(y, z|x) = q(y|x) q(z|x, y),   p(y) uniform

    −L(x, y) = E_q(z|x,y)[log p(x|z, y)] + log p(y) − KL(q(z|x, y), p(z)) ≤ log p(x, y)          (eq. 6)
    −U(x) = Σ_y q(y|x) (−L(x, y)) + H(q(y|x)) ≤ log p(x)                                      (eq. 7)

The sum over y is exact: every label is decoded.
"""

from __future__ import annotations

__all__ = ["M2"]

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import log_softmax

from latentia.distributions.conditional import at_least_float32
from latentia.distributions.standardization import EncoderInput
from latentia.models.conditional_vae import ConditionalVAE
from latentia.networks.conditioning import encode_each_class


class M2(ConditionalVAE):
    """A class-conditional VAE and a classifier.

    Args:
        classifier: x (B, *shape) → logits (B, classes).
        **parts: as for `ConditionalVAE`.
    """

    def __init__(self, *, classifier: nn.Module, **parts: Any):
        super().__init__(**parts)
        self.classifier = classifier

    def log_classify(self, x: Tensor) -> Tensor:
        """log q(y|x), (B, K)."""
        return log_softmax(at_least_float32(self.classifier(x)), 1)

    @torch.no_grad()
    def classify(self, x: Tensor) -> Tensor:
        """The most probable label of each x under q(y|x), int64 (B,)."""
        return self.log_classify(x).argmax(1)

    def encode_each(self, x: Tensor) -> Distribution:
        """q(z|x, y) for every label y: a distribution with batch shape (K, B)."""
        network = self.posterior.network
        if isinstance(network, EncoderInput):
            numbers = encode_each_class(network.network, network.prepared(x), self.classes)
        else:
            numbers = encode_each_class(network, x, self.classes)
        return self.posterior.distribution(at_least_float32(numbers))

    def joint_bounds(self, x: Tensor) -> Tensor:
        """−L(x, y) for every label y, (K, B), in nats, with one draw of z; gradients reach all networks."""
        q = self.encode_each(x)
        z = q.rsample()
        labels = torch.arange(self.classes, device=x.device).repeat_interleave(len(x))
        rate = self._rate(q, z)
        return self.given(labels).decode(z).log_prob(x) + self.log_frequencies[:, None] - rate

    def joint_bound(self, x: Tensor, labels: Tensor) -> Tensor:
        """−L(x, y) of examples with labels, (B,)."""
        view = self.given(labels)
        q = view.encode(x)
        z = q.rsample()
        return view.decode(z).log_prob(x) + self.log_frequencies[labels] - self._rate(q, z)

    def marginal_bound(self, x: Tensor) -> Tensor:
        """−U(x), (B,), a lower bound of log p(x) in nats, in expectation."""
        log_q = self.log_classify(x).T
        return (log_q.exp() * (self.joint_bounds(x) - log_q)).sum(0)

    def _rate(self, q: Distribution, z: Tensor) -> Tensor:
        try:
            return torch.distributions.kl_divergence(q, self.prior)
        except NotImplementedError:  # a prior without a closed form, such as a mixture
            return q.log_prob(z) - self.prior.log_prob(z)
