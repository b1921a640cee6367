#!/usr/bin/env python3
"""The command ``unreid sweep``, from a checkout that is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unreid.commands.sweep import build_parser, main, parse

__all__ = ["build_parser", "main", "parse"]

if __name__ == "__main__":
    sys.exit(main())
