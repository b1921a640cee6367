"""Load a script of ``tools/`` as a module."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from tests.projects.overrides import ROOT


def load_tool(name: str) -> ModuleType:
    """Return ``tools/<name>.py`` as a module; ``sys.path`` is not changed."""
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module
