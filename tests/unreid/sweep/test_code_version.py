"""Which changes of the code change its hash, and which hashes are equivalent."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.projects.overrides import ROOT
from unreid.sweep.code_version import EquivalentCode, code_hash, counted

A, B, C, D = (letter * 12 for letter in "abcd")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    def only_sources(folder: str, names: list[str]) -> set[str]:
        return {n for n in names if n == "__pycache__" or n.endswith((".so", ".c"))}

    for name in ("unreid", "projects/CALR/calr", "projects/SphereCluster/spherecluster"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=only_sources)
    return tmp_path


def hashed(tree: Path, project: str = "CALR") -> str:
    return code_hash(tree / "projects" / project / project.lower(), tree / "unreid")


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("unreid/graph/jaccard.py", "\n", "\n\n# why\n", False),
        ("unreid/graph/jaccard.py", "\n", "\n\nX = 1\n", True),
        ("unreid/engine/trainer.py", '"""', '"""Other words. ', False),
        ("unreid/engine/trainer.py", "(", "( ", False),
        ("unreid/__init__.py", "__version__ = ", "__version__ = '9' + ", False),
        ("unreid/config.py", "TEMPERATURE = 0.05", "TEMPERATURE = 0.06", True),
        ("unreid/config.py", "    # Labeler: a name", "    # Labeler: the name", False),
        ("unreid/visualization/page.py", "\n", "\nX = 1\n", False),
        ("unreid/sweep/grid.py", "SEED =", "OTHER = SEED =", False),
        ("unreid/kernels/jitter.pyx", "\n", "\nX = 1\n", True),
        ("unreid/kernels/jitter.pyx", "\n", "\n# why\n", False),
        ("projects/CALR/calr/weights.py", "\n", "\n\nX = 1\n", True),
        ("projects/SphereCluster/spherecluster/labeler.py", "\n", "\n\nX = 1\n", False),
    ],
)
def test_code_hash__changes_with_training_code_only(
    tree: Path, file: str, old: str, new: str, changes: bool
) -> None:
    before, path = hashed(tree), tree / file
    text = path.read_text()
    if old == "\n":  # change the end of the file, where any text is valid
        path.write_text(text.rstrip("\n") + new)
    else:
        assert old in text
        path.write_text(text.replace(old, new, 1))
    assert (hashed(tree) != before) == changes


def test_code_hash__differs_between_projects(tree: Path) -> None:
    assert hashed(tree) != hashed(tree, "SphereCluster")


def test_hashed_files__are_all_files_that_a_training_imports() -> None:
    """Every module that the entry points load is in the hash, unless it only reports."""
    code = (
        "import unreid, sys; import unreid.config, unreid.engine.run, unreid.engine.trainer;"
        "print(*[m for m in sys.modules if m.split('.')[0] == 'unreid'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = {p.relative_to(ROOT / "unreid") for p in counted(ROOT / "unreid")}
    names = {
        ".".join(("unreid", *f.with_suffix("").parts)).removesuffix(".__init__")
        for f in files
        if f.suffix == ".py"
    }
    missing = {m for m in done.stdout.split() if m not in names and "kernels" not in m}
    assert missing <= {"unreid.cli", "unreid.env"}
    assert {
        "unreid.graph.jaccard",
        "unreid.memory.cluster_memory",
        "unreid.clustering.dbscan",
        "unreid.modeling.neck_head",
        "unreid.data.augment",
    } <= names
    assert not {n for n in names if n.split(".")[1:2] in (["visualization"], ["inference"])}


def test_equivalent_code__is_transitive(tmp_path: Path) -> None:
    file = tmp_path / "equivalent_code.txt"
    file.write_text(f"# shown equal\n\n{A} {B}  python tools/sweep.py x\n{B} {C}  the same\n")
    equal = EquivalentCode.read(file)
    assert equal.same(A, C) and equal.same(C, B) and equal.same(D, D) and not equal.same(A, D)
    assert not EquivalentCode.read(tmp_path / "none").same(A, B)


@pytest.mark.parametrize("line", [f"{A} {B}", f"{A} command only", f"{A[:5]} {B} command", "x"])
def test_line_without_hashes_or_command__is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "equivalent_code.txt"
    file.write_text(f"{A} {B} command\n{line}\n")
    with pytest.raises(ValueError, match=r"equivalent_code.txt line 2: expected two code hashes"):
        EquivalentCode.read(file)
