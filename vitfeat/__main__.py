"""``python -m vitfeat`` is ``vitfeat``."""

import signal
import sys

# Ctrl-C while this is imported ends the process; Python would show the traceback of an import.
before = signal.getsignal(signal.SIGINT)
if before is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from vitfeat.cli import main  # noqa: E402

signal.signal(signal.SIGINT, before)
sys.exit(main())
