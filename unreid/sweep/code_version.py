"""Hash of the code of a training, and hashes of code that trains the same weights.

The hash covers the modules that :mod:`unreid.engine.run` and the project's package import, directly
or indirectly, and all kernels. Modules that only report, search or plot are left out. Comments,
docstrings and formatting do not change the hash of the syntax tree.
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Parts of the package that do not affect weights.
NOT_COUNTED = ("visualization", "inference", "sweep", "commands", "env", "cli", "__main__")
#: Modules from which the imports of a training start.
ENTRY = ("unreid.engine.run", "unreid.config", "unreid.compat")
DIGITS = 12
_HASH = re.compile(rf"[0-9a-f]{{{DIGITS}}}")
_VERSION = "__version__"


def package_root() -> Path:
    """Return the folder of the package ``unreid``."""
    return Path(__file__).resolve().parents[1]


def code_hash(project_package: Path, root: Path | None = None) -> str:
    """Return twelve hex digits that change when code that affects training changes.

    Args:
        project_package: Folder of the project's package, such as ``projects/CALR/calr``.
        root: Folder of the package ``unreid``; that of this process by default.
    """
    root = root or package_root()
    files = {f"unreid/{path.relative_to(root).as_posix()}": path for path in counted(root)}
    for path in sorted(project_package.rglob("*.py")):
        name = path.relative_to(project_package.parent).as_posix()
        files[name] = path
    digest = hashlib.sha256()
    for name in sorted(files):
        text = files[name].read_text(encoding="utf-8")
        meaning = _python(text) if name.endswith(".py") else _cython(text)
        digest.update(f"{name}\0{meaning}\0".encode())
    return digest.hexdigest()[:DIGITS]


def counted(root: Path) -> list[Path]:
    """Return the files of ``unreid`` in the hash, sorted."""
    found: set[Path] = set()
    waiting = [path for name in ENTRY for path in _files_of(name, root)]
    while waiting:
        path = waiting.pop()
        if path in found or _left_out(path, root):
            continue
        found.add(path)
        for name in _imported(path, root):
            waiting += _files_of(name, root)
    kernels = root / "kernels"
    return sorted(found.union(*(kernels.glob(f"*.{end}") for end in ("py", "pyx", "pxd"))))


def _left_out(path: Path, root: Path) -> bool:
    first = path.relative_to(root).parts[0]
    return first.removesuffix(".py") in NOT_COUNTED


def _files_of(module: str, root: Path) -> list[Path]:
    """Return the files that importing a module of ``unreid`` runs, with its packages."""
    parts = module.split(".")
    if parts[0] != "unreid":
        return []
    files = []
    for length in range(1, len(parts) + 1):
        folder = root.joinpath(*parts[1:length])
        if (folder / "__init__.py").is_file():
            files.append(folder / "__init__.py")
        elif folder.with_suffix(".py").is_file():
            files.append(folder.with_suffix(".py"))
    return files


def _imported(path: Path, root: Path) -> Iterator[str]:
    package = ("unreid", *path.relative_to(root).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield stem
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def _python(text: str) -> str:
    return repr(_canonical(ast.parse(text)))


def _canonical(node: Any) -> Any:
    """Return a syntax tree as nested tuples, without docstrings and empty fields.

    Unlike ``ast.dump``, empty fields are omitted, so that the hash does not depend on the version
    of Python.
    """
    if isinstance(node, ast.AST):
        fields = (
            (name, _canonical(value))
            for name, value in ast.iter_fields(node)
            if value is not None and value != [] and name not in ("kind", "type_comment")
        )
        return (type(node).__name__, *fields)
    if isinstance(node, list):
        return tuple(_canonical(item) for item in node if not _is_ignored(item))
    return (type(node).__name__, repr(node))


def _is_ignored(node: Any) -> bool:
    """Return whether a statement is a docstring or assigns the version of the package."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets] == [_VERSION]
    return False


def _cython(text: str) -> str:
    """Return the tokens of a Cython file without comments, docstrings and line joins."""
    ignored = (tokenize.COMMENT, tokenize.NL)
    tokens = [
        token
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in ignored
    ]
    kept: list[str] = []
    start = True  # at the start of a statement
    for token, following in zip(tokens, [*tokens[1:], None]):
        ends = following is None or following.type in (tokenize.NEWLINE, tokenize.ENDMARKER)
        if not (start and token.type == tokenize.STRING and ends):
            layout = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
            kept.append(tokenize.tok_name[token.type] if layout else token.string)
        start = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT) or (
            start and token.type == tokenize.STRING
        )
    return "\n".join(kept)


class EquivalentCode:
    """Equivalence of code hashes that were shown to train the same weights.

    Args:
        pairs: Pairs of equivalent hashes.
    """

    def __init__(self, pairs: list[tuple[str, str]] | None = None) -> None:
        self._parent: dict[str, str] = {}
        for one, other in pairs or []:
            self._parent[self._first(one)] = self._first(other)

    @classmethod
    def read(cls, path: Path) -> EquivalentCode:
        """Read a file of lines ``HASH HASH  command that compared them``; ``#`` begins a comment.

        Raises:
            ValueError: A line does not consist of two hashes and a command.
        """
        pairs = []
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) < 3 or not all(map(_HASH.fullmatch, words[:2])):
                raise ValueError(
                    f"{path} line {number}: expected two code hashes of {DIGITS} hex"
                    f" digits and the command that compared them, got {line[:80]!r}"
                )
            pairs.append((words[0], words[1]))
        return cls(pairs)

    def _first(self, code: str) -> str:
        while code in self._parent:
            code = self._parent[code]
        return code

    def same(self, one: str, other: str) -> bool:
        """Return whether two hashes belong to code that trains the same weights."""
        return self._first(one) == self._first(other)
