"""The command ``unreid`` and its sub-commands, one module each.

A module is imported when its command is called. It imports torch and fastreid only after it has
checked the arguments, so that ``--help`` and errors are fast.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from unreid.checks import nearest

#: Sub-command -> description. ``show-pairs`` is the module ``show_pairs``.
COMMANDS = {
    "train": "train a method without labels",
    "eval": "score a model on a test set",
    "label": "write pseudo identities of a folder of crops",
    "search": "find the images of a gallery that show the person of a query",
    "report": "write one HTML page of a training, or of several side by side",
    "check": "validate a folder of crops or a data set before training",
    "export": "write a trained network as ONNX or TorchScript",
    "sweep": "train a grid of settings on folds and seeds, and compare the rows",
    "demo": "train on a synthetic data set and print the scores before and after",
    "env": "print versions, device and kernels for an issue",
    "show-pairs": "draw the pairs and alignments of a trained PseudoPair",
    "synthesize": "write the synthetic multi-camera data set",
}


def usage() -> str:
    """Return the text of ``unreid --help``."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name.ljust(width)}  {does}" for name, does in COMMANDS.items())
    return (
        f"usage: unreid COMMAND ...\n\nPerson re-identification without labels.\n\n{listed}\n\n"
        "unreid COMMAND --help has options and an example.\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sub-command given by the first argument; return its exit code."""
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or [""]
    if name in ("-h", "--help"):
        sys.stdout.write(usage())
        return 0
    if name == "--version":
        from unreid import __version__

        sys.stdout.write(f"unreid {__version__}\n")
        return 0
    if name not in COMMANDS:
        said = f"unknown command {name!r}{nearest(name, COMMANDS)}" if name else "name a command"
        sys.stderr.write(f"{usage()}\nunreid: error: {said}\n")
        return 2
    module = importlib.import_module(f"unreid.commands.{name.replace('-', '_')}")
    return int(module.main(rest))
