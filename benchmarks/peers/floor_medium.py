"""The limit again, with float32 products by oneDNN."""

import torch
from common import tell
from floor import run

if __name__ == "__main__":
    torch.set_float32_matmul_precision("medium")
    tell(run)
