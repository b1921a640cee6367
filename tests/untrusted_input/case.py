"""Test case of an untrusted input: a command and the expected result."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.untrusted_input.valid_files import ValidFiles


@dataclass(frozen=True)
class Case:
    """A command on a malicious file.

    Attributes:
        tool: ``tools/<tool>.py``.
        arguments: Of its command line.
        named: An error must have one of these words in it: the file, or the setting in it.
        refuse: Whether nothing but an error will do.
        left: A file that must be there in the end with these words in it, or nothing.
    """

    tool: str
    arguments: tuple[str, ...]
    named: tuple[str, ...]
    refuse: bool = False
    left: tuple[Path, str] | None = None


#: Makes the file in an empty folder and says what to do with it.
Builder = Callable[[Path, ValidFiles, np.random.Generator], Case]


def copy_run(valid: ValidFiles, folder: Path, *, half: bool = False) -> Path:
    """Copy a run into ``folder``, so that a test can damage it."""
    return Path(shutil.copytree(valid.half if half else valid.run, folder / "run"))
