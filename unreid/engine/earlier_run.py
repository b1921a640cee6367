"""Prepare an output folder: move an earlier run, delete temporary files of killed runs."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

#: Suffix of the target folder while an earlier run is being moved.
_MOVING = ".moving"

#: Temporary names of :func:`unreid.engine.atomic.replace_file`.
_TEMPORARY = re.compile(r".+\.\d+\.tmp")

#: Folders that a run creates.
_FOLDERS = ("labels", "intra")

_FILES = (
    "config.yaml",
    "results.json",
    "local_labels.npz",
    "log.txt",
    "metrics.json",
    "epochs.jsonl",
    "last_checkpoint",
    "report.html",
)


def output_files(folder: str) -> list[str]:
    """Return the sorted names of the files and folders in ``folder`` that a run creates."""
    present = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return [
        name
        for name in present
        if name in _FILES
        or name in _FOLDERS
        or name.endswith(".pth")
        or name.startswith(("events.out.tfevents", "log.txt.rank"))
    ]


def move_earlier_run(folder: str) -> str | None:
    """Move the files of an earlier run in ``folder`` to ``folder/previous/001``, ``002``, ...

    Files that no run creates are not moved.

    Returns:
        The target folder, or None if there was no earlier run.
    """
    finished = finish_move(folder)
    names = output_files(folder)
    if not {"results.json", "last_checkpoint", "local_labels.npz", "labels"} & set(names):
        return finished
    number = 1
    while os.path.exists(target := os.path.join(folder, "previous", f"{number:03d}")):
        number += 1
    os.makedirs(target + _MOVING)
    return finish_move(folder)


def finish_move(folder: str) -> str | None:
    """Complete a move that was interrupted, so that the files of two runs are never mixed.

    Returns:
        The target folder, or None if no move was interrupted.
    """
    previous = os.path.join(folder, "previous")
    moving = (
        [n for n in sorted(os.listdir(previous)) if n.endswith(_MOVING)]
        if os.path.isdir(previous)
        else []
    )
    if not moving:
        return None
    for name in output_files(folder):
        os.rename(os.path.join(folder, name), os.path.join(previous, moving[0], name))
    target = os.path.join(previous, moving[0].removesuffix(_MOVING))
    os.rename(target + _MOVING, target)
    return target


def remove_temporary_files(folder: str) -> list[str]:
    """Delete temporary files that killed processes left among the files of a run.

    Returns:
        Sorted paths of the deleted files.
    """
    root = Path(folder)
    found = [*root.glob("*.tmp"), *(p for n in _FOLDERS for p in (root / n).rglob("*.tmp"))]
    temporary = sorted(str(p) for p in found if _TEMPORARY.fullmatch(p.name))
    for path in temporary:
        with contextlib.suppress(OSError):
            os.remove(path)
    return temporary
