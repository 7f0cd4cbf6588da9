import numpy as np
import pytest
import torch
from PIL import Image

from latentia.data import Folder, StreamedSplit, read_image_folder
from latentia.data import stream as module
from latentia.errors import ConfigurationError, DataError


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def gray(height=5, width=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def color(height=5, width=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_pixels_and_classes(picture_folder):
    folder, pixels = picture_folder
    split, classes = read_image_folder(folder)
    assert classes == ("cats", "dogs")
    assert split.image_shape == (1, 5, 6)
    files = sorted(pixels, key=lambda path: path.relative_to(folder).parts)
    assert np.array_equal(split.images[:, 0].numpy(), np.stack([pixels[file] for file in files]))
    assert split.labels.tolist() == [0] * 10 + [1] * 10


def test_flat_folder_has_no_labels(tmp_path):
    for number in range(3):
        write(tmp_path / f"{number}.png", color(seed=number))
    split, classes = read_image_folder(tmp_path)
    assert split.labels is None
    assert classes == ()
    assert split.image_shape == (3, 5, 6)
    assert np.array_equal(split.images[2].permute(1, 2, 0).numpy(), color(seed=2))


def test_jpeg_and_capitals_and_hidden_files(tmp_path):
    flat = np.full((8, 8), 77, np.uint8)
    write(tmp_path / "a.JPG", flat)
    write(tmp_path / "b.jpeg", flat)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "c.png").write_bytes(b"no image")
    (tmp_path / "._a.jpg").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.warns(UserWarning, match="not read.*: gone.png, notes.txt$"):
        split, _ = read_image_folder(tmp_path)
    assert len(split) == 2
    assert (split.images.int() - 77).abs().max() <= 1


def test_size_and_gray(tmp_path):
    write(tmp_path / "a.png", np.full((20, 10), 200, np.uint8))
    write(tmp_path / "b.png", np.broadcast_to(np.array([255, 0, 0], np.uint8), (10, 30, 3)).copy())
    split, _ = read_image_folder(tmp_path, size=4, gray=True)
    assert split.image_shape == (1, 4, 4)
    assert split.images.flatten(1).unique(dim=1).flatten().tolist() == [200, 76]
    split, _ = read_image_folder(tmp_path, size=4, gray=False)
    assert split.images[0].unique().tolist() == [200]
    assert split.images[1, :, 0, 0].tolist() == [255, 0, 0]


def test_resizing_keeps_the_middle(tmp_path):
    """A wide picture with a black left and a white right third loses both when it is made square."""
    pixels = np.full((10, 30), 128, np.uint8)
    pixels[:, :10], pixels[:, 20:] = 0, 255
    write(tmp_path / "a.png", pixels)
    split, _ = read_image_folder(tmp_path, size=5)
    assert split.images.unique().tolist() == [128]


def test_opaque_and_palette_images_are_taken(tmp_path):
    pixels = color()
    write(tmp_path / "a.png", np.dstack([pixels, np.full((5, 6), 255, np.uint8)]))
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).convert("P").save(tmp_path / "b.png")
    split, _ = read_image_folder(tmp_path)
    assert np.array_equal(split.images[0].permute(1, 2, 0).numpy(), pixels)
    assert split.images[1].sum() == 0


SPOILT = {
    "truncated": (lambda content: content[: len(content) // 2], "is not a sound image"),
    "cut at the end": (lambda content: content[:-30], "is not a sound image"),
    "empty": (lambda _: b"", "is not a sound image"),
    "text": (lambda _: b"hello", "is not a sound image"),
    "damaged": (lambda content: content[:60] + b"\xff\x00\xff" + content[63:], "is not a sound image"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_damaged_files_are_named(tmp_path, kind):
    spoil, message = SPOILT[kind]
    for number in range(3):
        write(tmp_path / f"{number}.png", gray(40, 40, seed=number))
    path = tmp_path / "1.png"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        read_image_folder(tmp_path)
    assert str(path) in str(caught.value)


def test_truncated_jpeg_is_named(tmp_path):
    write(tmp_path / "a.jpg", gray(64, 64))
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"a\.jpg is not a sound image"):
        read_image_folder(tmp_path)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (gray(6, 5), r"odd\.png has 5×6 pixels while .*a\.png has 6×5; set data\.size=N"),
        (color(), r"odd\.png is colored while .*a\.png is gray; set data\.gray=true"),
        (np.dstack([gray(), gray()]), r"odd\.png has transparent pixels"),
        (np.dstack([color(), gray()]), r"odd\.png has transparent pixels"),
    ],
)
def test_the_odd_image_is_named(tmp_path, odd, message):
    write(tmp_path / "a.png", gray())
    write(tmp_path / "odd.png", odd)
    write(tmp_path / "z.png", gray())
    with pytest.raises(DataError, match=message):
        read_image_folder(tmp_path)


def test_enormous_images_are_refused(tmp_path, monkeypatch):
    write(tmp_path / "a.png", gray(50, 50))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match="enormous size"):
        read_image_folder(tmp_path)


