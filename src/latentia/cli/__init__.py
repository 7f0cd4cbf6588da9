"""The command line: commands parse, call `latentia.interface` and print; each imports what it needs.

This module imports nothing slow, so that Ctrl-C is handled before anything else is imported.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentia.cli.application import app as app

__all__ = ["main"]

INTERRUPTED = 130  # what a shell expects after Ctrl-C


def main() -> None:
    """Entry point of the `latentia` command: one clear message for each error, and no traceback."""
    process = os.getpid()

    def leave(*_: object) -> None:
        """End at once: a KeyboardInterrupt inside an import or a destructor would be swallowed."""
        if os.getpid() == process:  # not a worker of the data, which has inherited this
            os.write(2, (b"\x1b[?25h" if sys.stderr.isatty() else b"") + b"error: interrupted\n")  # cursor on again
        os._exit(INTERRUPTED)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)
    from latentia.threads import keep_memory, training_environment

    keep_memory()
    os.environ.update(training_environment() | os.environ)  # before torch is imported
    from latentia.cli.application import run

    run()


def __getattr__(name: str) -> Any:
    if name == "app":
        from latentia.cli.application import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
