"""The original Inception-v3 on a stand-in for its weights: same names, same shapes, numbers from a seed.

What the network makes of them was computed once by another implementation, torch-fidelity 0.4.0's
(`FeatureExtractorInceptionV3`, "2048" and "logits_unbiased"), and is written down here.
"""

import hashlib

import pytest
import torch
from safetensors.torch import save_file

from latentia.errors import DataError
from latentia.metrics import Features, Inception, score
from latentia.metrics.inception import ORIGINAL_SHA256, InceptionV3, load_inception, resize_like_tensorflow

THEIR_FIRST = [0.0793, 4.6167, 6.4040]  # features 0 to 2 of the first image
THEIR_LAST = [0.0032, 0.0617, 0.0000]  # features 2040 to 2042 of the third
THEIR_MEAN = 2.136712514366027
THEIR_SUREST = 0.2247


def stand_in() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Weights, and three colored images of 32×45."""
    generator = torch.Generator().manual_seed(5)
    state = {}
    for name, value in InceptionV3().state_dict().items():
        draw = torch.rand(value.shape, generator=generator) if value.is_floating_point() else None
        if draw is None:
            state[name] = value
        elif name.endswith("running_var"):
            state[name] = 0.5 + draw
        elif name.endswith("bn.weight"):
            state[name] = 0.8 + 0.4 * draw
        elif draw.dim() > 1:
            state[name] = (draw - 0.5) * 2 * (6 / draw[0].numel()) ** 0.5
        else:
            state[name] = (draw - 0.5) * 0.2
    return state, torch.randint(0, 256, (3, 3, 32, 45), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inception")
    state, images = stand_in()
    torch.save(state, folder / "weights.pth")
    save_file(state, folder / "weights.safetensors")
    hashes = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}
    return folder, images, hashes


def test_it_has_the_entries_of_the_original_file(weights):
    assert len(InceptionV3().state_dict()) == 566


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_features_and_classes_are_those_of_another_implementation(weights, name):
    folder, images, hashes = weights
    features = Inception(file=folder / name, sha256=hashes[name])
    found = features(images)
    assert found.shape == (3, 2048)
    torch.testing.assert_close(found[0, :3], torch.tensor(THEIR_FIRST), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[2, 2040:2043], torch.tensor(THEIR_LAST), atol=1e-4, rtol=1e-4)
    assert found.double().mean().item() == pytest.approx(THEIR_MEAN, rel=1e-5)
    probabilities = features.probabilities(images)
    assert probabilities.shape == (3, 1008)
    assert probabilities.max().item() == pytest.approx(THEIR_SUREST, abs=1e-4)


def test_gray_images_are_taken_as_three_equal_channels(weights):
    folder, images, hashes = weights
    features = Inception(file=folder / "weights.safetensors", sha256=hashes["weights.safetensors"])
    gray = images[:1, :1]
    torch.testing.assert_close(features(gray), features(gray.expand(-1, 3, -1, -1)))


def test_only_the_original_weights_make_a_fid(weights):
    folder, images, hashes = weights
    assert (Inception().frechet_name, Inception().kernel_name, Inception().score_name) == (
        "fid",
        "kid",
        "inception_score",
    )
    other = Inception(file=folder / "weights.pth", sha256=hashes["weights.pth"])
    assert other.frechet_name == "frechet_distance/inception"
    four = torch.cat([images, images.flip(3)])[:4]
    found = score(four, 255 - four, metrics=["kernel"], features=other, real_vs_real=False)
    assert [e.name for e in found] == ["kernel_distance/inception"]
    assert found[0].settings["protocol"]["features_hash"] == hashes["weights.pth"]
    assert "299×299" in found[0].settings["protocol"]["resize"]
    assert Features.parse(other.to_mapping()) == other


def test_other_files_are_refused(weights, tmp_path):
    folder, images, _ = weights
    with pytest.raises(DataError, match="pytorch-fid"):
        Inception()(images)
    with pytest.raises(DataError, match=ORIGINAL_SHA256):
        load_inception(folder / "weights.pth")
    short = tmp_path / "short.safetensors"
    save_file({"fc.weight": torch.zeros(3, 3)}, short)
    with pytest.raises(DataError, match="does not fit"):
        load_inception(short, hashlib.sha256(short.read_bytes()).hexdigest())
    junk = tmp_path / "junk.pth"
    junk.write_bytes(b"not a file of tensors")
    with pytest.raises(DataError, match="does not fit"):
        load_inception(junk, hashlib.sha256(junk.read_bytes()).hexdigest())


def test_resizing_is_tensorflows():
    row = torch.tensor([[[[0.0, 1.0, 4.0]]]])
    wide = resize_like_tensorflow(row.expand(1, 1, 3, 3), 6)[0, 0, 0]
    torch.testing.assert_close(wide, torch.tensor([0.0, 0.5, 1.0, 2.5, 4.0, 4.0]))
