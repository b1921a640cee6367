#!/usr/bin/env python3
"""The command ``unreid train``, from a checkout that is not installed.

python tools/train_net.py --config-file projects/CALR/configs/market.yml [--eval-only]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unreid.commands import train
from unreid.commands.train import build_parser, parse

__all__ = ["build_parser", "main", "parse"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code of ``unreid train``; other processes run this file."""
    return train.main(arguments, command=[__file__])


if __name__ == "__main__":
    sys.exit(main())
