"""The command line. Data goes to standard output, everything else to standard error.

Exit code 0: good; 1: it failed; 2: wrong usage or a wrong setting. The modules of the commands import
what they need when they run, so that `--help` answers at once.
"""

from __future__ import annotations

import sys

from event_router.cli.commands import app
from event_router.cli.failures import exit_code
from event_router.core.errors import EventRouterError


def main() -> None:
    """Run the command that the arguments name; a known error becomes one line and an exit code."""
    try:
        app()
    except EventRouterError as error:
        print(f"event-router: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(exit_code(error))
