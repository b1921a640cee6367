"""Print versions, device, threads and compiled kernels: what an issue needs.

No host name, no user name, no path is in it.

example:
  unreid env
"""

from __future__ import annotations

import sys

from unreid.cli import Parser


def build_parser() -> Parser:
    """The command line."""
    return Parser(__doc__, prog="unreid env")


def main(arguments: list[str] | None = None) -> int:
    """Return 0."""
    build_parser().parse_args(arguments)

    from unreid.env import describe

    sys.stdout.write(describe())
    return 0
