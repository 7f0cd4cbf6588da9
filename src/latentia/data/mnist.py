"""MNIST and data sets of its form: 60 000 training and 10 000 test images of 28×28 gray pixels, in ten classes.

They are published as IDX files: two zero bytes, a type, the number of dimensions, the dimensions, the values. Numbers
of the header are big-endian; type 8 is unsigned bytes, the only one read here (LeCun, Cortes and Burges, "The MNIST
database of handwritten digits").
"""

from __future__ import annotations

__all__ = ["KMNIST", "MNIST", "FashionMNIST", "StackedMNIST"]

import hashlib
import math
import os
import struct
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from latentia.data.arrays import read_npz
from latentia.data.batches import seed_of
from latentia.data.opening import LIMIT, DataPath, fetch, find_folder, opened, read_at_most, require_below
from latentia.data.source import Parts, Source
from latentia.data.split import Split
from latentia.errors import DataError

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
UNSIGNED_BYTES = 8


class Publication(NamedTuple):
    """Where a data set is published: mirrors, the sha256 of each gzipped file by its plain name, the classes' names."""

    mirrors: tuple[str, ...]
    sha256: Mapping[str, str]
    classes: tuple[str, ...]


class IDXSource(Source):
    """Four IDX files, from a folder or else downloaded; see `MNIST`."""

    validation: Annotated[int, Field(ge=0)] | None = 5_000
    folder: DataPath | None = Field(default=None, description="the folder of the files; null downloads them")

    @abstractmethod
    def _publication(self) -> Publication:
        """Where the data set is published."""

    def _read(self) -> Parts:
        place = find_folder(self.type_name, self.folder)
        classes = self._publication().classes
        if place is not None:
            torchvision = (place / type(self).__name__ / "raw", place / "raw")
            place = next((inner for inner in torchvision if inner.is_dir()), place)
            keras = place / f"{self.type_name}.npz"
            if keras.is_file() and not any(path.name.startswith("train-images") for path in place.iterdir()):
                parts = read_npz(keras, self.limit)
                if parts.test is None or len(parts.classes) != len(classes):
                    raise DataError(
                        f"{keras} is not {self.type_name}: it lacks x_test, or has other labels than 0 to 9"
                    )
                return Parts(parts.train, parts.test, classes)
        return Parts(self._split(place, *TRAIN), self._split(place, *TEST), classes)

    def _split(self, place: Path | None, images_name: str, labels_name: str) -> Split:
        images_path, labels_path = self._path(place, images_name), self._path(place, labels_name)
        self._refuse_another_set(labels_path)
        images, labels = read_idx(images_path, 3, self.limit), read_idx(labels_path, 1, self.limit)
        if len(images) != len(labels):
            raise DataError(
                f"{images_path} has {len(images)} images and {labels_path} {len(labels)} labels; are they of one set?"
            )
        classes = self._publication().classes
        if int(labels.max()) >= len(classes):
            raise DataError(
                f"{labels_path} has the label {int(labels.max())}, and {self.type_name} has {len(classes)} classes"
            )
        return Split(images.unsqueeze(1), labels.long())

    def _refuse_another_set(self, path: Path) -> None:
        """Refuse the published files of another set, which have the same names and shapes, by their hash."""
        with opened(path, unpack=False) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
        for member in IDXSource.members().values():
            is_other = issubclass(member, IDXSource) and member is not type(self)
            if is_other and digest in member()._publication().sha256.values():
                raise DataError(
                    f"{path} belongs to {member.type_name}, not to {self.type_name}; "
                    f"set data.folder to the folder of {self.type_name}, or data={member.type_name}"
                )

    def _path(self, place: Path | None, name: str) -> Path:
        if place is not None:
            return find_idx(place, name)
        publication = self._publication()
        return fetch(self.type_name, f"{name}.gz", publication.sha256[name], publication.mirrors)


class MNIST(IDXSource, name="mnist"):
    """Handwritten digits (LeCun, Bottou, Bengio and Haffner 1998).

    The four IDX files, gzipped or not, come from `folder`, or else from the folder that the environment variable
    LATENTIA_DATA names, or else from the network, checked. The folder may hold the files, a sub-folder `mnist`, the
    sub-folder `MNIST/raw` of torchvision, or the file `mnist.npz` of Keras.

    Attributes:
        folder: where the files are.
    """

    def _publication(self) -> Publication:
        return Publication(
            ("https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/"),
            {
                TRAIN[0]: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                TRAIN[1]: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                TEST[0]: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                TEST[1]: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            },
            tuple("0123456789"),
        )


