import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from latentia.data import Folder, StreamedSplit, read_image_folder
from latentia.data import stream as module
from latentia.data.decoding import decode
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
    assert split.event_shape == (1, 5, 6)
    files = sorted(pixels, key=lambda path: path.relative_to(folder).parts)
    assert np.array_equal(split.x[:, 0].numpy(), np.stack([pixels[file] for file in files]))
    assert split.labels.tolist() == [0] * 10 + [1] * 10


def test_flat_folder_has_no_labels(tmp_path):
    for number in range(3):
        write(tmp_path / f"{number}.png", color(seed=number))
    split, classes = read_image_folder(tmp_path)
    assert split.labels is None
    assert classes == ()
    assert split.event_shape == (3, 5, 6)
    assert np.array_equal(split.x[2].permute(1, 2, 0).numpy(), color(seed=2))


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
    assert (split.x.int() - 77).abs().max() <= 1


def test_size_and_gray(tmp_path):
    write(tmp_path / "a.png", np.full((20, 10), 200, np.uint8))
    write(tmp_path / "b.png", np.broadcast_to(np.array([255, 0, 0], np.uint8), (10, 30, 3)).copy())
    split, _ = read_image_folder(tmp_path, size=4, gray=True)
    assert split.event_shape == (1, 4, 4)
    assert split.x.flatten(1).unique(dim=1).flatten().tolist() == [200, 76]
    split, _ = read_image_folder(tmp_path, size=4, gray=False)
    assert split.x[0].unique().tolist() == [200]
    assert split.x[1, :, 0, 0].tolist() == [255, 0, 0]


def test_resizing_keeps_the_middle(tmp_path):
    """A wide picture with a black left and a white right third loses both when it is made square."""
    pixels = np.full((10, 30), 128, np.uint8)
    pixels[:, :10], pixels[:, 20:] = 0, 255
    write(tmp_path / "a.png", pixels)
    split, _ = read_image_folder(tmp_path, size=5)
    assert split.x.unique().tolist() == [128]


def test_opaque_and_palette_images_are_taken(tmp_path):
    pixels = color()
    write(tmp_path / "a.png", np.dstack([pixels, np.full((5, 6), 255, np.uint8)]))
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).convert("P").save(tmp_path / "b.png")
    split, _ = read_image_folder(tmp_path)
    assert np.array_equal(split.x[0].permute(1, 2, 0).numpy(), pixels)
    assert split.x[1].sum() == 0


def png(pixels, *chunks):
    """A PNG of 8 or 16 bits written by hand: pixels (H, W) or (H, W, C); chunks (kind, content) before the pixels."""
    height, width = pixels.shape[:2]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[1 if pixels.ndim == 2 else pixels.shape[2]]
    rows = b"".join(b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part)) for name, part in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"])
def test_lossless_formats_give_their_pixels(tmp_path, suffix):
    options = {"lossless": True} if suffix == ".webp" else {}
    write(tmp_path / f"a{suffix}", color() if suffix == ".webp" else gray(), **options)
    split, _ = read_image_folder(tmp_path)
    assert np.array_equal(split.x[0].permute(1, 2, 0).squeeze(-1).numpy(), color() if suffix == ".webp" else gray())


def test_content_decides_and_not_the_name(tmp_path):
    write(tmp_path / "b.bmp", gray())
    (tmp_path / "b.bmp").rename(tmp_path / "a.png")
    assert np.array_equal(read_image_folder(tmp_path)[0].x[0, 0].numpy(), gray())


