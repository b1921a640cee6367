"""Load fast-reid's evaluation files one at a time, without importing the package."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def load_fastreid() -> Callable[[str], ModuleType]:
    """Return a loader: ``load_fastreid("rank")`` runs ``fastreid/evaluation/rank.py``."""
    package = importlib.util.find_spec("fastreid")
    if package is None or not package.submodule_search_locations:
        pytest.skip("fastreid is not installed")
    folder = Path(package.submodule_search_locations[0]) / "evaluation"

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"only_{name}", folder / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that its Cython extension is missing
            spec.loader.exec_module(module)
        return module

    return load