class FashionMNIST(IDXSource, name="fashion-mnist"):
    """Pictures of clothes (Xiao, Rasul and Vollgraf 2017); files as for `MNIST`, sub-folder `fashion-mnist`."""

    def _publication(self) -> Publication:
        return Publication(
            (
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            ),
            {
                TRAIN[0]: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                TRAIN[1]: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                TEST[0]: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                TEST[1]: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            },
            (
                "T-shirt/top",
                "trouser",
                "pullover",
                "dress",
                "coat",
                "sandal",
                "shirt",
                "sneaker",
                "bag",
                "ankle boot",
            ),
        )


class KMNIST(IDXSource, name="kmnist"):
    """Cursive Japanese characters (Clanuwat et al. 2018); files as for `MNIST`, sub-folder `kmnist`."""

    def _publication(self) -> Publication:
        return Publication(
            ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/", "https://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
            {
                TRAIN[0]: "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
                TRAIN[1]: "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
                TEST[0]: "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
                TEST[1]: "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
            },
            ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        )


class StackedMNIST(Source, name="stacked-mnist"):
    """Three MNIST digits in the three colors of one 3×28×28 image: 1 000 classes, to count the modes that a GAN finds.

    The test of mode coverage of Metz et al. 2017 and Lin et al. 2018 (PacGAN, section 4.2). The label is the number
    that the three digits spell: red, green, blue.

    Attributes:
        folder: where MNIST's files are; see `MNIST`.
        count: number of training images (PacGAN: 128 000); 10 000 test images are stacked from the test digits.
        stack_seed: of the digits, which are sampled with replacement.
    """

    folder: DataPath | None = None
    count: int = Field(default=128_000, ge=1)
    stack_seed: int = 0

    def _read(self) -> Parts:
        digits = MNIST(folder=self.folder, limit=self.limit)._read()
        assert digits.test is not None  # MNIST is published with one
        classes = tuple(f"{number:03d}" for number in range(1000))
        return Parts(self._stack(digits.train, self.count, "train"), self._stack(digits.test, 10_000, "test"), classes)

    def _stack(self, digits: Split, count: int, part: str) -> Split:
        generator = torch.Generator().manual_seed(seed_of("stack", self.stack_seed, part))
        rows = torch.randint(len(digits), (count, 3), generator=generator)
        assert digits.labels is not None
        labels = (digits.labels[rows] * torch.tensor([100, 10, 1])).sum(1)
        return Split(digits.x.squeeze(1)[rows], labels)


def read_idx(path: Path, dimensions: int, limit: int = LIMIT) -> Tensor:
    """An IDX file of bytes, gzipped or not, as a uint8 tensor.

    Args:
        path: the file; one that starts as gzip does is unpacked, whatever its name.
        dimensions: how many the tensor must have: 3 for images, 1 for labels.
        limit: bytes that the tensor may take.

    Raises:
        DataError: naming the file, when it is missing, truncated, damaged, too large, or holds something else.
    """
    with opened(path) as file:
        start = read_at_most(file, 4)
        if len(start) < 4:
            raise DataError(
                f"{path} is truncated: it has {len(start)} bytes, less than an IDX header; download it again"
            )
        zeros, kind, count = struct.unpack(">HBB", start)
        if zeros != 0 or kind != UNSIGNED_BYTES:
            raise DataError(
                f"{path} is not an IDX file of bytes: its magic number is 0x{start.hex()}, "
                f"and 0x0000080{dimensions} is wanted; download it again"
            )
        if count != dimensions:
            wanted, held = (("labels", "images"), ("images", "labels"))[dimensions > 1]
            raise DataError(
                f"{path} has {count} dimensions, and {wanted} have {dimensions}; are {wanted} and {held} swapped?"
            )
        sizes = read_at_most(file, 4 * count)
        if len(sizes) < 4 * count:
            raise DataError(f"{path} is truncated within its IDX header; download it again")
        shape = struct.unpack(f">{count}I", sizes)
        claimed = math.prod(shape)
        words = " × ".join(map(str, shape))
        if claimed == 0:
            raise DataError(f"{path} is empty: its header says {words}; download it again")
        require_below(limit, claimed, str(path))
        content = read_at_most(file, claimed + 1)  # one more, so that gzip's checksum is compared
    if len(content) != claimed:
        word, held = ("truncated", len(content)) if len(content) < claimed else ("damaged", "more")
        raise DataError(
            f"{path} is {word}: its header claims {words} = {claimed} bytes, and {held} follow; download it again"
        )
    return torch.frombuffer(content, dtype=torch.uint8).reshape(shape)


def find_idx(folder: Path, name: str) -> Path:
    """The file `name` of a folder, such as train-images-idx3-ubyte, plain or gzipped, with a dash or a dot before idx.

    Raises:
        DataError: listing what was looked for.
    """
    names = [name + suffix for name in (name, name.replace("-idx", ".idx")) for suffix in ("", ".gz")]
    for candidate in names:
        if os.path.isfile(folder / candidate):
            return folder / candidate
    raise DataError(
        f"{folder} lacks {name}[.gz]; put the file there, or set data.folder or LATENTIA_DATA to where it is"
    )
