"""Dataset "Folder": folders of crops as training, query and gallery images.

The three parts are separate folders, or one folder is split by identity. Images without an id are
training images.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from unreid.checks import check_choice, check_integer, check_number
from unreid.data.folder import CAMERA_FROM, FolderItem, check_path_settings, read_folder

#: Name of the dataset in DATASETS.NAMES and DATASETS.TESTS.
FOLDER = "Folder"

#: (path, id, camera, tracklet) in the order of fast-reid's datasets; "" if unknown.
Row = tuple[str, str, str, str]

#: Prefix of the id of a gallery image without an id; no two images share such an id.
NO_ID = "no id: "


class FolderDataset:
    """The images of ``cfg.UNSUP.FOLDER``, with the attributes of a fast-reid dataset.

    Args:
        train: Training images.
        query: Query images; each has an id.
        gallery: Gallery images.
        train_dir: Folder of the training images, for messages.

    Attributes:
        train: Rows; the id is "" if unknown.
        query: Rows with ids. In an automatic split, each query has a match in another camera.
        gallery: Rows; an image without an id matches no query.
        train_dir: Folder of the training images, for messages.
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
        self.gallery = [_row(item, item.pid or f"{NO_ID}{item.path}") for item in gallery]
        self.train_dir = train_dir

    @classmethod
    def from_config(cls, cfg: Any) -> FolderDataset:
        """List the folders of ``cfg.UNSUP.FOLDER`` that ``DATASETS.NAMES`` and ``TESTS`` need.

        Raises:
            FileNotFoundError: See :func:`unreid.data.folder.read_folder`.
            ValueError: See :func:`unreid.data.folder.read_folder`; also a query without an id, or a
                split without a person seen by two cameras.
        """
        node = cfg.UNSUP.FOLDER
        tests = FOLDER in cfg.DATASETS.TESTS
        if node.TRAIN or node.QUERY or node.GALLERY:
            train = _read(node, node.TRAIN) if node.TRAIN else ()
            query = _read(node, node.QUERY) if tests else ()
            for item in query:
                if item.pid is None:
                    raise ValueError(
                        f"{item.path}: a query must have an id, but has none; add a group id to"
                        ' UNSUP.FOLDER.PATTERN, or set DATASETS.TESTS "()" to skip evaluation'
                    )
            gallery = _read(node, node.GALLERY) if tests else ()
            return cls(train, query, gallery, train_folder(node))
        items = _read(node, "")
        if not tests:
            return cls(items, train_dir=train_folder(node))
        share, seed = node.TEST_SHARE, node.SPLIT_SEED
        return cls(*split_by_id(items, share, seed), train_dir=train_folder(node))


def train_folder(node: Any) -> str:
    """Return the folder that the paths in label files are relative to."""
    return os.path.expanduser(node.ROOT or node.TRAIN)


def check_folder_settings(cfg: Any) -> None:
    """Check the settings of ``cfg.UNSUP.FOLDER`` without opening a file.

    Raises:
        ValueError: An invalid value; names the key.
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
        check_path_settings(**_settings(node))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    separate = node.TRAIN or node.QUERY or node.GALLERY
    if not (node.ROOT or separate):
        raise ValueError(f"{key}.ROOT must name the folder of your images, got ''")
    if node.CSV and not node.ROOT:
        raise ValueError(
            f"{key}.ROOT must name the folder that the paths in {key}.CSV are relative to, got ''"
        )
    if separate and FOLDER in names and not node.TRAIN:
        raise ValueError(f"{key}.TRAIN must name a folder if QUERY and GALLERY do, got ''")
    if separate and FOLDER in tests and not (node.QUERY and node.GALLERY):
        raise ValueError(
            f"{key}.QUERY and {key}.GALLERY must name folders if TRAIN does, got {node.QUERY!r} and"
            f" {node.GALLERY!r}; for an automatic split set {key}.ROOT alone; to skip evaluation"
            ' set DATASETS.TESTS "()"'
        )


def _settings(node: Any) -> dict[str, Any]:
    """Return the keyword arguments of :func:`unreid.data.folder.check_path_settings`."""
    return dict(
        pattern=node.PATTERN,
        id_pattern=node.ID_PATTERN,
        csv=node.CSV,
        camera=node.CAMERA,
        levels=tuple(node.LEVELS),
    )


def _read(node: Any, folder: str) -> tuple[FolderItem, ...]:
    """Return the images of a folder in ROOT; without ROOT, the folder is the root itself."""
    root, under = (node.ROOT, folder) if node.ROOT else (folder, "")
    try:
        return read_folder(root, under=under, **_settings(node))
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"UNSUP.FOLDER: {error}") from error


def _row(item: FolderItem, pid: str | None = None) -> Row:
    """Return the row of an image, with ``pid`` instead of its own id if given."""
    # Trackers number their tracklets per camera.
    tracklet = f"{item.camera}/{item.tracklet}" if item.tracklet else ""
    return item.path, pid or item.pid or "", item.camera, tracklet


def split_by_id(
    items: Sequence[FolderItem], test_share: float, seed: int = 0
) -> tuple[list[FolderItem], list[FolderItem], list[FolderItem]]:
    """Split images by identity into training, query and gallery images.

    No identity is in both training and test. Test identities are a share of those seen by at least
    two cameras. The queries of a test identity are the first image (or tracklet) of each camera
    with at least two; if no camera has two, the first image (or tracklet) of all. The other images
    are the gallery, so that every query has a match in another camera. Test identities are selected
    by a hash of id and seed, so that adding identities changes the split of few others.

    Args:
        items: Images; those without an id are training images.
        test_share: Share of test identities among those seen by at least two cameras, in (0, 1]; at
            least one identity is tested.
        seed: Seed of the selection.

    Returns:
        Lists of training, query and gallery images.

    Raises:
        ValueError: No image has an id, no identity is seen by two cameras, or no image is left for
            training.
    """
    cameras: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.pid is not None:
            cameras[item.pid].add(item.camera)
    no_test = 'or set DATASETS.TESTS "()" to skip evaluation'
    if items and not cameras:
        raise ValueError(
            "UNSUP.FOLDER: no image has an id, which evaluation needs; add a group (?P<id>...)"
            f" to UNSUP.FOLDER.PATTERN or a column id to the CSV, {no_test}"
        )
    eligible = sorted(
        (pid for pid, seen in cameras.items() if len(seen) > 1),
        key=lambda pid: hashlib.sha256(f"{seed}/{pid}".encode()).digest(),
    )
    if items and not eligible:
        raise ValueError(
            f"UNSUP.FOLDER: none of {len(cameras)} identities is seen by two cameras, but"
            f" a query needs a match in another camera; check the camera settings, {no_test}"
        )
    tested = set(eligible[: max(1, round(test_share * len(eligible)))])
    train = [item for item in items if item.pid not in tested]
    if items and not train:
        raise ValueError(
            f"UNSUP.FOLDER.TEST_SHARE {test_share} of {len(eligible)} identities leaves no"
            " training image; use a lower value"
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
    """Return the queries among the images of one identity; see :func:`split_by_id`."""
    units: dict[str, dict[str, list[FolderItem]]] = defaultdict(lambda: defaultdict(list))
    for item in own:
        name = f"tracklet {item.tracklet}" if item.tracklet else f"image {item.path}"
        units[item.camera][name].append(item)
    firsts = [next(iter(found.values())) for found in units.values() if len(found) > 1]
    firsts = firsts or [next(iter(next(iter(units.values())).values()))]
    return [item for unit in firsts for item in unit]
