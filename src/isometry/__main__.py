"""`python -m isometry`, and so `torchrun -m isometry`."""

import sys

from isometry.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
