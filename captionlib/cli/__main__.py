"""`python -m captionlib.cli`, for launchers that want a module."""

import sys

from captionlib.cli import main

if __name__ == "__main__":
    sys.exit(main())
