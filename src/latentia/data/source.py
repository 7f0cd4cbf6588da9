"""Where examples come from. A `Source` is a setting of a run and loads the data itself.

    data=mnist data.binarize=dynamic            on the command line,
    MNIST(binarize="dynamic").load()            in Python.

To add a source, subclass `Source` and write `_read`; splitting, binarizing and hashing are done here, once.
"""

from __future__ import annotations

__all__ = ["Parts", "Source"]

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from latentia.configuration import Component
from latentia.data.binarization import Binarization, Binarize
from latentia.data.examples import CHANNELS, Column
from latentia.data.opening import LIMIT
from latentia.data.split import Part, Split, Splits, hold_out, hold_out_by_class, sha256_of
from latentia.data.stream import StreamedSplit
from latentia.errors import ConfigurationError, DataError

TEST_FRACTION = 0.2
TEST_SEED = 0  # fixed: no setting of a run may move an example into or out of the test set
VALIDATION_FRACTION = 0.1


@dataclass(frozen=True)
class Parts:
    """What a source reads: the examples as they are published.

    Attributes:
        train: training examples; the validation examples are among them.
        test: test examples, or None where none are published: then a fixed fifth of each class is held out.
        classes: names of the labels.
        content_hash: for streamed examples, which are too many to hash; None elsewhere.
        columns: of a table; () elsewhere.
        covariates: names of the numbers that take the place of labels; () elsewhere.
    """

    train: Split
    test: Split | None
    classes: tuple[str, ...] = ()
    content_hash: str | None = None
    columns: tuple[Column, ...] = ()
    covariates: tuple[str, ...] = ()


