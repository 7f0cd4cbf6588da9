"""The objective of the semi-supervised model M2 (Kingma et al. 2014, eq. 9)."""

from __future__ import annotations

__all__ = ["m2_terms"]

import torch
from torch import Tensor

from latentia.distributions.conditional import distributions_in_float32
from latentia.models import M2
from latentia.objectives.objective import Terms

MISSING = -1  # the label of an example that has none


def m2_terms(model: M2, x: Tensor, labels: Tensor, alpha: float, labeled_share: float) -> Terms:
    """The terms of a batch of U examples without labels, which come first, and of B − U with labels.

    The mean of the cost is

        mean over unlabeled of U(x) + share · mean over labeled of L(x, y) − α · mean over labeled of log q(y|x).

    This is eq. 9 divided by the number of training examples: `share` is the part of them that has labels, and the
    paper's α, 0.1 · N, is 0.1 here.

    Args:
        model: the model.
        x: (B, *shape).
        labels: (B,), −1 for the unlabeled ones.
        alpha: α.
        labeled_share: the weight of L.

    Returns:
        `cost`, and `bound` and `cross_entropy`, whose means and standard errors are those of −U over the unlabeled and
        of −log q(y|x) over the labeled examples; each (B,), in no order.
    """
    count = len(x) - int((labels != MISSING).sum())
    with distributions_in_float32(x.device):
        bound = model.marginal_bound(x[:count])
        own_x, own = x[count:], labels[count:]
        joint = model.joint_bound(own_x, own)
        cross_entropy = -model.log_classify(own_x).gather(1, own[:, None]).squeeze(1)
    labeled = _over_part(alpha * cross_entropy - labeled_share * joint, len(x))
    return {
        "cost": _over_part(-bound, len(x)) + labeled,
        "bound": _over_part(bound, len(x)).detach(),
        "cross_entropy": _over_part(cross_entropy, len(x)).detach(),
    }


def _over_part(values: Tensor, size: int) -> Tensor:
    """As many numbers as a batch has, with the mean of values of a part of it, and with its standard error."""
    mean = values.mean()
    widened = mean + (values - mean) * (size / len(values))
    return torch.cat([widened, mean.expand(size - len(values))])
