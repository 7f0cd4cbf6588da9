"""The Inception-v3 network of the original Fréchet inception distance (FID).

The weights of 2015-12-05, on which the "FID" was defined (Szegedy et al. 2016; Heusel et al. 2017), as converted for
PyTorch: the file pt_inception-2015-12-05-6726825d.pth of the project pytorch-fid, 95.6 MB. It is neither shipped nor
fetched: put it where `Inception.file` says; its sha256 is checked. The network differs from later Inception-v3s:
    average
pooling excludes the padding, the last block uses maximum pooling, and there are 1008 outputs.

Images are preprocessed as in the original program: resized bilinearly to 299×299 by TensorFlow 1's rule (pixel i of the
result lies at i·in/299 of the image, no half pixels, no smoothing), then (x − 128)/128.
"""

from __future__ import annotations

__all__: list[str] = []

import hashlib
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, relu

from latentia.errors import DataError

ORIGINAL_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIDE = 299
CLASSES = 1008


class _Conv(nn.Module):
    """Convolution, normalization, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv(x)), inplace=True)


def _wide(inputs: int, outputs: int) -> _Conv:
    return _Conv(inputs, outputs, (1, 7), padding=(0, 3))


def _tall(inputs: int, outputs: int) -> _Conv:
    return _Conv(inputs, outputs, (7, 1), padding=(3, 0))


def _mean3(x: Tensor) -> Tensor:
    return avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class _A(nn.Module):
    def __init__(self, inputs: int, pool: int):
        super().__init__()
        self.branch1x1 = _Conv(inputs, 64)
        self.branch5x5_1, self.branch5x5_2 = _Conv(inputs, 48), _Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(inputs, 64), _Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, padding=1)
        self.branch_pool = _Conv(inputs, pool)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(_mean3(x))], dim=1)


class _B(nn.Module):
    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3 = _Conv(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(inputs, 64), _Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), three, max_pool2d(x, 3, stride=2)], dim=1)


class _C(nn.Module):
    def __init__(self, inputs: int, inner: int):
        super().__init__()
        self.branch1x1 = _Conv(inputs, 192)
        self.branch7x7_1, self.branch7x7_2 = _Conv(inputs, inner), _wide(inner, inner)
        self.branch7x7_3 = _tall(inner, 192)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = _Conv(inputs, inner), _tall(inner, inner)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = _wide(inner, inner), _tall(inner, inner)
        self.branch7x7dbl_5 = _wide(inner, 192)
        self.branch_pool = _Conv(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_mean3(x))], dim=1)


class _D(nn.Module):
    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = _Conv(inputs, 192), _Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1, self.branch7x7x3_2 = _Conv(inputs, 192), _wide(192, 192)
        self.branch7x7x3_3, self.branch7x7x3_4 = _tall(192, 192), _Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([three, seven, max_pool2d(x, 3, stride=2)], dim=1)


class _E(nn.Module):
    """The last kind of block; `largest` takes the maximum over windows, where the first of the two takes the mean."""

    def __init__(self, inputs: int, largest: bool):
        super().__init__()
        self.largest = largest
        self.branch1x1 = _Conv(inputs, 320)
        self.branch3x3_1 = _Conv(inputs, 384)
        self.branch3x3_2a = _Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = _Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(inputs, 448), _Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = _Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = _Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = _Conv(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        three, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = max_pool2d(x, 3, stride=1, padding=1) if self.largest else _mean3(x)
        parts = [
            self.branch1x1(x),
            self.branch3x3_2a(three),
            self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(pooled),
        ]
        return torch.cat(parts, dim=1)


class InceptionV3(nn.Module):
    """Images (B, 1 or 3, H, W) in [0, 1] to the 2048 numbers before the last layer; names of parts are the file's."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Conv(64, 80)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _A(192, 32), _A(256, 64), _A(288, 64)
        self.Mixed_6a = _B(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (_C(768, inner) for inner in (128, 160, 160, 192))
        self.Mixed_7a = _D(768)
        self.Mixed_7b, self.Mixed_7c = _E(1280, largest=False), _E(2048, largest=True)
        self.fc = nn.Linear(2048, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        x = (resize_like_tensorflow(x * 255, SIDE) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(max_pool2d(x, 3, stride=2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(max_pool2d(x, 3, stride=2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))

    def probabilities(self, features: Tensor) -> Tensor:
        """p(y|x) from features (B, 2048), without the last layer's offset, as the original inception score has it."""
        return (features @ self.fc.weight.T).softmax(1)


def resize_like_tensorflow(images: Tensor, side: int) -> Tensor:
    """Bilinear resizing to side × side with pixel i at i·in/out, (B, C, H, W) → (B, C, side, side)."""
    rows, columns = (_interpolation(size, side, images) for size in images.shape[2:])
    return rows @ images @ columns.T


def _interpolation(size: int, side: int, like: Tensor) -> Tensor:
    """The matrix that resizes one axis, (side, size)."""
    place = torch.arange(side, dtype=torch.float64) * (size / side)
    low = place.floor().long().clamp(max=size - 1)
    share = place - low
    matrix = torch.zeros(side, size, dtype=torch.float64)
    index = torch.arange(side)
    matrix[index, low] += 1 - share
    matrix[index, (low + 1).clamp(max=size - 1)] += share
    return matrix.to(like)


def load_inception(file: Path, sha256: str = ORIGINAL_SHA256) -> InceptionV3:
    """The network with the weights of a file, .pth (tensors only, nothing else is unpickled) or .safetensors.

    Raises:
        DataError: if the file is missing, is another than the one with this sha256, or does not fit the network.
    """
    try:
        content = file.read_bytes()
    except OSError:
        raise DataError(
            f"there are no Inception weights at {file}. Put pt_inception-2015-12-05-6726825d.pth of the project "
            "pytorch-fid (95.6 MB) there, or use features=random-convolutional, whose distance is not the FID"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"{file} has the sha256 {found}, and {sha256} is expected; it is another file or damaged, fetch it again"
        )
    model = InceptionV3()
    try:
        state = (
            load_safetensors(content) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
        )
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError, pickle.UnpicklingError, AttributeError, TypeError) as error:
        raise DataError(f"{file} does not fit Inception-v3: {str(error)[:300]}") from None
    return model.eval().requires_grad_(False)
