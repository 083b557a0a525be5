"""`python -m cbmon`: the same program as the `cbmon` console script."""

import sys

from cbmon.cli import main

if __name__ == "__main__":
    sys.exit(main())
