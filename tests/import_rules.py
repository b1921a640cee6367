"""Parse the imports of a source file and list those that violate the architecture rules.

``violations(path, source)`` applies the rules. The path decides which imports are allowed, so tests
can check each rule on source text that is not a real file.
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
#: GPL: an optional dependency, so it must not be imported at the top of a file.
OPTIONAL = {"infomap"}
#: Modules that a .pyx file may cimport.
CYTHON = {"cython", "libc", "libcpp", "cpython", "openmp", "posix", "numpy"}
NAMED_VERSION = re.compile(r"fast-?reid *[=<>]=? *\d")
#: Packages of this repository that no library code may import.
APART = {"tests", "benchmarks", "tools", "projects"}


@dataclass(frozen=True)
class Import:
    """One imported name in full, and whether it is imported when the file itself is."""

    name: str
    line: int
    at_top: bool

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


def sources(*folders: str) -> list[Path]:
    """Return all Python files in these folders, relative to the repository."""
    found = [p for folder in folders for p in (ROOT / folder).rglob("*.py")]
    return sorted(p.relative_to(ROOT) for p in found)


def project_packages() -> dict[str, str]:
    """Return package name -> project folder, for example ``calr`` -> ``CALR``."""
    inits = (ROOT / "projects").glob("*/*/__init__.py")
    return {p.parent.name: p.parent.parent.name for p in inits}


def _typing_only(node: ast.AST) -> bool:
    """Return whether the node is ``if TYPE_CHECKING:``, whose body never runs."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def _walk(node: ast.AST, at_top: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield child, at_top
        yield from _walk(child, at_top and not inside and not _typing_only(child))


def imports(path: str, source: str) -> list[Import]:
    """Return the imports by statement or ``import_module("name")``; relative names are resolved."""
    package = Path(path).parent.parts
    if package[:1] == ("projects",):
        package = package[2:]  # the project folder itself is on sys.path
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
    """Return the part of the repository: ``core``, ``shell``, ``project`` or ``tools``."""
    parts = Path(path).with_suffix("").parts
    if parts[0] == "unreid":
        return "core" if _is_core(parts) else "shell"
    return {"projects": "project"}.get(parts[0], parts[0])


def _refusal(found: Import, path: str, packages: dict[str, str]) -> str | None:
    """Return why the file must not have this import, or None."""
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
    """Return ``path:line: reason`` for every import of the file that the architecture forbids."""
    packages = project_packages() if packages is None else packages
    refused = [(i, _refusal(i, path, packages)) for i in imports(path, source)]
    return [f"{path}:{i.line}: {why}" for i, why in refused if why]


def kernel_violations(path: str, source: str) -> list[str]:
    """Return the same for a .pyx file; imports and cimports are found by a regular expression."""
    pattern = re.compile(r"^\s*(?:from|import|cimport)\s+([A-Za-z_]\w*)", re.MULTILINE)
    allowed = CYTHON | CORE_LIBRARIES | set(sys.stdlib_module_names)
    found = [name for name in pattern.findall(source) if name not in allowed]
    return [f"{path}: a kernel may not import {name}" for name in found]


def age_violations(path: str, source: str) -> list[str]:
    """Return the lines outside ``unreid/compat.py`` that depend on the version of fastreid.

    These lines use ``sys.modules``, ask for the version of fastreid, or contain a version number.
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
