"""``python -m spicenn``: the command line."""

import sys

from spicenn.cli import main

sys.exit(main())
