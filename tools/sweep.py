#!/usr/bin/env python3
"""Train configs on folds and seeds, and compare every row with a baseline row."""

from __future__ import annotations

import sys
from pathlib import Path

# Run from a checkout that was not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import unreid  # noqa: F401  (before fastreid: makes it importable)
from unreid.sweep.command import build_parser, main, parse

__all__ = ["build_parser", "main", "parse"]

if __name__ == "__main__":
    sys.exit(main())
