"""Networks: tensors to tensors, without probability; images from 8×8 up, with any number of channels."""

from __future__ import annotations

from latentia.networks.conv import Conv
from latentia.networks.custom import Custom
from latentia.networks.dcgan import DCGAN
from latentia.networks.mlp import MLP, Fourier, ResidualMLP
from latentia.networks.network import Network
from latentia.networks.r3gan import R3GAN
from latentia.networks.residual import Residual

__all__ = [
    "DCGAN",
    "MLP",
    "R3GAN",
    "Conv",
    "Custom",
    "Fourier",
    "Network",
    "Residual",
    "ResidualMLP",
]
