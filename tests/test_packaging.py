"""Packaging: requirements match imports, and tracked files contain no machine-specific paths."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.import_rules import ROOT, imports, project_packages, sources

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest requires tomli before Python 3.11
    import tomli as tomllib

#: Distributions whose name differs from that of the module.
DISTRIBUTION = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "faiss": "faiss-cpu"}
#: Installed by a separate command without its dependencies.
APART = "fastreid"


def requirement_lines() -> list[str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def declared() -> dict[str, Requirement]:
    found = [Requirement(line.partition("#")[0]) for line in requirement_lines()]
    return {r.name.lower(): r for r in found}


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def tracked() -> list[Path]:
    """Return the tracked text files; skip without a git checkout."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def undeclared(path: str, source: str, known: set[str], extras: set[str]) -> list[str]:
    """Return imports without a requirement; extras may be imported inside functions only."""
    missing = []
    ours = {"unreid", APART, *project_packages()} | set(sys.stdlib_module_names)
    for found in imports(path, source):
        name = DISTRIBUTION.get(found.package, found.package).lower()
        if found.package in ours or name in known or (name in extras and not found.at_top):
            continue
        missing.append(f"{path}:{found.line}: {found.package}")
    return missing


def extras() -> set[str]:
    optional = pyproject()["project"]["optional-dependencies"]
    return {
        Requirement(r).name for name, group in optional.items() for r in group if name != "test"
    }


@pytest.mark.parametrize("path", sources("unreid", "projects", "tools"), ids=str)
def test_every_direct_import__is_a_requirement(path: Path) -> None:
    assert undeclared(str(path), (ROOT / path).read_text(), set(declared()), extras()) == []


@pytest.mark.parametrize(
    "source",
    ["import pandas", "def f():\n    from cv2 import imread", "import infomap", "import pytest"],
)
def test_planted_import_without_requirement__is_found(source: str) -> None:
    assert len(undeclared("unreid/a.py", source, set(declared()), extras())) == 1


def test_import_of_an_extra_inside_a_function__is_let_through() -> None:
    source = "import os, PIL.Image, yaml\ndef f():\n    import infomap"
    assert undeclared("unreid/a.py", source, set(declared()), extras()) == []


def test_every_requirement__has_a_lower_bound_and_a_reason() -> None:
    for line in requirement_lines():
        requirement, _, reason = line.partition("#")
        operators = {s.operator for s in Requirement(requirement).specifier}
        assert operators == {">="}, line
        assert len(reason.split()) >= 3, f"no reason beside: {line}"


def test_requirements__leave_fastreid_and_its_torch_out() -> None:
    assert APART not in declared()
    assert declared()["torch"].specifier.contains("2.4.0")
    assert not declared()["torch"].specifier.contains("1.13.1")


def test_makefile__installs_fastreid_without_its_dependencies_and_tests_as_the_readme() -> None:
    recipe = (ROOT / "Makefile").read_text()
    assert "FASTREID := fastreid==1.4.0" in recipe
    assert "install --no-deps $(FASTREID)" in recipe
    assert "$(PY) -m pytest" in recipe
    if not shutil.which("make"):
        pytest.skip("no make")
    # ``make test`` may run this test: the inner make must not inherit its flags and arguments.
    outside = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    planned = subprocess.run(
        ["make", "-n", "test", "VENV=absent", "ARGS="],
        cwd=ROOT,
        env=outside,
        capture_output=True,
        text=True,
    )
    commands = planned.stdout.splitlines()
    assert planned.returncode == 0 and not (ROOT / "absent").exists()
    assert commands[-1].strip() == "absent/bin/python -m pytest --numprocesses 2 --dist worksteal"
    assert any("install --no-deps fastreid==1.4.0" in command for command in commands)


def test_extras__hold_what_is_optional() -> None:
    optional = pyproject()["project"]["optional-dependencies"]
    assert {"infomap", "faiss-gpu", "test"} <= set(optional)
    assert "infomap" not in declared() and "faiss-gpu" not in declared()


def test_python_versions__are_those_promised() -> None:
    wanted = Requirement(f"x{pyproject()['project']['requires-python']}").specifier
    for version in ("3.10.0", "3.11.9", "3.12.1", "3.13.9"):
        assert wanted.contains(version)
    assert not wanted.contains("3.9.18") and not wanted.contains("3.14.0")


@pytest.mark.parametrize("path", sources("unreid", "projects", "tools"), ids=str)
def test_source__parses_on_the_oldest_python(path: Path) -> None:
    ast.parse((ROOT / path).read_text(), feature_version=(3, 10))


def test_licence__is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert pyproject()["project"]["license"] == "Apache-2.0"
    assert "license: Apache-2.0" in (ROOT / "CITATION.cff").read_text()


#: Home folders, local paths, and addresses of package indexes.
MACHINE = re.compile(
    r"/(?:work|tmp|root|mnt|scratch|home/\w+|Users/\w+)/\w|--(?:extra-)?index-url|find-links"
    r"|https?://(?!pypi\.org\b)[\w.-]*(?:pypi|simple/)|(?:INDEX|PROXY)_URL"
)