class Source(Component, family=True):
    """A data set and how a run uses it.

    Attributes:
        binarize: of images: `dynamic` (gray levels are probabilities, sampled at each step), `static` (sampled once),
            `threshold` (at 128) or `none`. Validation and test images are sampled once under both of the first two.
        validation: how many training examples to set aside for choices; None is a tenth.
        split_seed: which ones.
        binarize_seed: of the samples that are taken once.
        limit: bytes that any one file may take in memory; what claims more is refused.
        standardize: subtract the training examples' mean and divide by their standard deviation, of each column of
            vectors or channel of signals, within the model; null does so for all but images and bits.
        missing: what to do with missing values (NaN): `refuse` them, `keep` them, so that log p(x) is that of the
            observed values, or `drop` the examples that have some.
    """

    binarize: Binarize = "none"
    validation: Annotated[int, Field(ge=0)] | None = None
    split_seed: int = 0
    binarize_seed: int = 0
    limit: Annotated[int, Field(ge=1)] = LIMIT
    standardize: bool | None = None
    missing: Literal["refuse", "keep", "drop"] = "refuse"

    @property
    def suggested_likelihood(self) -> str:
        """The name of the likelihood that suits these data, where a recipe names none."""
        return "bernoulli"

    @classmethod
    def from_value(cls, value: Any) -> Any:
        """A source of data that are given in Python: an array, a data frame, a data set; see `InMemory`."""
        given = cls.members().get("memory")
        try:
            return None if given is None else given.parse({"type": "memory", "data": value})
        except ConfigurationError as error:  # the user wrote data=value, not data.data=value
            problems = [("" if key == "data" else key, message) for key, message in error.problems]
            raise ConfigurationError(problems) from None

    @classmethod
    def _hint(cls, name: str) -> str:
        path = Path(name)
        if path.suffix in (".csv", ".tsv", ".parquet", ".feather", ".h5ad"):
            return f"A table is data=table data.file={name}"
        if path.suffix in (".npz", ".npy", ".h5", ".hdf5"):
            return f"An archive of arrays is data=npz data.file={name}"
        return f"A folder of images is data=folder data.folder={name}" if path.is_dir() else ""

    @abstractmethod
    def _read(self) -> Parts:
        """Read the data set."""

    def load(self) -> Splits:
        """Read, split and binarize the data set.

        Validation and test images are binary when this returns, unless `binarize` is `none`; so are training images,
        unless it is `none` or `dynamic`. Binary images are held as 0 and 255.

        Raises:
            DataError: naming the file that is missing or damaged, and the cure.
            ConfigurationError: when more validation examples are asked for than there are, or others than images are to
                be binarized.
        """
        parts = self._observed(self._read())
        dtype = parts.train.dtype
        if self.binarize != "none" and dtype != torch.uint8:
            text = f"only images of bytes are binarized; these examples are {dtype} of shape {parts.train.event_shape}"
            raise ConfigurationError([("binarize", f"{text}. Set data.binarize=none")])
        whole, test = (
            (parts.train, parts.test) if parts.test else hold_out_by_class(parts.train, TEST_FRACTION, TEST_SEED)
        )
        content_hash = parts.content_hash or sha256_of([parts.train, *([parts.test] if parts.test else [])])
        count = self._validation_count(len(whole))
        if count >= len(whole):
            text = f"{count} of {len(whole)} training examples leave none to train on; set a smaller number"
            raise ConfigurationError([("data.validation", text)])
        train, validation = hold_out(whole, count, self.split_seed)
        validation, test = validation.in_memory(), test.in_memory()
        if self.binarize in ("static", "threshold"):
            train = self._binary(train, "train")
        return Splits(
            train,
            self._binary(validation, "validation"),
            self._binary(test, "test"),
            parts.classes,
            content_hash,
            Binarization(self.binarize, self.binarize_seed),
            parts.columns,
            _standardizes(self.standardize, dtype, whole.event_shape),
            self.missing == "keep" and dtype.is_floating_point,
            parts.covariates,
        )

    def _observed(self, parts: Parts) -> Parts:
        """The parts with missing values treated as `missing` says."""
        if self.missing == "keep" or not parts.train.dtype.is_floating_point:
            return parts
        kept = []
        for part in (parts.train, parts.test):
            if part is None or isinstance(part, StreamedSplit):
                kept.append(part)
                continue
            absent = part.x.isnan()
            rows = ~absent.flatten(1).any(1)
            if self.missing == "refuse" and not bool(rows.all()):
                places = absent.any(0).nonzero()[:, 0].unique().tolist()
                named = [parts.columns[place].name if parts.columns else f"column {place}" for place in places[:5]]
                text = f"{int(absent.sum())} values are missing (NaN), in {int((~rows).sum())} of {len(part)} examples"
                raise ConfigurationError(
                    [
                        (
                            "missing",
                            f"{text} ({', '.join(named)}{' and more' if len(places) > 5 else ''}). Set "
                            "data.missing=keep to train on the observed values, or data.missing=drop to leave these "
                            "examples out (in Python InMemory(data=x, missing='keep'))",
                        )
                    ]
                )
            kept.append(part.take(rows.nonzero().squeeze(1)))
        return replace(parts, train=kept[0], test=kept[1])

    def whole(self) -> Split:
        """All examples in the order in which they are published, before splitting; the test part last."""
        parts = self._observed(self._read())
        if parts.test is None:
            return parts.train.in_memory()
        train, test = parts.train.in_memory(), parts.test.in_memory()
        labels = None if train.labels is None or test.labels is None else torch.cat([train.labels, test.labels])
        return Split(torch.cat([train.x, test.x]), labels)

    def _validation_count(self, whole: int) -> int:
        if self.validation is not None:
            return self.validation
        count = round(VALIDATION_FRACTION * whole)
        return 2 if count == 1 else count  # one example has no standard error

    def _binary(self, split: Split, part: Part) -> Split:
        if self.binarize == "none" or not len(split):
            return split
        fixed = Binarization(self.binarize, self.binarize_seed).fixed(split.x, part)
        return Split(fixed.mul_(255).byte(), split.labels)


def _standardizes(wanted: bool | None, dtype: torch.dtype, shape: tuple[int, ...]) -> bool:
    """Whether the model standardizes: as asked for; else all but bytes, bits, and floats of the shape of images."""
    if wanted is not None:
        return wanted
    return dtype not in (torch.uint8, torch.bool) and not (len(shape) == 3 and shape[0] in CHANNELS)


def number_labels(parts: Sequence[Sequence[Any]], name: str) -> tuple[list[Tensor], tuple[str, ...]]:
    """The labels of each part as numbers from 0, and the names of the classes: the distinct labels, in order.

    A label is a name, whatever its size: the labels 3 and 20 240 101 make two classes.

    Args:
        parts: whole numbers or words, of each part.
        name: of the data set, for the message.

    Raises:
        DataError: for labels of another kind.
    """
    known = {type(label) for labels in parts for label in labels}
    if not known <= {int, str} or len(known) > 1:
        kinds = " and ".join(sorted(kind.__name__ for kind in known))
        raise DataError(f"{name} has labels of the type {kinds}; give whole numbers, or words, one each")
    distinct = sorted({label for labels in parts for label in labels})
    number = {label: index for index, label in enumerate(distinct)}
    return [torch.tensor([number[label] for label in labels]) for labels in parts], tuple(map(str, distinct))
