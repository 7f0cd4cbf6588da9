"""`python -m latentia.cli`, for torchrun and the like."""

from latentia.cli import main

if __name__ == "__main__":
    main()