def test_tracked_files__name_no_machine_and_no_registry() -> None:
    binary = {".png", ".jpg", ".gif", ".npz", ".pth", ".ico"}
    found = []
    for path in tracked():
        if path == Path(__file__).resolve() or path.suffix in binary:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if MACHINE.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert found == []


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        *[(f"cd /{folder}/data", True) for folder in ("work", "tmp", "root", "home/someone")],
        ("pip install --index-url https://mirror.example/simple x", True),
        ("pip install x -f https://pypi.example.org/a", True),
        ("see https://arxiv.org/abs/2103.11568 and https://github.com/JDAI-CV/fast-reid", False),
        ("data under ../shared/data, results in runs/demo", False),
    ],
)
def test_planted_machine_path__is_found(line: str, bad: bool) -> None:
    assert bool(MACHINE.search(line)) == bad


@pytest.fixture
def tiny_checkout(tmp_path: Path) -> Path:
    """Return a folder with setup.py and one small kernel."""
    kernels = tmp_path / "unreid" / "kernels"
    kernels.mkdir(parents=True)
    (kernels / "tiny.pyx").write_text("def twice(double x):\n    return 2 * x\n")
    (kernels / "__init__.py").write_text("")
    (kernels.parent / "__init__.py").write_text('__version__ = "1.0"\n')
    for name in ("setup.py", "pyproject.toml", "requirements.txt", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "README.md").write_text("# unreid\n")
    return tmp_path


