"""The runs of a sweep: the product of configs, values of the varied keys, folds and seeds.

All runs are checked before the first one starts. Each run has its own output folder.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastreid.config import get_cfg

from unreid.config import add_unreid_config, config_hash, flat_keys, load_config
from unreid.projects import load_project, resolve_config
from unreid.sweep.folds import Fold

SEED = "UNSUP.SEED"
#: Settings that name a file, of which the content is hashed, not the path.
_FILES = ("MODEL.BACKBONE.PRETRAIN_PATH", "MODEL.WEIGHTS")
#: Settings that depend on the machine or fold, or affect no score; the seed is stored separately.
_NOT_HASHED = ("OUTPUT_DIR", SEED, "MODEL.DEVICE", "UNSUP.REPORT", "UNSUP.CACHE_IMAGES")


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        config_file: The yml.
        label: Short form of the config, such as ``CALR/small/baseline``.
        varied: (key, value) of each varied key, in the given order.
        seed: Value of ``UNSUP.SEED``; None keeps that of the config.
        opts: ``KEY VALUE ...`` of all settings, including the output folder.
        folder: Output folder.
        hash: ``config_hash`` of the settings, before the dataset is read.
        epochs: Number of epochs.
        fold: Training and test data; None keeps ``FASTREID_DATASETS``.
        seed_value: The seed that is used.
        settings_hash: See :func:`settings_hash`.
        project: Name of the project.
    """

    config_file: str
    label: str
    varied: tuple[tuple[str, str], ...]
    seed: int | None
    opts: tuple[str, ...]
    folder: str
    hash: str
    epochs: int
    fold: Fold | None = None
    seed_value: int = 0
    settings_hash: str = ""
    project: str = ""

    @property
    def row(self) -> str:
        """Name of its row, shared with other folds and seeds."""
        return ", ".join([self.label, *(f"{short(key)} {value}" for key, value in self.varied)])

    @property
    def name(self) -> str:
        """Unique name of the run in its sweep."""
        words = [self.row] + ([self.fold.name] if self.fold else [])
        return ", ".join(words + ([] if self.seed is None else [f"seed {self.seed}"]))


def short(key: str) -> str:
    """Return the last part of a dotted key."""
    return key.rsplit(".", 1)[-1]


def expand(
    configs: Sequence[str],
    vary: Sequence[tuple[str, Sequence[str]]],
    settings: Sequence[tuple[str, str]],
    seeds: Sequence[int],
    output: str,
    folds: Sequence[Fold] = (),
) -> list[Run]:
    """Return all runs of the sweep in the order of the arguments; seeds vary fastest.

    Args:
        configs: yml files of any projects.
        vary: (key, values) of each varied key.
        settings: (key, value) pairs of all runs.
        seeds: Values of ``UNSUP.SEED``; without any, that of the config is used.
        output: Output folder; each run has a folder in it.
        folds: Folds; without any, ``FASTREID_DATASETS`` is used.

    Raises:
        ValueError: A key is given twice, two runs have equal settings, or the config refuses a
            value; names the run.
        KeyError, FileNotFoundError: A key is unknown or a file is missing; names the run.
    """
    keys = [*(key for key, _ in vary), *(key for key, _ in settings)] + ([SEED] if seeds else [])
    for key in keys:
        if keys.count(key) > 1 or key == "OUTPUT_DIR":
            why = "is set by the sweep itself" if key == "OUTPUT_DIR" else "is given twice"
            raise ValueError(f"{key} {why}")
    files = [str(resolve_config(config)) for config in configs]
    labels = [short_form(file) for file in files]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"a config is given twice: {label}")
    runs: list[Run] = []
    values = [[(key, value) for value in given] for key, given in vary]
    for label, file in zip(labels, files):
        for varied in itertools.product(*values):
            for fold, seed in itertools.product(folds or (None,), seeds or (None,)):
                runs.append(_run(file, label, varied, settings, fold, seed, output))
    first: dict[object, Run] = {}
    for run in runs:
        root = run.fold.root if run.fold else ""
        for same in ((run.config_file, run.hash, root), run.folder):
            if same in first:
                raise ValueError(f"{first[same].name} and {run.name} are the same run")
            first[same] = run
    return runs


def short_form(config_file: str) -> str:
    """Return a config's short form: ``CALR/small/baseline``, or the last two parts of its path."""
    parts = Path(os.path.abspath(config_file)).with_suffix("").parts
    if "configs" in parts[1:-1]:
        at = len(parts) - 1 - parts[::-1].index("configs")
        return "/".join((parts[at - 1], *parts[at + 1 :]))
    return "/".join(parts[-2:])


def settings_hash(cfg: Any) -> str:
    """Return twelve hex digits of the settings that affect scores, without fold and seed.

    Only settings that differ from the default are hashed, so that a new key does not change the
    hash; a changed default changes the code hash. The content of weight files is hashed.

    Args:
        cfg: A checked config.
    """
    default = get_cfg()
    add_unreid_config(default)
    load_project(cfg.PROJECT).add_config(default)
    usual = dict(flat_keys(default))
    lines = []
    for key, value in sorted(flat_keys(cfg)):
        if key in _NOT_HASHED or key.startswith("UNSUP.FOLDER.") or usual.get(key) == value:
            continue
        if key in _FILES and os.path.isfile(value):
            value = _content_hash(os.path.realpath(value))
        lines.append(f"{key} {_plain(value)!r}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    return tuple(_plain(v) for v in value) if isinstance(value, (list, tuple)) else value


@functools.lru_cache
def _content_hash(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _run(
    config_file: str, label: str, varied: tuple[tuple[str, str], ...],
    settings: Sequence[tuple[str, str]], fold: Fold | None, seed: int | None, output: str,
) -> Run:  # fmt: skip
    parts = [f"{short(key)}-{value}" for key, value in varied]
    parts += [fold.name] if fold else []
    parts += [] if seed is None else [f"seed-{seed}"]
    # Folder names must be unique and must not leave the output folder.
    name = "_".join(re.sub(r"[^\w.+-]+", "-", part) for part in [label, *parts])
    folder = os.path.join(output, name)
    pairs = [*settings, *varied, *(fold.settings if fold else ())]
    pairs += [] if seed is None else [(SEED, str(seed))]
    opts = [word for pair in [*pairs, ("OUTPUT_DIR", folder)] for word in pair]
    try:
        cfg, _ = load_config(config_file, opts)
    except (KeyError, ValueError, OSError) as error:
        what = ", ".join([label, *(f"{key} {value}" for key, value in varied)])
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise type(error)(f"{what}: {text}") from error
    return Run(
        config_file, label, varied, seed, tuple(opts), folder, config_hash(cfg),
        int(cfg.SOLVER.MAX_EPOCH), fold, int(cfg.UNSUP.SEED), settings_hash(cfg), cfg.PROJECT,
    )  # fmt: skip
