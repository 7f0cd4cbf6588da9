"""The classification accuracy score: train a classifier on labeled samples, test it on real images.

A classifier of samples of p(x|y) reaches the accuracy of one of real images only if the samples have the class they
were asked for, and its variety (Ravuri and Vinyals 2019, "Classification accuracy score for conditional generative
models", section 3). Compare it with the accuracy after training on as many real images, the values for real and for
training images in the table. The classifier here is a small perceptron of pixels, and not the paper's residual network.
"""

from __future__ import annotations

__all__ = ["ClassificationAccuracy", "classification_accuracy"]

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from latentia.errors import DataError, UnsupportedError
from latentia.estimate import Estimate
from latentia.metrics.metric import BOTH, Metric, MetricInputs

WIDTH, BATCH = 256, 128


class ClassificationAccuracy(Metric):
    """The accuracy on real images of a classifier that was trained on samples with their labels."""

    higher_is_better: ClassVar[dict[str, int]] = {"classification_accuracy": 1}
    measures: ClassVar[dict[str, str]] = {"classification_accuracy": BOTH}
    aliases: ClassVar[tuple[str, ...]] = ("cas",)
    needs_labels: ClassVar[bool] = True

    steps: int = Field(default=600, ge=1, description="steps of the classifier")

    def __call__(self, inputs: MetricInputs) -> list[Estimate]:
        if inputs.labeled is None:
            raise UnsupportedError(
                "classification accuracy needs samples with labels, and labeled data: evaluate a conditional-vae, an "
                "m2, or a gan with conditional=true"
            )
        real, labels, fake, fake_labels = inputs.labeled()
        return [classification_accuracy(fake, fake_labels, real, labels, steps=self.steps, seed=inputs.seed)]


def classification_accuracy(
    x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor, *, steps: int = 600, seed: int = 0
) -> Estimate:
    """The share of test images that a classifier, trained on x and y, gives their label.

    The classifier has one hidden layer of 256 units; it is trained by Adam on batches of 128. The standard error is
    binomial, over the test images, for this one classifier.

    Args:
        x: images to train on, uint8, (N, *shape).
        y: their labels, int64, (N,), from 0.
        test_x: images to test on, (M, *shape).
        test_y: their labels.
        steps: of the training.
        seed: of the weights and batches.

    Raises:
        DataError: for labels below 0, or fewer than two images of either.
    """
    if min(len(x), len(test_x)) < 2 or min(int(y.min()), int(test_y.min())) < 0:
        raise DataError("classification accuracy needs two images or more of each kind, and labels of at least 0")
    classes = 1 + max(int(y.max()), int(test_y.max()))
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        size = x[0].numel()
        model = nn.Sequential(nn.Flatten(), nn.Linear(size, WIDTH), nn.ReLU(), nn.Linear(WIDTH, classes))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        rows: list[Tensor] = []
        for _ in range(steps):
            rows = rows or list(torch.randperm(len(x)).split(BATCH))
            chosen = rows.pop()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[chosen].float() / 255), y[chosen]).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        right = torch.cat([model(part.float() / 255).argmax(1) for part in test_x.split(1000)]) == test_y
    settings = {"classifier": f"perceptron, {WIDTH} hidden units", "steps": steps, "interval": "binomial"}
    return Estimate.mean(
        right.double(),
        name="classification_accuracy",
        unit="1",
        method="accuracy on real images",
        settings=settings,
    )
