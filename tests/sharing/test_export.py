"""Exported files give the model's numbers, in another runtime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import latentia
from latentia.data import Ring
from latentia.distributions import Bernoulli, Full, Gaussian
from latentia.errors import ConfigurationError, RunError, UnsupportedError
from latentia.models import GAN, M2, VAE, ConditionalVAE
from latentia.networks import MLP, Conv
from latentia.networks.conditioning import CovariateDecoder, CovariateEncoder
from latentia.sharing import export
from latentia.sharing.exporting import Format

onnxruntime = pytest.importorskip("onnxruntime")


def vae(encoder: nn.Module | None = None, **options: object) -> VAE:
    torch.manual_seed(0)
    network, shape = options.pop("network", MLP(hidden=[8])), (1, 8, 8)
    posterior, likelihood = options.pop("posterior", Full()), options.pop("likelihood", Bernoulli())
    encoder = encoder or network.encoder(shape, posterior.parameter_shape((2,))[0])
    decoder = network.decoder(2, likelihood.parameter_shape(shape))
    return VAE(encoder, decoder, latent=2, event_shape=shape, posterior=posterior, likelihood=likelihood)


def run_onnx(path: Path, **inputs: Tensor) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    values = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return dict(zip([output.name for output in session.get_outputs()], values, strict=True))


@pytest.mark.parametrize("network", [MLP(hidden=[8]), Conv(width=4, hidden=8)])
def test_onnx_encoder_and_decoder_give_the_distributions_of_the_model(tmp_path: Path, network: object) -> None:
    model = vae(network=network).eval()
    export(model, tmp_path)
    x, z = torch.rand(7, 1, 8, 8), 3 * torch.randn(7, 2)
    encoded, decoded = run_onnx(tmp_path / "encoder.onnx", x=x), run_onnx(tmp_path / "decoder.onnx", z=z)
    with torch.no_grad():
        q, p = model.encode(x), model.decode(z)
    assert np.allclose(encoded["loc"], q.mean, atol=1e-5)
    assert np.allclose(encoded["scale_tril"], q.scale_tril, atol=1e-5)  # pyright: ignore[reportAttributeAccessIssue]
    assert np.allclose(decoded["mean"], p.mean, atol=1e-5)
    bernoulli = torch.distributions.Bernoulli(logits=torch.from_numpy(decoded["logits"]))
    x = x.round()
    assert torch.allclose(bernoulli.log_prob(x).sum((1, 2, 3)), p.log_prob(x), atol=1e-3)


def test_torch_export_is_read_without_latentia(tmp_path: Path) -> None:
    model = vae(likelihood=Gaussian(scale=0.5)).eval()
    export(model, tmp_path, format="torch-export", parts="decoder")
    assert not (tmp_path / "encoder.pt2").exists()
    program = torch.export.load(tmp_path / "decoder.pt2").module()
    z = torch.randn(4, 2)
    outputs = dict(
        zip(json.loads((tmp_path / "export.json").read_text())["parts"]["decoder"]["outputs"], program(z), strict=True)
    )
    assert torch.equal(outputs["loc"], model.decode(z).mean)


def test_safetensors_keep_the_weights_bit_for_bit(tmp_path: Path) -> None:
    model = vae()
    export(model, tmp_path, format="safetensors")
    found = load_file(tmp_path / "decoder.safetensors")
    expected = model.likelihood.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_gan_with_classes(tmp_path: Path) -> None:
    class Labeled(nn.Module):
        def __init__(self, inputs: int, outputs: tuple[int, ...]):
            super().__init__()
            self.layer, self.of_class, self.outputs = nn.Linear(inputs, 1), nn.Embedding(3, 4), outputs
            self.last = nn.Linear(5, int(np.prod(outputs)))

        def forward(self, x: Tensor, labels: Tensor) -> Tensor:
            both = torch.cat([self.layer(x.flatten(1)), self.of_class(labels)], 1)
            return self.last(both).unflatten(1, self.outputs)

    torch.manual_seed(1)
    model = GAN(Labeled(2, (1, 4, 4)), Labeled(16, (1,)), latent=2, shape=(1, 4, 4), classes=3)
    export(model, tmp_path)
    z, labels = torch.randn(6, 2), torch.tensor([0, 1, 2, 2, 1, 0])
    x = run_onnx(tmp_path / "generator.onnx", z=z, labels=labels)["x"]
    assert np.allclose(x, model.generate(z, labels).detach(), atol=1e-5)
    logits = run_onnx(tmp_path / "discriminator.onnx", x=torch.from_numpy(x), labels=labels)["logit"]
    assert np.allclose(logits, model.discriminate(torch.from_numpy(x), labels).detach(), atol=1e-5)


def test_the_classifier_of_an_m2_is_a_part(tmp_path: Path) -> None:
    network, parts = MLP(hidden=[8]), {"latent": 2, "event_shape": (5,), "classes": 3}
    networks = {"encoder": network.encoder((5,), 4, 3), "decoder": network.decoder(2, (5,), 3)}
    model = M2(**networks, classifier=network.encoder((5,), 3), **parts).eval()
    export(model, tmp_path, parts="classifier")
    found = run_onnx(tmp_path / "classifier.onnx", x=(x := torch.randn(4, 5)))
    assert np.allclose(np.exp(found["log_probs"]), model.classifier(x).softmax(1).detach(), atol=1e-5)


@pytest.mark.parametrize("given", ["labels", "covariates"])
def test_conditional_models_take_a_second_input(given: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, parts = MLP(hidden=[8]), {"latent": 2, "event_shape": (5,), "likelihood": Gaussian(scale=0.5)}
    if given == "labels":
        networks = (network.encoder((5,), 4, 3), network.decoder(2, (5,), 3))
        model = ConditionalVAE(*networks, classes=3, **parts)
        y = torch.tensor([0, 2, 1, 1])
    else:
        networks = (CovariateEncoder(network.encoder((5,), 6), 6, 2, 4), CovariateDecoder(network.decoder(4, (5,))))
        model = ConditionalVAE(*networks, classes=0, covariates=("age", "dose"), **parts)
        model.set_frequencies(y := 50 + 20 * torch.randn(4, 2))
    export(model.eval(), tmp_path, format="torch-export")
    x, z = torch.randn(4, 5), torch.randn(4, 2)
    loc, *_ = torch.export.load(tmp_path / "encoder.pt2").module()(x, y)
    assert torch.allclose(loc, model.given(y).encode(x).mean, atol=1e-5)
    loc, *_ = torch.export.load(tmp_path / "decoder.pt2").module()(z[:3], y[:3])
    assert torch.allclose(loc, model.given(y[:3]).decode(z[:3]).mean, atol=1e-5)
    about = json.loads((tmp_path / "export.json").read_text())["parts"]
    assert list(about["encoder"]["inputs"]) == ["x", given]


def test_a_module_that_cannot_be_traced_is_named_and_its_weights_are_still_exported(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 5)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x.flatten(1))
            return y if float(y.sum()) > 0 else -y

    model = vae(Branching())
    with pytest.raises(UnsupportedError, match=r"encoder: Conditional .*--format safetensors"):
        export(model, tmp_path)
    assert list(tmp_path.glob("encoder*")) == []
    assert (tmp_path / "decoder.onnx") in export(model, tmp_path, parts="decoder")
    assert export(model, tmp_path, format="safetensors")


def test_a_file_that_differs_from_the_model_is_refused(tmp_path: Path) -> None:
    class Counting(nn.Module):
        """Gives another result at each call, as a network does that samples or keeps state."""

        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Counting.calls += 1
            return x.flatten(1)[:, :5] + Counting.calls

    with pytest.raises(UnsupportedError, match=r"output loc differs from the model's"):
        export(vae(Counting()), tmp_path)
    assert list(tmp_path.glob("encoder*")) == []


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"format": "onx"}, "Did you mean onnx"),
        ({"parts": "encodr"}, "Did you mean encoder"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, Format], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        export(vae(), tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(RunError, match="--out"):
        export(vae(), tmp_path / "f")


def test_run_of_points(tmp_path: Path) -> None:
    recipe = latentia.GANRecipe(data=Ring(), latent=2, epochs=1, steps_per_epoch=2, fresh_steps=0)
    run = latentia.train(recipe, tmp_path / "run", quiet=True)
    files = run.export(format="torch-export")
    assert [file.name for file in files] == ["generator.pt2", "discriminator.pt2", "export.json"]
    z = torch.randn(3, 2)
    assert torch.equal(torch.export.load(files[0]).module()(z)[0], run.model.generate(z))
