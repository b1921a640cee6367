"""The sources satisfy the import rules of docs/architecture.md, and each rule finds a violation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.import_rules import (
    ROOT,
    age_violations,
    imports,
    kernel_violations,
    sources,
    violations,
    zone,
)

CODE = sources("unreid", "projects", "tools")
CORE = [path for path in CODE if zone(str(path)) == "core"]
PACKAGES = {"calr": "CALR", "spherecluster": "SphereCluster"}


def test_sources__are_found() -> None:
    assert Path("unreid/checks.py") in CORE and Path("unreid/memory/cluster_memory.py") in CORE
    assert Path("unreid/compat.py") in CODE and Path("unreid/compat.py") not in CORE


@pytest.mark.parametrize("path", CODE, ids=str)
def test_imports__keep_to_the_architecture(path: Path) -> None:
    assert violations(str(path), (ROOT / path).read_text()) == []


@pytest.mark.parametrize("path", CODE, ids=str)
def test_age_of_fastreid__is_the_business_of_compat_alone(path: Path) -> None:
    assert age_violations(str(path), (ROOT / path).read_text()) == []


def test_kernels__import_numbers_only() -> None:
    for path in sorted((ROOT / "unreid/kernels").glob("*.pyx")):
        assert kernel_violations(path.name, path.read_text()) == []


def test_core__imports_without_fastreid() -> None:
    modules = [".".join(path.with_suffix("").parts) for path in CORE]
    modules = [name.removesuffix(".__init__") for name in modules]
    code = (
        "import importlib, json, sys\n"
        f"for name in {json.dumps(modules)}:\n"
        "    importlib.import_module(name)\n"
        "    loaded = [m for m in sys.modules if m.split('.')[0] in ('fastreid', 'infomap')]\n"
        "    assert not loaded, f'{name} imports {loaded[0]}'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("unreid/graph/knn.py", "import fastreid"),
        ("unreid/graph/knn.py", "def f():\n    from fastreid.utils import comm"),
        ("unreid/graph/knn.py", "import importlib\nimportlib.import_module('fastreid.config')"),
        ("unreid/graph/knn.py", "from unreid.engine import trainer"),
        ("unreid/graph/knn.py", "from unreid import config"),
        ("unreid/graph/knn.py", "import unreid"),
        ("unreid/graph/knn.py", "from ..data import loader"),
        ("unreid/graph/knn.py", "from .. import data"),
        ("unreid/memory/bank.py", "import matplotlib.pyplot as plt"),
        ("unreid/checks.py", "import yacs"),
        ("unreid/structures.py", "if True:\n    import PIL"),
        ("unreid/clustering/infomap.py", "import infomap"),
        ("unreid/clustering/infomap.py", "try:\n    import infomap\nexcept ImportError: pass"),
        ("unreid/clustering/infomap.py", "class A:\n    from infomap import Infomap"),
        ("unreid/engine/trainer.py", "import infomap"),
        ("unreid/engine/trainer.py", "import projects.CALR.calr"),
        ("unreid/engine/trainer.py", "import calr"),
        ("unreid/engine/trainer.py", "def f():\n    from calr.inter import score"),
        ("projects/SphereCluster/spherecluster/labeler.py", "from calr import refine"),
        ("projects/CALR/calr/inter.py", "from projects.CALR.calr import refine"),
        ("projects/CALR/calr/inter.py", "from tests import oracles"),
        ("tools/report.py", "import fastreid"),
        ("tools/report.py", "from calr import inter"),
        ("tools/report.py", "from tools import train_net"),
    ],
)
def test_planted_import__is_found(path: str, source: str) -> None:
    found = violations(path, source, PACKAGES)
    assert len(found) == 1 and found[0].startswith(f"{path}:")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("unreid/graph/knn.py", "import math\nimport faiss\nimport scipy.sparse as sp"),
        ("unreid/graph/knn.py", "from unreid.structures import NOISE\nfrom . import jaccard"),
        ("unreid/graph/knn.py", "from unreid import checks\nfrom ..kernels import ranking"),
        ("unreid/clustering/infomap.py", "def f():\n    from infomap import Infomap"),
        ("unreid/engine/trainer.py", "from fastreid.engine import hooks\nimport yaml"),
        ("projects/CALR/calr/inter.py", "import calr.refine\nfrom fastreid import layers"),
        ("projects/CALR/calr/inter.py", "from . import refine\nfrom unreid.graph import knn"),
        ("tools/report.py", "from unreid.projects import load_project\nimport argparse"),
    ],
)
def test_allowed_import__is_let_through(path: str, source: str) -> None:
    assert violations(path, source, PACKAGES) == []


@pytest.mark.parametrize(
    "source",
    [
        "import sys\nsys.modules['torch._six'] = None",
        "from sys import modules",
        "import fastreid\nprint(fastreid.__version__)",
        "from importlib.metadata import version\nversion('fastreid')",
        "import importlib.metadata\nimportlib.metadata.version('fastreid')",
        "hint = 'pip install --no-deps fastreid==1.4.0'",
    ],
)
def test_planted_knowledge_of_age__is_found_but_in_compat(source: str) -> None:
    assert len(age_violations("unreid/engine/trainer.py", source)) == 1
    assert age_violations("unreid/compat.py", source) == []


def test_planted_kernel_import__is_found() -> None:
    good = "cimport cython\nfrom libc.math cimport log\ncimport numpy as cnp\nimport numpy as np\n"
    assert kernel_violations("a.pyx", good) == []
    assert kernel_violations("a.pyx", good + "from unreid.engine import trainer\n") != []
    assert kernel_violations("a.pyx", good + "import pandas\n") != []


def test_relative_imports__are_made_absolute() -> None:
    source = "from . import a\nfrom .b import c\nfrom .. import d\nfrom ..e import f"
    found = [i.name for i in imports("unreid/graph/knn.py", source)]
    assert found == ["unreid.graph.a", "unreid.graph.b.c", "unreid.d", "unreid.e.f"]
