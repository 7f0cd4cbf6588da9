import pytest
import torch

from latentia.data import Split, Splits
from latentia.data.binarization import Binarization
from latentia.data.split import hold_out, hold_out_by_class, sha256_of
from latentia.errors import DataError


def split_of(labels: list[int] | None, count: int = 0) -> Split:
    n = len(labels) if labels is not None else count
    images = torch.arange(n, dtype=torch.uint8).reshape(n, 1, 1, 1).expand(n, 1, 2, 3).contiguous()
    return Split(images, None if labels is None else torch.tensor(labels))


def rows(split: Split) -> list[int]:
    return split.x[:, 0, 0, 0].tolist()


def test_shape_and_length():
    split = split_of([0, 1, 0])
    assert len(split) == 3
    assert split.event_shape == (1, 2, 3)
    assert split.to("cpu").x.equal(split.x)


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 1, 3, dtype=torch.float16), torch.zeros(2), torch.zeros(2, 3, 3, dtype=torch.uint8)]
)
def test_other_tensors_are_refused(images):
    with pytest.raises(DataError, match="uint8 of shape"):
        Split(images)


def test_labels_of_another_number_are_refused():
    with pytest.raises(DataError, match="3 examples and labels of shape"):
        Split(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))


def test_hold_out_parts_and_keeps_order():
    split = split_of(None, count=50)
    rest, taken = hold_out(split, 12, seed=4)
    assert len(taken) == 12
    assert sorted(rows(rest) + rows(taken)) == list(range(50))
    assert rows(rest) == sorted(rows(rest))
    assert rows(taken) == rows(hold_out(split, 12, seed=4)[1])
    assert rows(taken) != rows(hold_out(split, 12, seed=5)[1])
    assert len(hold_out(split, 0, seed=4)[1]) == 0


def test_hold_out_by_class_takes_its_share_of_each():
    labels = [0] * 30 + [1] * 60 + [2] * 10
    rest, taken = hold_out_by_class(split_of(labels), 0.2, seed=0)
    assert taken.labels.bincount().tolist() == [6, 12, 2]
    assert rest.labels.bincount().tolist() == [24, 48, 8]
    assert sorted(rows(rest) + rows(taken)) == list(range(100))
    without, some = hold_out_by_class(split_of(None, count=40), 0.2, seed=0)
    assert (len(without), len(some)) == (32, 8)


@pytest.mark.parametrize(
    ("labels", "count", "test"),
    [
        ([label for label in range(100) for _ in range(2)], 0, 40),  # every class too small to give one
        (list(range(30)), 0, 6),  # classes of one
        ([0] * 50 + [1, 2], 0, 10),
        (None, 7, 2),
        (None, 3, 2),
        ([0, 1, 2], 0, 2),
    ],
)
def test_small_classes_and_sets_give_a_test_part(labels, count, test):
    rest, taken = hold_out_by_class(split_of(labels, count), 0.2, seed=0)
    assert len(taken) == test
    assert sorted(rows(rest) + rows(taken)) == list(range(len(labels) if labels else count))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_images_to_hold_any_out(count):
    with pytest.raises(DataError, match="give at least 3"):
        hold_out_by_class(split_of(None, count), 0.2, seed=0)


@pytest.mark.parametrize(
    ("validation", "test", "cure"), [(0, 1, "add examples"), (1, 2, r"set data\.validation=0"), (0, 0, "add examples")]
)
def test_parts_without_a_standard_error_are_refused_before_training(validation, test, cure):
    parts = [split_of(None, count) for count in (20, validation, test)]
    with pytest.raises(DataError, match=cure):
        Splits(*parts, (), "", Binarization()).batches(4, seed=0)


def test_hash_sees_pixels_labels_and_shape():
    base = split_of([0, 1, 2, 1])
    same = sha256_of([split_of([0, 1, 2, 1])])
    assert sha256_of([base]) == same
    others = [
        split_of([0, 1, 2, 2]),
        Split(base.x),
        Split(base.x.reshape(4, 1, 3, 2), base.labels),
        Split(base.x.flip(0), base.labels),
    ]
    assert len({same, *(sha256_of([other]) for other in others)}) == 5
    assert sha256_of([base, base]) != same
