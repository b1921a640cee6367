"""READMEs: paths and keys named in them exist, and their Python examples run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
READMES = [
    ROOT / "README.md",
    ROOT / "docs" / "architecture.md",
    *sorted(ROOT.glob("projects/*/README.md")),
]
every_readme = pytest.mark.parametrize("readme", READMES, ids=lambda p: str(p.relative_to(ROOT)))


@every_readme
def test_readme__links_to_files_that_exist(readme: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", readme.read_text())
    missing = [link for link in links if not (readme.parent / link).exists()]
    assert not missing


@every_readme
def test_readme__commands_name_files_that_exist(readme: Path) -> None:
    text = readme.read_text()
    named = set(re.findall(r"\b(?:tools|benchmarks)/\w+\.py|projects/[\w/]+\.yml", text))
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing
    # Settings of a project may be named in its own README, or in a text about all projects.
    own = readme.parent if readme.parent.parent.name == "projects" else ROOT / "projects" / "*"
    for name in re.findall(r"`((?:small|predecessors|ablations)/\w+\.yml)`", text):
        assert list(ROOT.glob(str(own.relative_to(ROOT) / "configs" / name))), name


@every_readme
def test_readme__has_no_blank_left_to_fill(readme: Path) -> None:
    assert not re.findall(r"@[A-Z]+@", readme.read_text())


def test_readme__python_runs(rng: np.random.Generator) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    features = rng.normal(size=(60, 16)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    for block in blocks:
        scope = {"features": features}
        exec(block, scope)
        assert np.shape(scope["labels"]) == (60,)


def test_readme__settings_exist() -> None:
    from unreid.config import flat_keys, load_config
    from unreid.projects import discover_projects

    projects = sorted(discover_projects())
    known: set[str] = set()
    for project in projects:
        cfg, _ = load_config(
            str(ROOT / f"projects/{project}/configs/market.yml"),
            ["MODEL.BACKBONE.PRETRAIN", "False"],
        )
        known |= {key for key, _ in flat_keys(cfg)}
    nodes = {key.rsplit(".", n)[0] for key in known for n in (1, 2)}
    roots = "|".join(
        [
            "UNSUP",
            "MODEL",
            "TEST",
            "SOLVER",
            "DATASETS",
            "DATALOADER",
            *(project.upper() for project in projects),
        ]
    )
    pattern = rf"\b(?:{roots})\.[A-Z0-9_.]*[A-Z0-9]"
    for readme in READMES:
        named = set(re.findall(pattern, readme.read_text()))
        assert named <= known | nodes, readme
