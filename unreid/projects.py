"""Find projects (methods) and their configs, and import a project by name.

A project is a folder ``projects/MyMethod`` that contains a package ``mymethod`` and a folder
``configs``. A wheel contains these folders inside the package ``unreid``. A project of another
distribution is found by its entry point in the group ``unreid.projects``; its package contains the
folder ``configs``.

The package of a project registers models, labelers and samplers by decorators when it is imported.
It defines exactly one subclass of :class:`unreid.contracts.Project`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from unreid.checks import nearest

if TYPE_CHECKING:  # contracts imports torch, which listing projects does not need
    from unreid.contracts import Project

#: Folder inside the package of a wheel, with the content of ``projects`` in a checkout.
BUNDLED = "bundled_projects"
#: Group of the entry points by which other distributions declare projects: MyMethod = "mymethod".
ENTRY_POINTS = "unreid.projects"


def projects_root() -> Path:
    """Return the folder of projects.

    Returns:
        The environment variable ``UNREID_PROJECTS``. If it is not set: the folder that a wheel
        installs inside the package, or ``projects`` of the checkout.
    """
    package = Path(__file__).resolve().parent
    bundled = package / BUNDLED
    default = bundled if bundled.is_dir() else package.parent / "projects"
    return Path(os.environ.get("UNREID_PROJECTS", default))


def discover_projects() -> dict[str, Path]:
    """Return the name and folder of every project.

    Returns:
        Name -> the folder that contains ``configs``. Projects of :func:`projects_root` come first;
        project ``X`` has the package ``X/x``. Projects of entry points follow; their folder is
        their package.
    """
    root = projects_root()
    folders = sorted(root.iterdir()) if root.is_dir() else []
    found = {f.name: f for f in folders if (f / f.name.lower() / "__init__.py").is_file()}
    for name, point in _entry_points().items():
        folder = _package_folder(point)
        if name not in found and folder is not None:
            found[name] = folder
    return found


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    """Return the entry points of projects of other distributions by name, sorted."""
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {point.name: point for point in sorted(points, key=lambda point: point.name)}


def _package_folder(point: importlib.metadata.EntryPoint) -> Path | None:
    """Return the folder of the package of an entry point without importing it, or None."""
    try:
        spec = importlib.util.find_spec(point.module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        warnings.warn(
            f"entry point {point.name} = {point.value} of the group {ENTRY_POINTS} must name a"
            " package, and no such package is installed; the project is left out",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def list_configs(name: str, folder: Path) -> dict[str, Path]:
    """Return the short form and file of every config of a project.

    Args:
        name: The project.
        folder: Its folder, from :func:`discover_projects`.

    Returns:
        ``"CALR/small/plus"`` -> ``folder/configs/small/plus.yml``. Files that only serve as a base
        of others (``Base-*.yml``) are left out.
    """
    root = folder / "configs"
    files = sorted(f for f in root.rglob("*.yml") if not f.name.startswith("Base-"))
    return {f"{name}/{f.relative_to(root).with_suffix('').as_posix()}": f for f in files}


def resolve_config(config: str | os.PathLike[str]) -> Path:
    """Return the file of a config that is given as a file or in its short form.

    Args:
        config: Path of a file, or ``PROJECT/NAME`` such as ``CALR/market``, with or without the
            suffix ``.yml``. An existing file of this path takes precedence.

    Raises:
        FileNotFoundError: There is no such file or config; the message lists those that exist.
    """
    if os.path.isfile(config):
        return Path(config)
    short = os.fspath(config).removesuffix(".yml")
    projects = discover_projects()
    known: dict[str, Path] = {}
    for name, folder in projects.items():
        known |= list_configs(name, folder)
    if short in known:
        return known[short]
    name = short.partition("/")[0]
    listed = [c for c in known if c.startswith(f"{name}/")] or [f"{p}/..." for p in projects]
    raise FileNotFoundError(
        f"--config-file {config}: no such file, and no config of a project; there are"
        f" {', '.join(listed) or 'none'}{nearest(short, known)}"
    )


def load_project(name: str) -> Project:
    """Import the package of a project, and return an instance of its subclass of ``Project``.

    Raises:
        KeyError: The project does not exist; the message lists those that exist.
        TypeError: The package does not define exactly one subclass of ``Project``.
    """
    from unreid.contracts import Project

    known = discover_projects()
    if not isinstance(name, str) or name not in known:
        listed = ", ".join(known) or f"none in {projects_root()}"
        raise KeyError(f"PROJECT must be one of {listed}, got {name!r}{nearest(name, known)}")
    folder = known[name]
    module = _module_of(name, folder)
    package = importlib.import_module(module)
    found = [
        value
        for value in vars(package).values()
        if isinstance(value, type) and issubclass(value, Project) and value is not Project
    ]
    if len(found) != 1:
        names = ", ".join(kind.__name__ for kind in found) or "none"
        raise TypeError(
            f"{package.__path__[0]} must define one subclass of"
            f" unreid.contracts.Project, found {names}"
        )
    return found[0](name, folder)


def _module_of(name: str, folder: Path) -> str:
    """Return the name of the module of a project, after making it importable."""
    if folder.parent != projects_root():
        return _entry_points()[name].module
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return name.lower()