@pytest.mark.parametrize("name", ["EPS", "PPM", "DDS", "TGA", "PCX", "ICO"])
def test_other_formats_are_never_decoded(tmp_path, name, monkeypatch):
    """Pillow would start Ghostscript for an EPS."""

    def start(*arguments, **options):
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", start)
    stream = io.BytesIO()
    Image.fromarray(color(32, 32)).save(stream, name)
    (tmp_path / "a.png").write_bytes(stream.getvalue())
    with pytest.raises(DataError, match=r"a\.png is not a sound image of the formats PNG") as caught:
        read_image_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(gray(seed=seed)) for seed in range(3)]
    for name in ("a.gif", "b.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    for image in read_image_folder(tmp_path)[0].x:
        assert np.array_equal(image[0].numpy(), gray(seed=0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_camera_is_applied(tmp_path, orientation):
    """The eight orientations of EXIF (tag 0x0112), as CIPA DC-008 defines them."""
    upright = gray()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "b.webp"):
        image = Image.fromarray(np.ascontiguousarray(stored))
        options = {"lossless": True} if name == "b.webp" else {}
        image.save(tmp_path / name, exif=exif, **options)
    images = read_image_folder(tmp_path, gray=True)[0].x
    assert np.array_equal(images[0, 0].numpy(), upright)
    assert np.array_equal(images[1, 0].numpy(), upright)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_scaled_to_the_nearest_of_eight(tmp_path, channels):
    deep = np.random.default_rng(0).integers(0, 65536, (5, 6, channels), dtype=np.uint16)
    if channels == 4:
        deep[..., 3] = 65535
    deep = deep[..., 0] if channels == 1 else deep
    (tmp_path / "a.png").write_bytes(png(deep))
    if channels == 1:
        Image.fromarray(deep).save(tmp_path / "b.tif")
    expected = np.rint(deep.reshape(5, 6, channels)[..., :3] / 257).astype(np.uint8)
    for image in read_image_folder(tmp_path)[0].x:
        assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparency_that_hides_nothing_is_dropped(tmp_path, dtype):
    """A gray PNG whose transparent level no pixel has is gray; one that a pixel has is refused."""
    pixels = np.full((5, 6), 7, dtype)
    (tmp_path / "a.png").write_bytes(png(pixels, (b"tRNS", struct.pack(">H", 9))))
    assert read_image_folder(tmp_path)[0].x.shape == (1, 1, 5, 6)
    (tmp_path / "a.png").write_bytes(png(pixels, (b"tRNS", struct.pack(">H", 7))))
    with pytest.raises(DataError, match="transparent"):
        read_image_folder(tmp_path)


def test_palette_of_grays_is_gray_and_may_be_color(tmp_path):
    for kind, first in (("gray", gray()), ("color", color())):
        write(tmp_path / kind / "a.png", first)
        Image.fromarray(gray(seed=1) // 2 * 2).convert("P").save(tmp_path / kind / "b.png")
        images = read_image_folder(tmp_path / kind)[0].x
        assert (images[1] == torch.from_numpy(gray(seed=1) // 2 * 2)).all()


def test_links_to_folders_are_followed_and_loops_are_not(picture_folder, tmp_path):
    folder, _ = picture_folder
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "birds").symlink_to(folder / "cats")
    (linked / "dogs").symlink_to(folder / "dogs")
    (folder / "dogs" / "again").symlink_to(folder)
    split, classes = read_image_folder(linked)
    assert classes == ("birds", "dogs")
    assert len(split) == 30  # the link within dogs leads to cats too, once
    assert split.labels.bincount().tolist() == [10, 20]


@pytest.mark.parametrize("stream", [False, True])
def test_names_that_are_not_utf8(tmp_path, stream):
    for part in (b"a\xff", "猫".encode()):
        place = os.path.join(os.fsencode(tmp_path), part)
        os.mkdir(place)
        for number in range(6):
            with open(os.path.join(place, b"%d\xfe.png" % number), "wb") as file:
                file.write(png(gray(seed=number)))
    splits = Folder(folder=tmp_path, stream=stream, workers=0).load()
    assert splits.classes == ("a\\xff", "猫")
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 12
    with open(os.path.join(place, b"0\xfe.png"), "wb") as file:
        file.write(b"hello")
    with pytest.raises(DataError, match=r"猫/0\\xfe\.png") as caught:
        read_image_folder(tmp_path)
    str(caught.value).encode()


def test_pixels_beyond_the_limit_are_refused_before_they_are_decoded(tmp_path):
    header = struct.pack(">IIBBBBB", 13000, 13000, 8, 2, 0, 0, 0)
    content = png(gray())
    (tmp_path / "a.png").write_bytes(
        content[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + content[33:]
    )
    with pytest.raises(DataError, match=r"a\.png.* set data\.limit="):
        read_image_folder(tmp_path, limit=10**8)


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


def test_images_next_to_class_folders_are_refused(picture_folder):
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
    assert torch.equal(streamed.test.x, held.test.x)
    assert torch.equal(streamed.validation.x, held.validation.x)
    assert streamed.train.event_shape == held.train.event_shape
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
        train.x  # noqa: B018
    assert torch.equal(train.to("cpu").in_memory().labels, train.labels)


def test_chunks_are_all_images_in_order(picture_folder):
    held = Folder(folder=picture_folder[0], validation=3).load().train
    streamed = Folder(folder=picture_folder[0], validation=3, stream=True).load().train
    for train in (held, streamed):
        chunks = list(train.chunks(5))
        assert [len(chunk) for chunk in chunks] == [5, 5, 3]
        assert torch.equal(torch.cat(chunks), held.x)


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


def test_the_limit_counts_all_images_that_are_held_in_memory(tmp_path):
    for number in range(10):
        Image.new("L", (10, 10)).save(tmp_path / f"{number}.png")
    assert len(read_image_folder(tmp_path, limit=1000)[0]) == 10
    with pytest.raises(DataError, match=r"10 images would take 1,000 bytes.* --max-bytes=1000"):
        read_image_folder(tmp_path, limit=999)


def test_a_changed_byte_of_a_png_is_found_by_its_checksum(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)).save(path, compress_level=0)
    content = path.read_bytes()
    assert decode(path).image.size == (12, 12)
    for place in range(len(content) - 16):  # up to the end's own checksum
        changed = bytearray(content)
        changed[place] ^= 4
        with pytest.raises(DataError, match="a picture"):
            decode(bytes(changed), "a picture")
