"""Data: sources of images, how they are split, binarized and drawn in batches, and toy distributions with known density."""

from latentia.data.batches import Batches, ShuffledBatches
from latentia.data.binarization import binarize_dynamic, binarize_static, require_binary, threshold, to_unit
from latentia.data.cifar import CIFAR10
from latentia.data.digits import Digits
from latentia.data.folder import Folder
from latentia.data.hugging_face import HuggingFace
from latentia.data.idx import read_idx
from latentia.data.image_files import read_image_folder
from latentia.data.image_grid import image_grid, write_image_grid
from latentia.data.mnist import KMNIST, MNIST, FashionMNIST
from latentia.data.npz import NPZ
from latentia.data.source import Parts, Source, find_folder
from latentia.data.split import Split, Splits
from latentia.data.stacked import StackedMNIST
from latentia.data.stream import ImageFiles, ImageRows, StreamedBatches, StreamedSplit
from latentia.data.toy_data import ToyData
from latentia.data.toy_distributions import (
    Checkerboard,
    Dirac,
    Grid,
    Mixture1D,
    Moons,
    PointMass,
    Ring,
    Spiral,
    ToyDistribution,
)

__all__ = [
    "CIFAR10",
    "KMNIST",
    "MNIST",
    "NPZ",
    "Batches",
    "Checkerboard",
    "Digits",
    "Dirac",
    "FashionMNIST",
    "Folder",
    "Grid",
    "HuggingFace",
    "ImageFiles",
    "ImageRows",
    "Mixture1D",
    "Moons",
    "Parts",
    "PointMass",
    "Ring",
    "ShuffledBatches",
    "Source",
    "Spiral",
    "Split",
    "Splits",
    "StackedMNIST",
    "StreamedBatches",
    "StreamedSplit",
    "ToyData",
    "ToyDistribution",
    "binarize_dynamic",
    "binarize_static",
    "find_folder",
    "image_grid",
    "read_idx",
    "read_image_folder",
    "require_binary",
    "threshold",
    "to_unit",
    "write_image_grid",
]
