import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentia.data import Split, seed_of
from latentia.data.batches import EpochOrder
from latentia.errors import ConfigurationError


def numbered(count: int, labels: bool = True) -> Split:
    """Image i holds the bytes of i, so that a batch shows which images it has."""
    rows = torch.arange(count)
    images = torch.stack([rows % 256, rows // 256], 1).byte().reshape(count, 1, 1, 2)
    return Split(images, rows.clone() if labels else None)


def numbers(images: torch.Tensor) -> torch.Tensor:
    return images[:, 0, 0, 0].long() + 256 * images[:, 0, 0, 1].long()


@given(
    count=st.integers(1, 700),
    size=st.integers(1, 80),
    seed=st.integers(-5, 2**40),
    epoch=st.integers(0, 5),
    drop=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_every_image_once_an_epoch(count, size, seed, epoch, drop):
    if size > count:
        return
    batches = numbered(count).batches(size, seed, drop_last=drop)
    steps = batches.steps_per_epoch
    assert steps == (count // size if drop else -(-count // size))
    drawn = [batches.batch(epoch * steps + step) for step in range(steps)]
    seen = torch.cat([numbers(images) for images, _ in drawn])
    assert torch.equal(seen, torch.cat([labels for _, labels in drawn]))
    assert len(seen.unique()) == len(seen) == (steps * size if drop else count)


@given(count=st.integers(8, 300), each=st.integers(1, 10), world=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_processes_share_the_batches_of_one(count, each, world, seed):
    size = each * world
    if size > count:
        return
    split = numbered(count)
    one = split.batches(size, seed)
    many = [split.batches(size, seed, rank, world) for rank in range(world)]
    for draw in (0, one.steps_per_epoch - 1, one.steps_per_epoch, 3 * one.steps_per_epoch):
        whole, _ = one.batch(draw)
        for rank, batches in enumerate(many):
            part, labels = batches.batch(draw)
            assert torch.equal(part, whole[rank::world])
            assert torch.equal(labels, numbers(part))


def test_batch_depends_on_its_number_alone():
    split = numbered(103)
    onward = split.batches(10, seed=7)
    expected = [onward.batch(draw)[0] for draw in range(35)]
    for draw in (34, 0, 12, 11, 20, 3):
        assert torch.equal(split.batches(10, seed=7).batch(draw)[0], expected[draw])
        assert torch.equal(onward.batch(draw)[0], expected[draw])


def test_order_changes_with_epoch_and_seed():
    orders = [EpochOrder(1000, 1000, seed).rows(epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(not torch.equal(a, b) for i, a in enumerate(orders) for b in orders[:i])


def test_every_place_is_as_likely():
    """Over epochs, the mean place of an image is the middle, to its standard error."""
    n, epochs = 50, 2000
    order = EpochOrder(n, n, seed=0)
    places = torch.stack([order.rows(epoch).argsort() for epoch in range(epochs)]).double()
    stderr = ((n**2 - 1) / 12 / epochs) ** 0.5
    assert (places.mean(0) - (n - 1) / 2).abs().max() < 5 * stderr


def test_order_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    numbered(40).batches(8, seed=3).batch(13)
    assert torch.equal(torch.get_rng_state(), state)


def test_split_without_labels():
    images, labels = numbered(20, labels=False).batches(4, seed=0).batch(2)
    assert labels is None
    assert images.shape == (4, 1, 1, 2)
    assert images.dtype == torch.uint8


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ({"batch_size": 21}, "set batch_size=20 or smaller"),
        ({"batch_size": 0}, "at least 1"),
        ({"batch_size": 5, "world": 2}, "choose a batch_size that 2 divides"),
        ({"batch_size": 6, "world": 3, "drop_last": False}, "drop_last=true"),
        ({"batch_size": 4, "rank": 2, "world": 2}, "rank 2 of 2"),
    ],
)
def test_impossible_batches_are_refused(arguments, cure):
    with pytest.raises(ConfigurationError, match=cure):
        numbered(20).batches(seed=0, **arguments)


def test_seeds_are_pinned_and_distinct():
    """A change of this number would change every run's order."""
    assert seed_of("order", 0, 0) == 6842717984295184508
    seeds = {seed_of(word, a, b) for word in ("order", "x") for a in range(-20, 20) for b in range(40)}
    assert len(seeds) == 2 * 40 * 40
    assert all(0 <= seed < 2**63 for seed in seeds)
