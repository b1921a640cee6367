"""The runs of a grid: every config x every value of every varied key x every seed.

Each run is checked before any of them starts, and has a folder of its own.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unreid.config import config_hash, load_config

SEED = "UNSUP.SEED"


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        config_file: the yml.
        label: what the config is called in tables.
        varied: (key, value) of each varied key, in the order given.
        seed: of ``UNSUP.SEED``; None leaves that of the config.
        opts: ``KEY VALUE ...`` of all settings, the output folder among them.
        folder: where the run writes.
        hash: ``config_hash`` of its settings, before the data set is read.
        epochs: how many it trains.
    """

    config_file: str
    label: str
    varied: tuple[tuple[str, str], ...]
    seed: int | None
    opts: tuple[str, ...]
    folder: str
    hash: str
    epochs: int

    @property
    def name(self) -> str:
        """What sets this run apart from the others of its grid."""
        words = [self.label, *(f"{short(key)} {value}" for key, value in self.varied)]
        return ", ".join(words + ([] if self.seed is None else [f"seed {self.seed}"]))


def short(key: str) -> str:
    """The last part of a dotted key."""
    return key.rsplit(".", 1)[-1]


def expand(
    configs: Sequence[str],
    vary: Sequence[tuple[str, Sequence[str]]],
    settings: Sequence[tuple[str, str]],
    seeds: Sequence[int],
    output: str,
) -> list[Run]:
    """Every run of the grid, in the order of the arguments, seeds last.

    Args:
        configs: yml files of any projects.
        vary: (key, its values) of each varied key.
        settings: (key, value) that all runs share.
        seeds: values of ``UNSUP.SEED``; none leaves that of the configs.
        output: the folder that gets a folder for each run.

    Raises:
        ValueError: a key given twice, two runs with equal settings, or a value that the config
            refuses, with the run's name before the reason.
        KeyError, FileNotFoundError: likewise, an unknown key or a missing file.
    """
    keys = [*(key for key, _ in vary), *(key for key, _ in settings)] + ([SEED] if seeds else [])
    for key in keys:
        if keys.count(key) > 1 or key == "OUTPUT_DIR":
            why = "is set by the grid itself" if key == "OUTPUT_DIR" else "is given twice"
            raise ValueError(f"{key} {why}")
    labels = _labels(configs)
    runs: list[Run] = []
    values = [[(key, value) for value in given] for key, given in vary]
    for label, config_file in zip(labels, configs):
        for varied in itertools.product(*values):
            for seed in seeds or (None,):
                runs.append(_run(config_file, label, varied, settings, seed, output))
    first: dict[object, Run] = {}
    for run in runs:
        for same in ((run.config_file, run.hash), run.folder):
            if same in first:
                raise ValueError(f"{first[same].name} and {run.name} are the same run")
            first[same] = run
    return runs


def _labels(configs: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    paths = [Path(os.path.abspath(config)).with_suffix("").parts for config in configs]
    for length in range(1, max(len(path) for path in paths) + 1):
        ends = ["/".join(path[-length:]) for path in paths]
        if len(set(ends)) == len(ends):
            return ends
    raise ValueError(f"a config is given twice: {', '.join(configs)}")


def _run(
    config_file: str, label: str, varied: tuple[tuple[str, str], ...],
    settings: Sequence[tuple[str, str]], seed: int | None, output: str,
) -> Run:  # fmt: skip
    parts = [f"{short(key)}-{value}" for key, value in varied]
    parts += [] if seed is None else [f"seed-{seed}"]
    # No value may leave the folder, and none is lost: the file system takes almost anything.
    name = "_".join(re.sub(r"[^\w.+-]+", "-", part) for part in [label, *parts])
    folder = os.path.join(output, name)
    pairs = [*settings, *varied] + ([] if seed is None else [(SEED, str(seed))])
    opts = [word for pair in [*pairs, ("OUTPUT_DIR", folder)] for word in pair]
    try:
        cfg, _ = load_config(config_file, opts)
    except (KeyError, ValueError, OSError) as error:
        what = ", ".join([label, *(f"{key} {value}" for key, value in varied)])
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise type(error)(f"{what}: {text}") from error
    hashed, epochs = config_hash(cfg), int(cfg.SOLVER.MAX_EPOCH)
    return Run(config_file, label, varied, seed, tuple(opts), folder, hashed, epochs)
