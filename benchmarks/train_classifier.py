"""Train the shipped digit classifier again: LATENTIA_DATA=… python benchmarks/train_classifier.py

Adam, one-cycle learning rate, cross entropy with label smoothing, on 55 000 MNIST training images. Each image is
shifted, rotated and scaled a little; a quarter is shown at a third of the resolution and a quarter binarized, because
generated images are blurred, coarse or binary. No held-out score selects anything: the weights of the last epoch are
kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, interpolate

import latentia.metrics
from latentia.data import MNIST, Splits
from latentia.metrics.classifier import FACTS, SIDE, WEIGHTS, DigitClassifier

COMMAND = "python benchmarks/train_classifier.py"
PACKAGE = Path(latentia.metrics.__file__).parent


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate by up to 0.2 radians, scale by up to 15 %, shift by up to 2 pixels; blur a quarter, binarize a quarter."""
    n = len(images)
    turn, grow, right, down, chance = torch.rand(5, n, generator=generator).unbind()
    angle, scale = (turn * 2 - 1) * 0.2, 1 + (grow * 2 - 1) * 0.15
    shift = 2 * 2 / SIDE
    first = torch.stack([angle.cos() * scale, -angle.sin() * scale, (right * 2 - 1) * shift], dim=1)
    second = torch.stack([angle.sin() * scale, angle.cos() * scale, (down * 2 - 1) * shift], dim=1)
    grid = affine_grid(torch.stack([first, second], dim=1), list(images.shape), align_corners=False)
    moved = grid_sample(images, grid, align_corners=False)
    coarse = interpolate(moved, size=(9, 9), mode="bilinear", antialias=True, align_corners=False)
    coarse = interpolate(coarse, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    binary = (torch.rand(moved.shape, generator=generator) < moved).float()
    chance = chance.reshape(-1, 1, 1, 1)
    return torch.where(chance < 0.25, coarse, torch.where(chance < 0.5, binary, moved)).clamp(0, 1)


def train_classifier(splits: Splits, epochs: int, seed: int, batch_size: int = 128) -> DigitClassifier:
    """Train on the training part and return the folded classifier."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DigitClassifier(normalize=True)
    images, labels = splits.train.x, splits.train.labels
    assert labels is not None, "MNIST has labels"
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    steps = math.ceil(len(images) / batch_size)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=epochs * steps)
    for epoch in range(epochs):
        began, total = time.perf_counter(), 0.0
        model.train()
        for rows in torch.randperm(len(images), generator=generator).split(batch_size):
            x = augment(images[rows].float() / 255, generator)
            cost = cross_entropy(model(x), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
            rate.step()
            total += cost.item() * len(rows)
        print(f"epoch {epoch + 1}: {total / len(images):.4f} nats, {time.perf_counter() - began:.0f} s", flush=True)
    return folded(model)


def folded(model: DigitClassifier) -> DigitClassifier:
    """The same function in evaluation mode, with the normalization layers folded into the convolutions."""
    plain = DigitClassifier()
    for mine, other in zip(model.blocks, plain.blocks, strict=True):
        other[0].load_state_dict(nn.utils.fuse_conv_bn_eval(mine[0].eval(), mine[1].eval()).state_dict())
    plain.head.load_state_dict(model.head.state_dict())
    return plain.eval()


@torch.no_grad()
def errors_on(model: DigitClassifier, images: Tensor, labels: Tensor) -> int:
    """The number of misclassified images."""
    guesses = torch.cat([model(x.float() / 255).argmax(1) for x in images.split(1000)])
    return int((guesses != labels).sum())


def main() -> None:
    """Train, test, and write the weights and the facts about them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=PACKAGE)
    options = parser.parse_args()
    splits = MNIST().load()
    model = train_classifier(splits, options.epochs, options.seed)
    test = splits.test
    assert test.labels is not None, "MNIST has labels"
    wrong = errors_on(model, test.x, test.labels)
    content = save({name: value.contiguous() for name, value in model.state_dict().items()})
    (options.out / WEIGHTS).write_bytes(content)
    facts = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "trained_on": f"MNIST, {len(splits.train)} training images",
        "test_images": len(test),
        "test_errors": wrong,
        "accuracy": 1 - wrong / len(test),
        "parameters": sum(p.numel() for p in model.parameters()),
        "epochs": options.epochs,
        "seed": options.seed,
        "command": COMMAND,
        "torch": torch.__version__,
    }
    (options.out / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
