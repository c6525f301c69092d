"""`python -m drive` is `drive`."""

import sys

from drive.cli import main

sys.exit(main())
