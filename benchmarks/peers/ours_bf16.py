"""latentia with precision=bf16-mixed: networks in bfloat16, laws and weights in float32."""

from common import tell
from ours import run_with

if __name__ == "__main__":
    tell(run_with(precision="bf16-mixed"))  # pyright: ignore[reportArgumentType]
