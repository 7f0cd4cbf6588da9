"""latentia with matmul=medium and compile=true."""

from common import tell
from ours import run_with

if __name__ == "__main__":
    tell(run_with(matmul="medium", compile=True))  # pyright: ignore[reportArgumentType]
