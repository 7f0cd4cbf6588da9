"""Networks: tensors to tensors, no probability; any image from 8×8 to 128×128 and beyond, any number of channels."""

from __future__ import annotations

__all__ = [
    "DCGAN",
    "MLP",
    "R3GAN",
    "Activation",
    "BatchNorm",
    "Conv",
    "Custom",
    "Fourier",
    "LabeledDecoder",
    "Network",
    "ProjectionEncoder",
    "Residual",
    "ResidualMLP",
    "activation",
    "count_parameters",
]

from latentia.networks.conditioning import LabeledDecoder, ProjectionEncoder
from latentia.networks.conv import Conv
from latentia.networks.custom import Custom
from latentia.networks.dcgan import DCGAN, BatchNorm
from latentia.networks.fourier import Fourier
from latentia.networks.layers import Activation, activation
from latentia.networks.mlp import MLP
from latentia.networks.network import Network, count_parameters
from latentia.networks.r3gan import R3GAN
from latentia.networks.residual import Residual
from latentia.networks.residual_mlp import ResidualMLP
