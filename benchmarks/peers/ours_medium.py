"""latentia with matmul=medium: float32 products by oneDNN."""

from common import tell
from ours import run_with

if __name__ == "__main__":
    tell(run_with(matmul="medium"))  # pyright: ignore[reportArgumentType]
