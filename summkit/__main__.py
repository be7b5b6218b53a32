"""`python -m summkit`: the command line."""

import sys

from summkit.cli import main

sys.exit(main())
