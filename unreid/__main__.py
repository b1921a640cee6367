"""``python -m unreid``: the command ``unreid``."""

from __future__ import annotations

import sys

from unreid.commands import main

if __name__ == "__main__":
    sys.exit(main())
