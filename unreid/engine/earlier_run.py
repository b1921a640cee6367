"""What stands in an output folder when a run begins: a whole earlier run, or what a kill left."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

#: While an earlier run is being moved, its new folder has this ending.
_MOVING = ".moving"

#: What :func:`unreid.engine.atomic.replace_file` writes to before the file has its name.
_TEMPORARY = re.compile(r".+\.\d+\.tmp")

#: Folders that a run makes.
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
    """The files and folders in ``folder`` that a run of ours makes."""
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
    """Move what an earlier run left in ``folder`` to ``folder/previous/001``, ``002``, ...

    Returns:
        Where to, or None when there was nothing. Files that no run makes stay.
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
    """Go on with a move that a kill broke off, so that two runs are never mixed.

    Returns:
        Where to, or None when none was under way.
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
    """Delete what killed processes left half-written among a run's files; returns the paths."""
    root = Path(folder)
    found = [*root.glob("*.tmp"), *(p for n in _FOLDERS for p in (root / n).rglob("*.tmp"))]
    leftovers = sorted(str(p) for p in found if _TEMPORARY.fullmatch(p.name))
    for path in leftovers:
        with contextlib.suppress(OSError):
            os.remove(path)
    return leftovers