def test_folders_without_images(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*gone"):
        read_image_folder(tmp_path / "gone")
    (tmp_path / "sub").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        read_image_folder(tmp_path)


def test_images_beside_classes_are_refused(picture_folder):
    folder, _ = picture_folder
    write(folder / "stray.png", gray())
    with pytest.raises(DataError, match=r"next to them, such as stray\.png"):
        read_image_folder(folder)


def test_sets_larger_than_memory_are_refused(picture_folder, monkeypatch):
    monkeypatch.setattr(module, "MEMORY_SHARE", 1e-12)
    with pytest.raises(DataError, match=r"20 images of 1 × 5 × 6 bytes need .*set data\.stream=true"):
        read_image_folder(picture_folder[0])


def test_source_holds_out_a_fifth_of_each_class(picture_folder):
    splits = Folder(folder=picture_folder[0], validation=3).load()
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [13, 3, 4]
    assert splits.test.labels.tolist() == [0, 0, 1, 1]
    assert splits.classes == ("cats", "dogs")


def test_source_takes_train_and_test_folders(tmp_path):
    for part, count in (("train", 10), ("test", 4)):
        for number in range(count):
            write(tmp_path / part / "ab"[number % 2] / f"{number}.png", gray(seed=number))
    splits = Folder(folder=tmp_path, validation=2).load()
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [8, 2, 4]
    assert splits.classes == ("a", "b")
    write(tmp_path / "test" / "c" / "1.png", gray())
    with pytest.raises(DataError, match="train has the classes a, b and test a, b, c"):
        Folder(folder=tmp_path).load()


def drawn(batches, draws):
    return [batches.batch(draw) for draw in draws]


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_draws_what_memory_draws(picture_folder, workers):
    folder, _ = picture_folder
    held = Folder(folder=folder, validation=3).load()
    streamed = Folder(folder=folder, validation=3, stream=True, workers=workers).load()
    assert isinstance(streamed.train, StreamedSplit)
    assert torch.equal(streamed.test.images, held.test.images)
    assert torch.equal(streamed.validation.images, held.validation.images)
    assert streamed.train.image_shape == held.train.image_shape
    assert len(streamed.train) == len(held.train) == 13
    for rank, world in ((0, 1), (1, 2)):
        expected = held.train.batches(4, seed=5, rank=rank, world=world)
        batches = streamed.train.batches(4, seed=5, rank=rank, world=world)
        assert batches.steps_per_epoch == expected.steps_per_epoch == 3
        order = [*range(8), 2, 3, 20]  # onward over epochs, back, and far ahead
        torch.manual_seed(3)
        state = torch.get_rng_state()
        for (images, labels), (images_held, labels_held) in zip(
            drawn(batches, order), drawn(expected, order), strict=True
        ):
            assert torch.equal(images, images_held)
            assert torch.equal(labels, labels_held)
        assert torch.equal(torch.get_rng_state(), state), "reading must not disturb the run's randomness"
        batches.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_streaming_names_the_damaged_file(picture_folder, workers):
    folder, _ = picture_folder
    splits = Folder(folder=folder, validation=0, stream=True, workers=workers).load()
    victim = splits.train.rows.files[splits.train.chosen[5]]
    victim.write_bytes(victim.read_bytes()[:40])
    batches = splits.train.batches(4, seed=0)
    with pytest.raises(DataError, match="is not a sound image") as caught:
        drawn(batches, range(4))
    assert str(victim) in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_streamed_images_are_never_together(picture_folder):
    train = Folder(folder=picture_folder[0], validation=0, stream=True).load().train
    with pytest.raises(DataError, match=r"split\.batches"):
        train.images  # noqa: B018
    assert torch.equal(train.to("cpu").in_memory().labels, train.labels)


def test_chunks_are_all_images_in_order(picture_folder):
    held = Folder(folder=picture_folder[0], validation=3).load().train
    streamed = Folder(folder=picture_folder[0], validation=3, stream=True).load().train
    for train in (held, streamed):
        chunks = list(train.chunks(5))
        assert [len(chunk) for chunk in chunks] == [5, 5, 3]
        assert torch.equal(torch.cat(chunks), held.images)


def test_streamed_hash_sees_names_and_sizes(picture_folder):
    folder, _ = picture_folder
    source = Folder(folder=folder, validation=0, stream=True)
    before = source.load().content_hash
    assert source.load().content_hash == before
    (folder / "cats" / "01.png").rename(folder / "cats" / "01b.png")
    assert source.load().content_hash != before


def test_streaming_cannot_binarize_beforehand(tmp_path):
    with pytest.raises(ConfigurationError, match="set binarize=dynamic or none"):
        Folder.parse({"folder": tmp_path, "stream": True, "binarize": "static"})
