"""Data: sources of images, their parts, their binarization and batches; toy distributions of known density."""

from latentia.data.arrays import NPZ, read_arrays
from latentia.data.batches import Batch, seed_of
from latentia.data.cifar import CIFAR10
from latentia.data.digits import Digits, MNIST5k
from latentia.data.examples import Column, Schema, image_axes
from latentia.data.folder import Folder, read_image_folder
from latentia.data.hugging_face import HuggingFace
from latentia.data.image_grid import image_grid, write_image_grid
from latentia.data.memory import InMemory
from latentia.data.mnist import KMNIST, MNIST, FashionMNIST, StackedMNIST
from latentia.data.science import BreastCancer, Signals, Wine
from latentia.data.source import Parts, Source
from latentia.data.split import Part, Split, Splits
from latentia.data.stream import StreamedSplit
from latentia.data.table_file import Table
from latentia.data.toy_distributions import (
    Checkerboard,
    Dirac,
    Grid,
    Mixture1D,
    Moons,
    Ring,
    Spiral,
    ToyData,
    ToyDistribution,
)

__all__ = [
    "CIFAR10",
    "KMNIST",
    "MNIST",
    "NPZ",
    "Batch",
    "BreastCancer",
    "Checkerboard",
    "Column",
    "Digits",
    "Dirac",
    "FashionMNIST",
    "Folder",
    "Grid",
    "HuggingFace",
    "InMemory",
    "MNIST5k",
    "Mixture1D",
    "Moons",
    "Part",
    "Parts",
    "Ring",
    "Schema",
    "Signals",
    "Source",
    "Spiral",
    "Split",
    "Splits",
    "StackedMNIST",
    "StreamedSplit",
    "Table",
    "ToyData",
    "ToyDistribution",
    "Wine",
    "image_axes",
    "image_grid",
    "read_arrays",
    "read_image_folder",
    "seed_of",
    "write_image_grid",
]
