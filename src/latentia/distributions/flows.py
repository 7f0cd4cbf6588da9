"""zuko's flows, without a side effect of importing it: it switches off the validation of all of torch's distributions."""

from __future__ import annotations

__all__ = ["flows"]

from torch.distributions import Distribution

_validates = Distribution._validate_args
from zuko import flows  # noqa: E402  (between reading the setting and putting it back)

Distribution.set_default_validate_args(_validates)
