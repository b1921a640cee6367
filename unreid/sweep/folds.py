"""Folds of a sweep: cross-validation by identity, so that each identity is tested in one fold.

A fold is a dataset root (``FASTREID_DATASETS``) or, for a folder of crops, settings of
``UNSUP.FOLDER``. Folds are existing folders, or are made here from a dataset in the layout of
Market-1501 or from a folder of crops with ids.
"""

from __future__ import annotations

import csv
import hashlib
import os
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unreid.data.folder_dataset import FOLDER, FolderDataset
from unreid.data.unlabelled import build_dataset, datasets_root

PARTS = ("train", "query", "gallery")
#: Ids of Market-1501 for distractors (0) and junk detections (-1).
_NO_IDENTITY = ("0", "-1")


@dataclass(frozen=True)
class Fold:
    """One fold.

    Attributes:
        name: Name in tables and rows.
        root: Value of ``FASTREID_DATASETS``.
        settings: (key, value) pairs of a folder of crops; empty for a dataset of fast-reid.
    """

    name: str
    root: str
    settings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, order=True)
class Crop:
    """Image of the dataset that is divided; ``pid`` is "" without an identity."""

    path: str
    pid: str
    camera: str
    tracklet: str = ""


def whole_data_set() -> Fold:
    """Return a fold of the undivided dataset, named "all"."""
    return Fold("all", datasets_root())


def given_folds(paths: Sequence[str]) -> list[Fold]:
    """Return the folds in existing folders.

    Args:
        paths: Roots of datasets, or one folder that contains fold0, fold1, ...

    Raises:
        FileNotFoundError: A folder does not exist.
        ValueError: Two folds have the same name.
    """
    for path in paths:
        if not os.path.isdir(path):
            raise FileNotFoundError(f"--fold-roots {path}: no such folder")
    if len(paths) == 1:
        inside = [p for p in Path(paths[0]).glob("fold*") if p.is_dir()]
        inside.sort(key=lambda p: (len(p.name), p.name))
        paths = [str(p) for p in inside] or paths
    folds = [Fold(Path(os.path.abspath(path)).name, os.path.abspath(path)) for path in paths]
    names = [fold.name for fold in folds]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--fold-roots: two folds are named {name}; rename a folder")
    return folds


def divide(cameras: Mapping[str, set[str]], folds: int, seed: int) -> list[set[str]]:
    """Return the test identities of each fold, a partition of all identities.

    Args:
        cameras: Identity -> cameras with images of it.
        folds: Number of folds, at least 2.
        seed: Seed of the division.

    Raises:
        ValueError: There are no identities, or fewer than ``folds`` of them have images of two
            cameras. Each fold needs a query with a match in another camera.
    """
    if folds < 2:
        raise ValueError(f"--folds must be an integer >= 2, got {folds}")
    if not cameras:
        raise ValueError("--folds: the data set has no identities to divide it by")
    rng = random.Random(seed)
    seen_twice = sorted(pid for pid, seen in cameras.items() if len(seen) > 1)
    if len(seen_twice) < folds:
        raise ValueError(
            f"--folds {folds}: the data set is too small: {len(seen_twice)} of"
            f" {len(cameras)} identities are seen by two cameras or more, and each"
            " fold must test one at least"
        )
    others = sorted(cameras.keys() - set(seen_twice))
    rng.shuffle(seen_twice)
    rng.shuffle(others)
    # In reverse order, so that the sizes of the folds are balanced.
    others.reverse()
    return [{*seen_twice[k::folds], *others[folds - 1 - k :: folds]} for k in range(folds)]


