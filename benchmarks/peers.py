"""Load fast-reid's routines file by file, without importing the package."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import numpy as np

from benchmarks.harness import ROOT

BUILD = ROOT / "build" / "peers"


def installed() -> Path | None:
    """Return the folder of the installed fastreid, or None."""
    found = importlib.util.find_spec("fastreid")
    return Path(found.submodule_search_locations[0]) if found else None  # type: ignore[index]


def no_fastreid() -> str | None:
    """Return why the rows of fast-reid cannot run, or None."""
    return None if installed() else "fastreid is not installed"


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rerank() -> ModuleType:
    """Return the module ``fastreid.evaluation.rerank``."""
    return _load("fastreid_rerank", installed() / "evaluation" / "rerank.py")  # type: ignore[operator]


def rank_cython() -> ModuleType:
    """Return ``fastreid.evaluation.rank_cylib.rank_cy``, compiled once into the build folder."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    built = BUILD / f"rank_cy{suffix}"
    if not built.is_file():
        BUILD.mkdir(parents=True, exist_ok=True)
        source = installed() / "evaluation" / "rank_cylib" / "rank_cy.pyx"  # type: ignore[operator]
        shutil.copy(source, BUILD)
        # No compiler flags, as in fast-reid's own setup.py.
        (BUILD / "setup.py").write_text(
            "import numpy\nfrom Cython.Build import cythonize\nfrom setuptools import Extension,"
            " setup\nsetup(ext_modules=cythonize([Extension('rank_cy', ['rank_cy.pyx'],"
            f" include_dirs=[{np.get_include()!r}])], language_level=3))\n"
        )
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        subprocess.run(command, cwd=BUILD, check=True, capture_output=True)
    return _load("rank_cy", built)
