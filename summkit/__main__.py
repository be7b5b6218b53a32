"""`python -m summkit`: the command line."""

import sys

from summkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