def split(crops: Sequence[Crop], tested: set[str], seed: int) -> dict[str, list[Crop]]:
    """Return the images of ``train``, ``query`` and ``gallery`` of one fold.

    For each test identity with images of two cameras, one image (or tracklet) per camera is a
    query. Images without an identity are training images.
    """
    parts: dict[str, list[Crop]] = {part: [] for part in PARTS}
    own: dict[str, dict[str, dict[str, list[Crop]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for crop in sorted(crops):
        if crop.pid and crop.pid in tested:
            own[crop.pid][crop.camera][crop.tracklet or crop.path].append(crop)
        else:
            parts["train"].append(crop)
    for pid in sorted(own):
        for camera in sorted(own[pid]):
            units = own[pid][camera]
            # A string seed is hashed by its bytes, so it is the same in every process.
            rng = random.Random(f"{seed}/{pid}/{camera}")
            query = rng.choice(sorted(units)) if len(own[pid]) > 1 else None
            for name, members in units.items():
                parts["query" if name == query else "gallery"] += members
    return parts


def make_folds(cfg: Any, folds: int, seed: int, folder: str, among: str = "all") -> list[Fold]:
    """Divide the dataset of a config by identity, and write the folds as symbolic links.

    Args:
        cfg: Config; the only dataset of its ``DATASETS.NAMES`` is divided.
        folds: Number of folds.
        seed: See :func:`divide`.
        folder: Output folder of fold0, fold1, ...
        among: "all" images of the dataset, or those of its "train" part only, so that the test part
            is not used.

    Raises:
        ValueError: See :func:`divide`; also several datasets, or another layout than that of
            Market-1501.
    """
    if len(cfg.DATASETS.NAMES) != 1:
        raise ValueError(
            f"--folds divides one data set, got DATASETS.NAMES {tuple(cfg.DATASETS.NAMES)}"
        )
    name = cfg.DATASETS.NAMES[0]
    crops, folders = _read(cfg, name, among)
    cameras: dict[str, set[str]] = defaultdict(set)
    for crop in crops:
        if crop.pid:
            cameras[crop.pid].add(crop.camera)
    made = []
    for number, tested in enumerate(divide(cameras, folds, seed)):
        target = Path(os.path.abspath(folder), f"fold{number}")
        parts = split(crops, tested, seed)
        links = {
            f"{folders[part]}/{_link(crop, cfg)}": crop for part in PARTS for crop in parts[part]
        }
        if len(links) < len(crops):
            raise ValueError(f"--folds: {name} has images of one name in two folders")
        _write_links(target, links)
        made.append(
            _folder_fold(target, links) if name == FOLDER else Fold(target.name, str(target))
        )
    return made


def _link(crop: Crop, cfg: Any) -> str:
    root = os.path.expanduser(cfg.UNSUP.FOLDER.ROOT)
    if FOLDER in cfg.DATASETS.NAMES and root:
        return Path(os.path.relpath(crop.path, root)).as_posix()
    return os.path.basename(crop.path)


def _read(cfg: Any, name: str, among: str) -> tuple[list[Crop], dict[str, str]]:
    """Return all images, and the folder of each part relative to the root."""
    if name == FOLDER:
        alone = cfg.clone()
        alone.defrost()
        alone.DATASETS.TESTS = ()
        rows = FolderDataset.from_config(alone).train
        if rows and not any(pid for _, pid, _, _ in rows):
            raise ValueError(
                "--folds: no image in UNSUP.FOLDER has an identity to divide it by; add"
                " a group (?P<id>...) to UNSUP.FOLDER.PATTERN, or a column id to the"
                " CSV"
            )
        crops = [Crop(path, pid, camera, tracklet) for path, pid, camera, tracklet in rows]
        return crops, {part: part for part in PARTS}
    dataset: Any = build_dataset(name, "DATASETS.NAMES", cfg)
    try:
        folders = {
            part: os.path.relpath(getattr(dataset, f"{part}_dir"), datasets_root())
            for part in PARTS
        }
    except AttributeError as error:
        raise ValueError(
            f"--folds: {name} is not in Market's layout, with a folder for each of"
            " training, query and gallery images; use --fold-roots"
        ) from error
    crops = []
    for part in PARTS if among == "all" else PARTS[:1]:
        for path, pid, camera, *_ in getattr(dataset, part):
            identity = str(pid).rpartition("_")[2]
            if identity not in _NO_IDENTITY:
                crops.append(Crop(os.path.abspath(path), identity, str(camera).rpartition("_")[2]))
    return crops, {part: Path(folder).as_posix() for part, folder in folders.items()}


def _write_links(target: Path, links: Mapping[str, Crop]) -> None:
    for link in [p for p in target.rglob("*") if p.is_symlink()]:  # left by an earlier division
        if link.relative_to(target).as_posix() not in links:
            link.unlink()
    for name, crop in links.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() and os.readlink(path) != os.path.abspath(crop.path):
            path.unlink()
        if not path.is_symlink():
            path.symlink_to(os.path.abspath(crop.path))


def _folder_fold(target: Path, links: Mapping[str, Crop]) -> Fold:
    """Return a fold of a folder of crops: links in three folders, and a CSV with identities."""
    with open(target / "fold.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "camera", "id", "tracklet"))
        for name, crop in sorted(links.items()):
            writer.writerow((name, crop.camera, crop.pid, crop.tracklet))
    key = "UNSUP.FOLDER"
    settings = {
        "ROOT": str(target),
        "TRAIN": "train",
        "QUERY": "query",
        "GALLERY": "gallery",
        "CSV": "fold.csv",
        "CAMERA": "csv",
        "PATTERN": "",
        "ID_PATTERN": "",
    }
    pairs = [(f"{key}.{name}", value) for name, value in settings.items()]
    return Fold(target.name, datasets_root(), (*pairs, ("DATASETS.TESTS", f"('{FOLDER}',)")))


def image_list_hash(cfg: Any, fold: Fold) -> str:
    """Return twelve hex digits of a fold's images, identities and cameras.

    The hash does not depend on the path of the fold.

    Args:
        cfg: A config with the settings of the fold.
        fold: The fold.

    Raises:
        FileNotFoundError, KeyError: See :func:`unreid.data.unlabelled.build_dataset`.
        ValueError: There is no test identity, or an identity is in both training and test.
    """
    lines: list[str] = []
    tested: set[str] = set()
    trained: set[str] = set()
    before = os.environ.get("FASTREID_DATASETS")
    os.environ["FASTREID_DATASETS"] = fold.root
    try:
        for name in dict.fromkeys([*cfg.DATASETS.NAMES, *cfg.DATASETS.TESTS]):
            dataset: Any = build_dataset(name, "DATASETS", cfg)
            root = os.path.expanduser(cfg.UNSUP.FOLDER.ROOT) if name == FOLDER else fold.root
            for part in PARTS:
                if name not in (cfg.DATASETS.NAMES if part == "train" else cfg.DATASETS.TESTS):
                    continue
                for path, pid, camera, *rest in getattr(dataset, part):
                    # fast-reid adds the name of the dataset to training identities only.
                    bare = pid if name == FOLDER else str(pid).rpartition("_")[2]
                    identity = f"{name}/{bare}"
                    place = Path(os.path.relpath(path, root or ".")).as_posix()
                    lines.append(" ".join(map(str, (part, name, place, pid, camera, *rest))))
                    if pid != "" and part != "gallery":
                        (trained if part == "train" else tested).add(identity)
    finally:
        if before is None:
            del os.environ["FASTREID_DATASETS"]
        else:
            os.environ["FASTREID_DATASETS"] = before
    if cfg.DATASETS.TESTS and not tested:
        raise ValueError(
            f"fold {fold.name} has no identities to test: no query image under {fold.root}"
        )
    if trained & tested:
        raise ValueError(
            f"fold {fold.name}: {len(trained & tested)} identities are trained on and"
            f" tested, such as {min(trained & tested)}"
        )
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:12]
