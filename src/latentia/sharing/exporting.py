"""Export the networks of a model as ONNX, as torch-export programs, or as weights alone.

Each part becomes one file with a dynamic batch. The outputs are the parameters of the distribution by torch's names
(`loc`, `scale`, `logits`, …) and its mean, so that a user of the file need not know latentia's families. Every ONNX
file and every program is run on batches of several sizes and compared with the model before it is published.
"""

from __future__ import annotations

__all__ = ["export"]

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from latentia.distributions import Conditional
from latentia.errors import ConfigurationError, RunError, UnsupportedError, first_line, nearest
from latentia.files import atomic_write, write_tensors
from latentia.models import GAN, M2, VAE, ConditionalVAE, EncodedGAN
from latentia.training import seeded

Format = Literal["onnx", "torch-export", "safetensors"]

SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}
OPSET = 20
TOLERANCE = 1e-5  # of an output, relative to its largest value where that exceeds 1
BATCHES = (1, 2, 5)


def export(
    model: nn.Module,
    folder: Path | str,
    *,
    format: Format = "onnx",
    parts: str | Iterable[str] | None = None,
    about: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write parts of a model as files for other programs, and `export.json`, which describes them.

    A VAE has the parts `encoder` (x → parameters of q(z|x)) and `decoder` (z → parameters of p(x|z)); those of a
    conditional one also take `labels`, or `covariates` in the user's units, and an M2 has a `classifier`. A GAN has
    `generator` (z → x) and `discriminator` (x → logit), a BiGAN and a VAE/GAN `encoder` and `generator`. The batch is
    dynamic.

    Args:
        model: a VAE, a GAN or a hybrid.
        folder: made if it is not there.
        format: `onnx` (needs the extra `export`), `torch-export` (read by `torch.export.load`) or `safetensors`
            (weights by name, without the networks).
        parts: by name, or several with commas; all that the model has by default.
        about: further facts for export.json.

    Returns:
        The files.

    Raises:
        ConfigurationError: an unknown format or part, or a format whose packages are not installed.
        UnsupportedError: a module that the format cannot express, or one whose outputs the file does not reproduce.
        RunError: a folder that cannot be written.
    """
    if format not in get_args(Format):
        raise ConfigurationError([("--format", f"{format!r} is not known. {nearest(format, get_args(Format))}")])
    if format == "onnx":
        _require_onnx()
    known = _parts(model.eval())
    wanted = list(known) if parts is None else parts.split(",") if isinstance(parts, str) else list(parts)
    for name in wanted:
        if name not in known:
            raise ConfigurationError([("--parts", f"{name!r} is not a part of this model. {nearest(name, known)}")])
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {folder}: {error.strerror}; give another --out") from None
    files, described = [], {}
    for name in wanted:
        path = folder / f"{name}{SUFFIXES[format]}"
        described[name] = {"file": path.name, **_write(known[name], path, name, format)}
        files.append(path)
    facts = {
        "format": format,
        "latentia": version("latentia"),
        "torch": torch.__version__,
        **({"onnx": version("onnx"), "opset": OPSET} if format == "onnx" else {}),
        **(about or {}),
        "parts": described,
    }
    with atomic_write(folder / "export.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return [*files, folder / "export.json"]


class _Part(nn.Module):
    """A module whose outputs are named: tensors in, a tuple of tensors out."""

    def __init__(self, module: nn.Module, call: Callable[..., Mapping[str, Tensor]], examples: dict[str, Tensor]):
        super().__init__()
        self.module = module
        self._call = call
        self.inputs = {name: example.to(_device(module)) for name, example in examples.items()}
        with torch.no_grad():
            self.outputs = list(call(*(example[:2] for example in self.inputs.values())))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._call(*inputs)[name] for name in self.outputs)


def _device(module: nn.Module) -> torch.device:
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def _parts(model: nn.Module) -> dict[str, _Part]:
    """The parts of a model by name, each with example inputs of the largest batch of the check."""
    n = max(BATCHES)
    with seeded(0):
        if isinstance(model, ConditionalVAE):
            return _conditional_parts(model, n)
        if isinstance(model, VAE):
            x, z = torch.rand(n, *model.posterior.condition_shape), torch.randn(n, model.latent)
            return {
                "encoder": _Part(model.posterior, _parameters(model.posterior), {"x": x}),
                "decoder": _Part(model.likelihood, _parameters(model.likelihood), {"z": z}),
            }
        if isinstance(model, EncodedGAN):
            x, z = torch.rand(n, *model.event_shape), torch.randn(n, model.latent)
            return {
                "encoder": _Part(model.encoder, _parameters(model.encoder), {"x": x}),
                "generator": _Part(model.generator, lambda z: {"x": model.generate(z)}, {"z": z}),
            }
        if isinstance(model, GAN):
            z, x = model.draw_latent(n).cpu(), torch.rand(n * model.packing, *model.shape)
            labels = {"labels": torch.arange(n) % model.classes} if model.classes else {}
            parts = {"generator": _Part(model, lambda *a: {"x": model.generate(*a)}, {"z": z, **labels})}
            if model.packing == 1:
                parts["discriminator"] = _Part(model, lambda *a: {"logit": model.discriminate(*a)}, {"x": x, **labels})
            return parts
    raise UnsupportedError(f"a {type(model).__name__} has no parts that can be exported; give the run of a VAE or GAN")


def _conditional_parts(model: ConditionalVAE, n: int) -> dict[str, _Part]:
    """Encoder and decoder, with labels or covariates as a second input, and the classifier of an `M2`."""
    x, z = torch.rand(n, *model.posterior.condition_shape), torch.randn(n, model.latent)
    given = {"covariates" if model.covariates else "labels": model.draw_labels(n)}
    encode = lambda x, y: _parameters(model.given(y).posterior)(x)  # noqa: E731
    decode = lambda z, y: _parameters(model.given(y).likelihood)(z)  # noqa: E731
    parts = {
        "encoder": _Part(model.posterior, encode, {"x": x, **given}),
        "decoder": _Part(model.likelihood, decode, {"z": z, **given}),
    }
    if isinstance(model, M2):
        parts["classifier"] = _Part(model.classifier, lambda x: {"log_probs": model.log_classify(x)}, {"x": x})
    return parts


def _parameters(conditional: Conditional) -> Callable[[Tensor], Mapping[str, Tensor]]:
    """The function from a condition to the named parameters of its distribution, and its mean where it has one."""

    def call(condition: Tensor) -> dict[str, Tensor]:
        numbers = conditional.emit(condition)
        distribution = conditional.distribution(numbers)
        found = _named(distribution) or {"parameters": numbers}
        if "loc" not in found:
            with contextlib.suppress(NotImplementedError):
                found["mean"] = distribution.mean
        return found

    return call


def _named(distribution: Distribution) -> dict[str, Tensor]:
    """Parameters by torch's names; empty for a distribution without such parameters."""
    base = distribution
    while isinstance(base, Independent):
        base = base.base_dist
    names = getattr(type(base), "arg_constraints", {})
    names = names if isinstance(names, dict) else {}  # a property where the constraints depend on the parameters
    return {name: base.__dict__[name] for name in names if isinstance(base.__dict__.get(name), Tensor)}


def _write(part: _Part, path: Path, name: str, format: Format) -> dict[str, Any]:
    """Write one part and return what export.json says of it."""
    if format == "safetensors":
        state = {key: value.detach().cpu().contiguous() for key, value in part.module.state_dict().items()}
        write_tensors(path, state)
        return {"tensors": len(state)}
    part = part.eval()
    examples = tuple(part.inputs.values())
    try:
        program = _program(part, examples)
    except Exception as error:  # torch.export raises errors of many types for what it cannot trace
        raise UnsupportedError(
            f"{name}: {type(part.module).__name__} cannot be traced by torch.export ({first_line(error)}); "
            "use --format safetensors, or networks without control flow that depends on values"
        ) from None
    with atomic_write(path) as temporary:
        if format == "onnx":
            run = _write_onnx(part, program, temporary, name)
        else:
            buffer = io.BytesIO()
            torch.export.save(program, buffer)
            temporary.write_bytes(buffer.getvalue())
            loaded = torch.export.load(io.BytesIO(buffer.getvalue())).module()
            run = lambda *inputs: [output.detach().numpy() for output in loaded(*inputs)]  # noqa: E731
        difference = _difference(part, run, examples, name)
    return {
        "inputs": {key: ["batch", *value.shape[1:]] for key, value in part.inputs.items()},
        "outputs": part.outputs,
        "largest difference from the model": difference,
        "checked with batches of": list(BATCHES),
    }


def _program(part: _Part, examples: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        return torch.export.export(part, examples, dynamic_shapes=(tuple({0: batch} for _ in examples),))


def _write_onnx(
    part: _Part, program: torch.export.ExportedProgram, path: Path, name: str
) -> Callable[..., list[np.ndarray]]:
    """Write an ONNX file; returns a function that runs it by onnxruntime."""
    import onnxruntime

    try:
        with warnings.catch_warnings(), _quiet(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                program,
                input_names=list(part.inputs),
                output_names=part.outputs,
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
            assert made is not None
            made.save(str(path))
    except Exception as error:  # the converter raises errors of many types for an operation that it lacks
        raise UnsupportedError(
            f"{name}: {type(part.module).__name__} cannot be written as ONNX ({first_line(error)}); "
            "use --format torch-export or safetensors"
        ) from None
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> list[np.ndarray]:
        given = {key: x.numpy() for key, x in zip(part.inputs, inputs, strict=True)}
        return [np.asarray(output) for output in session.run(part.outputs, given)]

    return run


def _difference(part: _Part, run: Callable[..., list[np.ndarray]], examples: tuple[Tensor, ...], name: str) -> float:
    """The largest difference between the file's outputs and the model's, over batches of several sizes.

    Raises:
        UnsupportedError: if it exceeds the tolerance.
    """
    worst = 0.0
    for size in BATCHES:
        inputs = tuple(example[:size].cpu() for example in examples)
        with torch.no_grad():
            expected = part(*(x.to(_device(part.module)) for x in inputs))
        for label, mine, theirs in zip(part.outputs, expected, run(*inputs), strict=True):
            reference = mine.detach().cpu().double().numpy()
            scale = max(1.0, float(np.abs(reference).max()))
            gap = float(np.abs(reference - theirs).max()) / scale
            if reference.shape != theirs.shape or not gap <= TOLERANCE:
                raise UnsupportedError(
                    f"{name}: output {label} differs from the model's by {gap:.2g} (allowed {TOLERANCE:g}); "
                    "use --format safetensors, which keeps the weights bit for bit"
                )
            worst = max(worst, gap)
    return worst


def _require_onnx() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        cure = "install them with pip install 'latentia[export]', or use --format torch-export"
        raise ConfigurationError([("--format", f"onnx needs the packages {', '.join(missing)}; {cure}")])


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep the exporters' log from the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
