"""MNIST and two data sets of its form: 60 000 training and 10 000 test images of 28×28 gray pixels, in ten classes."""

from __future__ import annotations

__all__ = ["KMNIST", "MNIST", "FashionMNIST", "IDXSource"]

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from latentia.data.fetch import fetch
from latentia.data.idx import find_idx, read_idx
from latentia.data.source import Parts, Source, find_folder
from latentia.data.split import Split
from latentia.errors import DataError

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class Publication(NamedTuple):
    """Where a data set is published: mirrors, the sha256 of each gzipped file by its plain name, the classes' names."""

    mirrors: tuple[str, ...]
    sha256: Mapping[str, str]
    classes: tuple[str, ...]


class IDXSource(Source):
    """Four IDX files, from a folder or else downloaded; see `MNIST`."""

    validation: Annotated[int, Field(ge=0)] | None = 5_000
    folder: Path | None = None

    @abstractmethod
    def _publication(self) -> Publication:
        """Where the data set is published."""

    def _read(self, folder: Path | None) -> Parts:
        place = find_folder(self.type_name, folder or self.folder)
        return Parts(self._split(place, *TRAIN), self._split(place, *TEST), self._publication().classes)

    def _split(self, place: Path | None, images_name: str, labels_name: str) -> Split:
        images_path, labels_path = self._path(place, images_name), self._path(place, labels_name)
        self._refuse_another_set(labels_path)
        images, labels = read_idx(images_path, dimensions=3), read_idx(labels_path, dimensions=1)
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
        """All three sets have files of the same names and shapes: know the others' published ones by their hash."""
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
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
    LATENTIA_DATA names (either may also be a parent with a sub-folder `mnist`), or else from the network, checked.

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
