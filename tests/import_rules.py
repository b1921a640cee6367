"""Reads imports out of source text and says which of them break the architecture's rules.

A rule is held by ``violations(path, source)``: the path decides what the file may import, so that
a rule can be shown to bite on a made-up file.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

CORE = ("graph", "clustering", "memory", "losses", "structures", "checks", "kernels")
CORE_LIBRARIES = {"numpy", "scipy", "torch", "sklearn", "faiss"}
#: GPL: only where a user has installed it, so never at the top of a file.
OPTIONAL = {"infomap"}
#: What a .pyx may cimport beside numpy.
CYTHON = {"cython", "libc", "libcpp", "cpython", "openmp", "posix", "numpy"}
NAMED_VERSION = re.compile(r"fast-?reid *[=<>]=? *\d")
#: Ours, but nobody's to import.
APART = {"tests", "benchmarks", "tools", "projects"}


@dataclass(frozen=True)
class Import:
    """One imported name, dotted in full, and whether it is imported with the file itself."""

    name: str
    line: int
    at_top: bool

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


def sources(*folders: str) -> list[Path]:
    """Every Python file of these folders, relative to the repository."""
    found = [p for folder in folders for p in (ROOT / folder).rglob("*.py")]
    return sorted(p.relative_to(ROOT) for p in found)


def project_packages() -> dict[str, str]:
    """Package -> project folder: ``calr`` -> ``CALR``."""
    inits = (ROOT / "projects").glob("*/*/__init__.py")
    return {p.parent.name: p.parent.parent.name for p in inits}


def _typing_only(node: ast.AST) -> bool:
    """``if TYPE_CHECKING:`` never runs."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def _walk(node: ast.AST, at_top: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield child, at_top
        yield from _walk(child, at_top and not inside and not _typing_only(child))


def imports(path: str, source: str) -> list[Import]:
    """All imports, by statement or by ``import_module("name")``, relative ones made absolute."""
    package = Path(path).parent.parts
    if package[:1] == ("projects",):
        package = package[2:]  # a project's own folder is on the path
    found = []
    for node, at_top in _walk(ast.parse(source), True):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            stem = ".".join(base + ([node.module] if node.module else []))
            names = [f"{stem}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func).rpartition(".")[2]
            first = node.args[0]
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                names = [str(first.value)]
        found += [Import(name, getattr(node, "lineno", 0), at_top) for name in names]
    return found


def _is_core(parts: tuple[str, ...]) -> bool:
    return len(parts) > 1 and parts[0] == "unreid" and parts[1] in CORE


def zone(path: str) -> str:
    """``core``, ``shell``, ``project`` or ``tools``."""
    parts = Path(path).with_suffix("").parts
    if parts[0] == "unreid":
        return "core" if _is_core(parts) else "shell"
    return {"projects": "project"}.get(parts[0], parts[0])


def _refusal(found: Import, path: str, packages: dict[str, str]) -> str | None:
    """Why this file may not import this, or None."""
    where, library = zone(path), found.package
    if library in APART:
        return f"nothing imports {library}"
    if library in packages and not path.startswith(f"projects/{packages[library]}/"):
        return f"{library} is loaded by its name, at run time"
    if library in OPTIONAL and found.at_top:
        return f"{library} is optional: import it where it is used"
    if where == "core":
        if library == "unreid":
            allowed = _is_core(tuple(found.name.split(".")))
        else:
            allowed = library in CORE_LIBRARIES | OPTIONAL | set(sys.stdlib_module_names)
        return None if allowed else f"core may not import {found.name}"
    if where == "tools" and library == "fastreid":
        return "tools reach fastreid through unreid"
    return None


def violations(path: str, source: str, packages: dict[str, str] | None = None) -> list[str]:
    """``path:line: why`` for every import of this file that the architecture forbids."""
    packages = project_packages() if packages is None else packages
    refused = [(i, _refusal(i, path, packages)) for i in imports(path, source)]
    return [f"{path}:{i.line}: {why}" for i, why in refused if why]


def kernel_violations(path: str, source: str) -> list[str]:
    """Return the same for a .pyx, whose imports and cimports are at the start of a line."""
    pattern = re.compile(r"^\s*(?:from|import|cimport)\s+([A-Za-z_]\w*)", re.MULTILINE)
    allowed = CYTHON | CORE_LIBRARIES | set(sys.stdlib_module_names)
    found = [name for name in pattern.findall(source) if name not in allowed]
    return [f"{path}: a kernel may not import {name}" for name in found]


def age_violations(path: str, source: str) -> list[str]:
    """Where a file other than ``unreid/compat.py`` deals with fastreid's age.

    That is: touching ``sys.modules``, asking for fastreid's version, or naming one.
    """
    if path == "unreid/compat.py":
        return []
    tree = ast.parse(source)
    refused = []
    for node in ast.walk(tree):
        text = ast.unparse(node) if isinstance(node, (ast.Attribute, ast.Call)) else ""
        if text == "sys.modules":
            refused.append((node, "touches sys.modules"))
        elif isinstance(node, ast.ImportFrom) and node.module == "sys":
            taken = [alias for alias in node.names if alias.name == "modules"]
            refused += [(node, "touches sys.modules")] * len(taken)
        elif text == "fastreid.__version__" or re.search(r"\bversion\('fastreid'\)$", text):
            refused.append((node, "asks for fastreid's version"))
        elif isinstance(node, ast.Constant) and re.search(NAMED_VERSION, str(node.value)):
            refused.append((node, "names a version of fastreid"))
    return [f"{path}:{getattr(node, 'lineno', 0)}: {why}" for node, why in refused]
