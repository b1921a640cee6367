"""Run the command ``unreid`` as ``python -m unreid``."""

from __future__ import annotations

import sys

from unreid.commands import main

if __name__ == "__main__":
    sys.exit(main())
