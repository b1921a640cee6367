"""Test case of an untrusted input: a command and its expected result."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.untrusted_input.valid_files import ValidFiles


@dataclass(frozen=True)
class Case:
    """A command on a malicious file, and its expected result.

    Attributes:
        tool: Name of the script, ``tools/<tool>.py``.
        arguments: Command-line arguments.
        named: An error message must contain one of these: the file, or a setting in it.
        refuse: Whether the command must end with an error.
        output: A file that the command must write and a text that it must contain, or None.
    """

    tool: str
    arguments: tuple[str, ...]
    named: tuple[str, ...]
    refuse: bool = False
    output: tuple[Path, str] | None = None


#: Writes the file into an empty folder and returns the command.
Builder = Callable[[Path, ValidFiles, np.random.Generator], Case]


def copy_run(valid: ValidFiles, folder: Path, *, half: bool = False) -> Path:
    """Copy a run into ``folder``, so that a test can damage it."""
    return Path(shutil.copytree(valid.half if half else valid.run, folder / "run"))
