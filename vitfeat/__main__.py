"""``python -m vitfeat`` is ``vitfeat``."""

import sys

from vitfeat.cli import main

sys.exit(main())
