"""Rows of finished runs, one JSON object per line, kept under version control.

A row has the inputs of a run (settings, code, images, seed) and its results. A sweep reads the rows
first and does not train a run with a current row again, on any machine. A row is stale if settings
or code have changed; it is listed and excluded from all means.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unreid.sweep.code_version import EquivalentCode
from unreid.sweep.grid import Run

#: Name -> (TEST.CENTER_CAMERAS, TEST.FLIP.ENABLED).
TEST_SETTINGS = {
    "plain": (False, False),
    "centred": (True, False),
    "flip": (False, True),
    "centred_flip": (True, True),
}
#: Name of the scores under the test settings of the config.
CONFIGURED = "configured"
#: File of the scores under further test settings, in the folder of the run.
SCORES = "test_settings.json"
_FIELDS = {
    "row": str, "project": str, "config": str, "code": str, "commit": str, "fold": dict,
    "seed": int, "test": list, "scores": dict, "labels": dict, "minutes": (int, float),
    "command": str,
}  # fmt: skip
_CENTRED, _FLIPPED = "TEST.CENTER_CAMERAS", "TEST.FLIP"


@dataclass(frozen=True)
class Provenance:
    """Inputs of a run's scores in addition to its settings and seed.

    Attributes:
        code: Hash of the code, see :mod:`unreid.sweep.code_version`.
        images: Hash of the images of the fold; "" if it was not computed.
        commit: Commit of the checkout, with ``-dirty`` if tracked files were changed.
    """

    code: str
    images: str = ""
    commit: str = ""


def commit_of(folder: Path) -> str:
    """Return the commit of a checkout, or "none"."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except OSError:  # no git
        return "none"
    return f"{commit}-dirty" if commit and changed else commit or "none"


def test_settings_of(cfg: Any) -> list[str]:
    """Return the names of enabled test settings that change scores."""
    test = cfg.TEST
    named = [
        (_CENTRED, test.CENTER_CAMERAS),
        (_FLIPPED, test.FLIP.ENABLED),
        ("TEST.AQE", test.AQE.ENABLED),
        ("TEST.RERANK", test.RERANK.ENABLED),
        (f"TEST.METRIC {test.METRIC}", test.METRIC != "cosine"),
    ]
    named += [
        (f"{name}.RERANK", node["RERANK"].ENABLED)
        for name, node in cfg.items()
        if name != "TEST" and isinstance(node, dict) and "RERANK" in node
    ]
    return [name for name, on in named if on]


def active_settings(row: Mapping[str, Any], setting: str) -> list[str]:
    """Return the test settings that were enabled for ``row["scores"][setting]``."""
    if setting == CONFIGURED:
        return list(row["test"])
    centred, flipped = TEST_SETTINGS[setting]
    others = [name for name in row["test"] if name not in (_CENTRED, _FLIPPED)]
    return [*([_CENTRED] if centred else []), *([_FLIPPED] if flipped else []), *others]


def make_row(
    run: Run,
    provenance: Provenance,
    cfg: Any,
    results: Mapping[str, Any],
    scores: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the row of a finished run.

    Args:
        run: The run.
        provenance: Code and images that it was trained with.
        cfg: Its config.
        results: Content of its ``results.json``.
        scores: Scores by name of the test setting, in addition to those of the config.
    """
    seconds = results.get("seconds", {}).values()
    row: dict[str, Any] = {
        "row": run.row,
        "project": run.project,
        "config": run.settings_hash,
        "code": provenance.code,
        "commit": provenance.commit,
        "fold": {"name": run.fold.name if run.fold else "all", "images": provenance.images},
        "seed": run.seed_value,
        "test": test_settings_of(cfg),
        "scores": {CONFIGURED: results["after"], **scores},
        "labels": results["labels"],
        "minutes": round(sum(seconds) / 60, 2),
        "command": command_of(run),
    }
    for key in ("before", "selected"):
        if results.get(key):
            row[key] = results[key]
    versions = results.get("versions", {})
    row["versions"] = {k: versions[k] for k in ("torch", "device", "threads") if k in versions}
    return row


def command_of(run: Run) -> str:
    """Return the command of a run, with absolute paths replaced by ``path/to/NAME``."""
    root = Path(__file__).resolve().parents[2]
    config = Path(os.path.abspath(run.config_file))
    file = config.relative_to(root).as_posix() if config.is_relative_to(root) else config.name
    words = ["python tools/train_net.py --config-file", file]
    for key, value in zip(run.opts[::2], run.opts[1::2]):
        if key == "OUTPUT_DIR":
            continue
        if os.path.isabs(value):
            value = f"path/to/{os.path.basename(value)}"
        words.append(f"{key} {value!r}" if re.search(r"[^\w./+-]", value) else f"{key} {value}")
    return " ".join(words)


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the rows of a file, oldest first; an empty list if the file is missing.

    Raises:
        ValueError: A line is no row; names the file and the line.
    """
    if not os.path.isfile(path):
        return []
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        where = f"{os.fspath(path)} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: expected a JSON object, got {line[:60]!r}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected a JSON object, got {line[:60]!r}")
        for field, kind in _FIELDS.items():
            if not isinstance(row.get(field), kind):  # type: ignore[arg-type]
                raise ValueError(
                    f"{where}: {field} is missing or of another kind, got {row.get(field)!r:.60}"
                )
        if CONFIGURED not in row["scores"] or not {"name", "images"} <= row["fold"].keys():
            raise ValueError(f"{where}: scores need {CONFIGURED}, a fold its name and images")
        rows.append(row)
    return rows


def append_row(path: str | os.PathLike[str], row: Mapping[str, Any]) -> None:
    """Append a row to a file in one write."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def find_row(
    rows: Sequence[Mapping[str, Any]],
    run: Run,
    provenance: Provenance,
    equal: EquivalentCode,
    settings: Sequence[str] = (),
) -> tuple[dict[str, Any] | None, str]:
    """Return the newest current row of a run, or the reason why its rows are stale.

    Args:
        rows: All rows, oldest first.
        run: The run.
        provenance: Current code and images.
        equal: Code hashes that count as equal.
        settings: Names of test settings for which a row must have scores.

    Returns:
        The row or None, and the reason why the newest row is stale. The reason is "" if there is a
        current row, or no row at all.
    """
    current, reason = None, ""
    for row in rows:
        same = (row["row"], row["seed"], row["fold"]["images"])
        if same != (run.row, run.seed_value, provenance.images):
            continue
        reason = _why_stale(row, run, provenance, equal, settings)
        if not reason:
            current = dict(row)
    # A current row counts even if a newer row is stale, as after checking out an older commit.
    return (current, "") if current is not None else (None, reason)


def _why_stale(
    row: Mapping[str, Any],
    run: Run,
    provenance: Provenance,
    equal: EquivalentCode,
    settings: Sequence[str],
) -> str:
    reasons = []
    if row["config"] != run.settings_hash:
        reasons.append(f"its settings have changed ({row['config']}, now {run.settings_hash})")
    if not equal.same(row["code"], provenance.code):
        reasons.append(f"the code has changed ({row['code']}, now {provenance.code})")
    missing = [name for name in settings if name not in row["scores"]]
    if missing and not reasons:
        reasons.append(f"it has no scores under {', '.join(missing)}")
    return "; ".join(reasons)
