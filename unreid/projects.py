"""Finds the projects (methods) and loads one by name, at run time only.

A project is a folder ``projects/MyMethod`` with a package ``mymethod`` in it. The package's
``__init__`` registers its parts by decorators and offers

* ``add_config(cfg)``: declare the method's keys under ``cfg.MYMETHOD``;
* ``check_config(cfg)``: refuse values out of range (optional);
* ``before_training(cfg, images, quality) -> None``: a stage that comes before the main one
  (optional; CALR's intra-camera stage);
* ``draw_pictures(cfg, weights, output, ...) -> paths``: what a trained model sees (optional;
  PseudoPair's heads and alignments).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unreid.checks import nearest


@dataclass(frozen=True)
class Project:
    """One method: its name, its folder and the functions its package offers."""

    name: str
    folder: Path
    add_config: Callable[[Any], None]
    check_config: Callable[[Any], None]
    before_training: Callable[..., None] | None
    draw_pictures: Callable[..., Any] | None = None


def projects_root() -> Path:
    """``UNREID_PROJECTS``, or the folder ``projects`` beside the package."""
    default = Path(__file__).resolve().parent.parent / "projects"
    return Path(os.environ.get("UNREID_PROJECTS", default))


def discover_projects() -> dict[str, Path]:
    """Name -> folder of every project, by convention: ``projects/X/x/__init__.py``."""
    root = projects_root()
    folders = sorted(root.iterdir()) if root.is_dir() else []
    return {f.name: f for f in folders if (f / f.name.lower() / "__init__.py").is_file()}


def load_project(name: str) -> Project:
    """Import a project's package, which registers its parts.

    Raises:
        KeyError: no such project; the message lists those that exist.
        TypeError: its package lacks ``add_config``.
    """
    known = discover_projects()
    if not isinstance(name, str) or name not in known:
        listed = ", ".join(known) or f"none in {projects_root()}"
        raise KeyError(f"PROJECT must be one of {listed}, got {name!r}{nearest(name, known)}")
    folder = known[name]
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    package = importlib.import_module(name.lower())
    if not callable(getattr(package, "add_config", None)):
        raise TypeError(f"{folder / name.lower()} must offer add_config(cfg)")
    return Project(
        name=name,
        folder=folder,
        add_config=package.add_config,
        check_config=getattr(package, "check_config", lambda cfg: None),
        before_training=getattr(package, "before_training", None),
        draw_pictures=getattr(package, "draw_pictures", None),
    )