def build_editable(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the steps of ``pip install -e .`` in setup.py, without installing the result."""
    code = "from setuptools import build_meta; print(build_meta.build_editable('dist'))"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_setup__builds_a_kernel_in_place_and_requires_what_is_listed(tiny_checkout: Path) -> None:
    if not shutil.which(os.environ.get("CC", "cc")):
        pytest.skip("no C compiler")
    done = build_editable(tiny_checkout)
    assert done.returncode == 0, done.stderr
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    assert (tiny_checkout / f"unreid/kernels/tiny{suffix}").is_file()
    code = "from unreid.kernels.tiny import twice; assert twice(4) == 8"
    subprocess.run([sys.executable, "-c", code], cwd=tiny_checkout, check=True)

    with zipfile.ZipFile(tiny_checkout / "dist" / done.stdout.split()[-1]) as wheel:
        (metadata,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
        lines = wheel.read(metadata).decode().splitlines()
    required = [line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist")]
    plain = {Requirement(r).name.lower() for r in required if "extra ==" not in r}
    assert plain == set(declared())


def test_setup__without_a_compiler_goes_on_and_says_so(tiny_checkout: Path) -> None:
    done = build_editable(tiny_checkout, CC=shutil.which("false") or "false")
    assert done.returncode == 0, done.stderr
    assert "unreid.kernels.tiny not built" in done.stderr and "numpy takes" in done.stderr
    assert not list(tiny_checkout.rglob("tiny*.so"))


def copy_source(folder: Path) -> Path:
    """Copy the files from which a wheel is built, and one small kernel under another name."""
    for name in ("setup.py", "pyproject.toml", "requirements.txt", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, folder)
    no = shutil.ignore_patterns("*.pyx", "*.so", "*.c", "__pycache__", "avx*")
    for name in ("unreid", "projects"):
        shutil.copytree(ROOT / name, folder / name, ignore=no)
    (folder / "unreid/kernels/knn.pyx").write_text("def twice(double x):\n    return 2 * x\n")
    return folder


def pip_install(source: Path, target: Path) -> None:
    """Install a folder without network access, build isolation or dependencies."""
    words = [
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
        "--target",
        str(target),
        str(source),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the installed wheel and a third-party project."""
    folder = tmp_path_factory.mktemp("installed")
    target, other = folder / "site", folder / "other"
    (folder / "source").mkdir()
    pip_install(copy_source(folder / "source"), target)
    (other / "nearest_one" / "configs").mkdir(parents=True)
    (other / "pyproject.toml").write_text(
        "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n"
        "[project]\nname = 'nearest-one'\nversion = '1.0'\n"
        "[project.entry-points.'unreid.projects']\nNearestOne = 'nearest_one'\n"
        "[tool.setuptools]\npackages = ['nearest_one']\n"
        "[tool.setuptools.package-data]\nnearest_one = ['configs/*.yml']\n"
    )
    (other / "nearest_one" / "__init__.py").write_text(
        "from unreid.contracts import Project\n\n\n"
        "class NearestOne(Project):\n"
        "    def add_config(self, cfg):\n        cfg.NEARESTONE = type(cfg)({'RADIUS': 0.5})\n"
    )
    (other / "nearest_one" / "configs" / "market.yml").write_text(
        "PROJECT: NearestOne\nNEARESTONE: {RADIUS: 0.25}\n"
        "DATALOADER: {SAMPLER_TRAIN: ClusterSampler}\n"
    )
    pip_install(other, target)
    return target


def outside(site: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python on the installed packages, outside the checkout."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("UNREID_", "PYTHON"))}
    return subprocess.run(
        [sys.executable, *words],
        cwd=site.parent,
        capture_output=True,
        text=True,
        env={**kept, "PYTHONPATH": str(site), **environment},
        timeout=600,
    )


def answer(site: Path, code: str) -> str:
    done = outside(site, "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_wheel__has_the_projects_their_configs_and_the_types(installed: Path) -> None:
    bundled = installed / "unreid" / "bundled_projects"
    for name in ("CALR", "PseudoPair", "SphereCluster"):
        ours = {
            p.relative_to(ROOT / "projects")
            for kind in ("*.py", "*.yml", "*.md")
            for p in (ROOT / "projects" / name).rglob(kind)
        }
        assert {
            p.relative_to(bundled)
            for p in (bundled / name).rglob("*")
            if p.is_file() and p.suffix != ".pyc"
        } == ours
    assert (installed / "unreid" / "py.typed").is_file()
    assert (installed / "unreid/visualization/templates/base.html.jinja").is_file()
    assert (installed / "unreid/visualization/vendor/chart.umd.min.js").is_file()
    assert not (installed / "projects").exists() and not (installed / "tests").exists()


def test_wheel__works_outside_the_checkout(installed: Path) -> None:
    code = (
        "import unreid, unreid.config, unreid.projects as p\n"
        "print(unreid.__file__)\n"
        "print(*p.discover_projects())\n"
        "off = ['MODEL.BACKBONE.PRETRAIN', 'False']\n"
        "cfg, project = unreid.config.load_config('CALR/market', off)\n"
        "print(cfg.PROJECT, project.folder)\n"
        "import calr; print(calr.__file__)\n"
    )
    file, names, project, package = answer(installed, code).splitlines()
    assert Path(file) == installed / "unreid/__init__.py"
    assert names.split() == ["CALR", "PseudoPair", "SphereCluster", "NearestOne"]
    bundled = installed / "unreid" / "bundled_projects"
    assert project == f"CALR {bundled / 'CALR'}"
    assert Path(package) == bundled / "CALR" / "calr" / "__init__.py"


def test_environment_report__runs_on_what_was_installed(installed: Path) -> None:
    done = outside(installed, "-m", "unreid.env")
    assert done.returncode == 0, done.stderr
    assert "versions" in done.stdout and str(installed) not in done.stdout


def test_entry_point__brings_a_project_with_its_configs(installed: Path) -> None:
    code = (
        "from unreid.config import load_config\n"
        "off = ['MODEL.BACKBONE.PRETRAIN', 'False']\n"
        "cfg, project = load_config('NearestOne/market', off)\n"
        "print(project.name, project.folder, cfg.NEARESTONE.RADIUS)"
    )
    assert answer(installed, code) == f"NearestOne {installed / 'nearest_one'} 0.25"


def test_entry_point_of_a_missing_package__is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unreid.projects import discover_projects

    metadata = tmp_path / "gone-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: gone\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[unreid.projects]\nGone = gone_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(RuntimeWarning, match="entry point Gone = gone_package .*is left out"):
        assert "Gone" not in discover_projects()


def test_kernel__is_compiled_for_every_variant_of_the_compiler(installed: Path) -> None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    if not shutil.which(os.environ.get("CC", "cc")):
        pytest.skip("no C compiler")
    code = (
        "from unreid.kernels import kernel, supported_variants, variant_of\n"
        "print(*supported_variants(), variant_of(kernel('knn')), kernel('knn').twice(4))"
    )
    *supported, used, eight = answer(installed, code).split()
    built = [
        v for v in ("avx2", "avx512") if (installed / f"unreid/kernels/{v}/knn{suffix}").is_file()
    ]
    assert used == [v for v in supported if v in ("baseline", *built)][-1] and eight == "8.0"
    assert (installed / f"unreid/kernels/knn{suffix}").is_file()
    for forced in supported:
        done = outside(installed, "-c", code, UNREID_KERNELS=forced)
        assert done.returncode == 0 and done.stdout.split()[-2] in ("baseline", forced)


def test_build__names_no_processor() -> None:
    text = (ROOT / "setup.py").read_text()
    assert "native" not in text and "-mtune" not in text and "-march" not in text


def test_version__is_one(installed: Path) -> None:
    import unreid

    assert "version" in pyproject()["project"]["dynamic"]
    code = "import importlib.metadata as m; print(m.version('unreid'))"
    assert answer(installed, code) == unreid.__version__
    assert f"version: {unreid.__version__}" in (ROOT / "CITATION.cff").read_text()


def test_linters__are_pinned_and_those_of_pre_commit() -> None:
    test = pyproject()["project"]["optional-dependencies"]["test"]
    assert any(re.fullmatch(r"ruff==[\d.]+", line) for line in test)
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    recipe = (ROOT / "Makefile").read_text()
    for tool in ("ruff check", "ruff format", "mypy"):
        assert f"entry: .venv/bin/python -m {tool}" in hooks and f"-m {tool}" in recipe
