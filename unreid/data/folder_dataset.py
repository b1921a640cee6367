"""``DATASETS.NAMES ("Folder",)``: a folder of crops as training images, queries and gallery.

Either the three are folders of their own, or people are divided by id; where nobody is named,
all pictures are for training.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from unreid.checks import check_choice, check_integer, check_number
from unreid.data.folder import CAMERA_FROM, FolderItem, check_reading, read_folder

#: The name in DATASETS.NAMES and DATASETS.TESTS.
FOLDER = "Folder"

#: (path, id, camera, tracklet), as fast-reid's data sets list them; "" where there is none.
Row = tuple[str, str, str, str]


class FolderDataset:
    """What ``cfg.UNSUP.FOLDER`` names, with the fields of a fast-reid data set.

    Attributes:
        train: Rows; an id is "" where it is unknown.
        query: Rows, with ids; of an automatic split, each has a match in another camera.
        gallery: Rows; a picture without id matches nobody.
        train_dir: The folder of the training images, for messages.
    """

    def __init__(
        self,
        train: Iterable[FolderItem],
        query: Iterable[FolderItem] = (),
        gallery: Iterable[FolderItem] = (),
        train_dir: str = "",
    ) -> None:
        self.train = [_row(item) for item in train]
        self.query = [_row(item) for item in query]
        # Two strangers are two people.
        self.gallery = [_row(item, item.pid or f"nobody {item.path}") for item in gallery]
        self.train_dir = train_dir

    @classmethod
    def from_config(cls, cfg: Any) -> FolderDataset:
        """Read what ``DATASETS.NAMES`` and ``DATASETS.TESTS`` need of ``cfg.UNSUP.FOLDER``.

        Raises:
            FileNotFoundError, ValueError: see :func:`unreid.data.folder.read_folder`; also a query
                without an id, and a split without people in two cameras.
        """
        node = cfg.UNSUP.FOLDER
        tests = FOLDER in cfg.DATASETS.TESTS
        if node.TRAIN or node.QUERY or node.GALLERY:
            train = _read(node, node.TRAIN) if node.TRAIN else ()
            query = _read(node, node.QUERY) if tests else ()
            for item in query:
                if item.pid is None:
                    raise ValueError(
                        f"{item.path}: a query must have an id, and nothing gives one; name it in"
                        ' UNSUP.FOLDER.PATTERN, or set DATASETS.TESTS "()" to train alone'
                    )
            gallery = _read(node, node.GALLERY) if tests else ()
            return cls(train, query, gallery, train_folder(node))
        items = _read(node, "")
        if not tests:
            return cls(items, train_dir=train_folder(node))
        share, seed = node.TEST_SHARE, node.SPLIT_SEED
        return cls(*split_by_id(items, share, seed), train_dir=train_folder(node))


def train_folder(node: Any) -> str:
    """The folder that label files give paths relative to."""
    return os.path.expanduser(node.ROOT or node.TRAIN)


def check_folder_settings(cfg: Any) -> None:
    """Refuse settings of ``cfg.UNSUP.FOLDER`` that cannot be read by; opens no file.

    Raises:
        ValueError: names the key.
    """
    names, tests = cfg.DATASETS.NAMES, cfg.DATASETS.TESTS
    if FOLDER not in (*names, *tests):
        return
    node = cfg.UNSUP.FOLDER
    key = "UNSUP.FOLDER"
    if node.CAMERA:
        check_choice(f"{key}.CAMERA", node.CAMERA, ("", *CAMERA_FROM))
    check_number(f"{key}.TEST_SHARE", node.TEST_SHARE, 0, 1, open_minimum=True)
    check_integer(f"{key}.SPLIT_SEED", node.SPLIT_SEED, 0)
    try:
        check_reading(**_settings(node))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    apart = node.TRAIN or node.QUERY or node.GALLERY
    if not (node.ROOT or apart):
        raise ValueError(f"{key}.ROOT must name the folder of your pictures, got ''")
    if node.CSV and not node.ROOT:
        raise ValueError(
            f"{key}.ROOT must name what the paths in {key}.CSV are relative to, got ''"
        )
    if apart and FOLDER in names and not node.TRAIN:
        raise ValueError(f"{key}.TRAIN must name a folder beside QUERY and GALLERY, got ''")
    if apart and FOLDER in tests and not (node.QUERY and node.GALLERY):
        raise ValueError(
            f"{key}.QUERY and {key}.GALLERY must name folders beside TRAIN, got {node.QUERY!r} and"
            f" {node.GALLERY!r}; to divide people on their own, name {key}.ROOT alone; to train"
            ' alone, set DATASETS.TESTS "()"'
        )


def _settings(node: Any) -> dict[str, Any]:
    return dict(
        pattern=node.PATTERN,
        id_pattern=node.ID_PATTERN,
        csv=node.CSV,
        camera=node.CAMERA,
        levels=tuple(node.LEVELS),
    )


def _read(node: Any, folder: str) -> tuple[FolderItem, ...]:
    """The pictures of one of the folders: in ROOT, or where there is none, a root of its own."""
    root, under = (node.ROOT, folder) if node.ROOT else (folder, "")
    try:
        return read_folder(root, under=under, **_settings(node))
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"UNSUP.FOLDER: {error}") from error


def _row(item: FolderItem, pid: str | None = None) -> Row:
    # Trackers count anew in every camera.
    tracklet = f"{item.camera}/{item.tracklet}" if item.tracklet else ""
    return item.path, pid or item.pid or "", item.camera, tracklet


def split_by_id(
    items: Sequence[FolderItem], test_share: float, seed: int = 0
) -> tuple[list[FolderItem], list[FolderItem], list[FolderItem]]:
    """(train, query, gallery): people are in training or in the test, never in both.

    Tested are people seen by two cameras or more, a share of them. Of each, a query is the first
    picture (or tracklet) of every camera that has another one; of who has one picture a camera,
    the first. All others are gallery: every query has a match in another camera. Who is tested
    follows from the name and the seed, so that new people move few of the old ones.

    Args:
        items: Pictures; those without an id are for training.
        test_share: Of the people seen by two cameras or more, in 0..1; at least one is tested.
        seed: Another seed, other people.

    Raises:
        ValueError: nobody has an id, nobody is seen by two cameras, or none is left to train on.
    """
    cameras: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.pid is not None:
            cameras[item.pid].add(item.camera)
    alone = 'or set DATASETS.TESTS "()" to train without a test'
    if items and not cameras:
        raise ValueError(
            "UNSUP.FOLDER: nobody has an id to be tested by; add a group (?P<id>...)"
            f" to UNSUP.FOLDER.PATTERN or a column id to the CSV, {alone}"
        )
    eligible = sorted(
        (pid for pid, seen in cameras.items() if len(seen) > 1),
        key=lambda pid: hashlib.sha256(f"{seed}/{pid}".encode()).digest(),
    )
    if items and not eligible:
        raise ValueError(
            f"UNSUP.FOLDER: none of {len(cameras)} people is seen by two cameras, and"
            f" a query needs a match in another one; mend the cameras, {alone}"
        )
    tested = set(eligible[: max(1, round(test_share * len(eligible)))])
    train = [item for item in items if item.pid not in tested]
    if items and not train:
        raise ValueError(
            f"UNSUP.FOLDER.TEST_SHARE {test_share} of {len(eligible)} people leaves no"
            " picture to train on; lower it"
        )
    of_person: dict[str, list[FolderItem]] = defaultdict(list)
    for item in items:
        if item.pid in tested:
            of_person[str(item.pid)].append(item)
    query = [item for own in of_person.values() for item in _queries(own)]
    chosen = {item.path for item in query}
    gallery = [item for own in of_person.values() for item in own if item.path not in chosen]
    return train, query, sorted(gallery)


def _queries(own: Sequence[FolderItem]) -> list[FolderItem]:
    """The queries of one person: the first unit of each camera with two, or the first of all."""
    units: dict[str, dict[str, list[FolderItem]]] = defaultdict(lambda: defaultdict(list))
    for item in own:
        name = f"tracklet {item.tracklet}" if item.tracklet else f"image {item.path}"
        units[item.camera][name].append(item)
    firsts = [next(iter(found.values())) for found in units.values() if len(found) > 1]
    firsts = firsts or [next(iter(next(iter(units.values())).values()))]
    return [item for unit in firsts for item in unit]
