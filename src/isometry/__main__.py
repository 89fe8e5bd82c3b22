"""The commands `isometry` and `python -m isometry`, and so `torchrun -m isometry`."""

import signal
import sys

from isometry.cli.streams import ready


def main() -> int:
    """Runs the command line and returns its exit code."""
    ready()
    # Importing everything takes seconds, in which nothing has begun: Ctrl-C ends the process as it does any other.
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from isometry.cli.main import main as run

    signal.signal(signal.SIGINT, handler)
    return run()


if __name__ == "__main__":
    sys.exit(main())
