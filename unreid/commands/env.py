"""Print an environment report for an issue: versions, device, threads, compiled kernels.

The report has no host name, user name or path.

example:
  unreid env
"""

from __future__ import annotations

import sys

from unreid.cli import Parser


def build_parser() -> Parser:
    """Return the parser of the command."""
    return Parser(__doc__, prog="unreid env")


def main(arguments: list[str] | None = None) -> int:
    """Print the environment report; return 0."""
    build_parser().parse_args(arguments)

    from unreid.env import describe

    sys.stdout.write(describe())
    return 0
