"""Read the images that a command line names: a folder, or query files and folders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from unreid.data.folder import SUFFIXES, FolderItem, check_path_settings, image_files, read_folder


def read_images(root: str, reading: Mapping[str, Any]) -> tuple[FolderItem, ...]:
    """Return the images of a folder.

    Args:
        root: The folder.
        reading: Arguments of :func:`unreid.data.folder.read_folder`.

    Raises:
        FileNotFoundError, ValueError: See :func:`unreid.data.folder.read_folder`; also a folder
            without images.
    """
    items = read_folder(root, **reading)
    if not items:
        raise _nothing_in(root)
    return items


def check_images(root: str) -> None:
    """Raise an error for a missing folder or one without images, before torch is imported.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: The folder has no image.
    """
    if not os.path.isdir(os.path.expanduser(root)):
        read_folder(root)
    if not image_files(os.path.expanduser(root)):
        raise _nothing_in(root)


def _nothing_in(root: str) -> ValueError:
    return ValueError(f"{root}: no image found ({' '.join(SUFFIXES)}, in it and below)")


def read_queries(
    paths: Sequence[str], reading: Mapping[str, Any], query_csv: str = ""
) -> tuple[FolderItem, ...]:
    """Return the query images: the given files, and all images of the given folders.

    Args:
        paths: Files and folders.
        reading: See :func:`read_images`. A file that the pattern does not match has neither camera
            nor id.
        query_csv: CSV table of the query folders, used instead of the one in ``reading``.

    Raises:
        FileNotFoundError: A path does not exist; the message names it.
        ValueError: See :func:`read_images`.
    """
    items: list[FolderItem] = []
    for path in paths:
        if os.path.isdir(path):
            items += _query_folder(path, reading, query_csv)
        elif os.path.isfile(path):
            items.append(_query_file(path, reading))
        else:
            raise FileNotFoundError(f"--query {path}: no such file or folder")
    return tuple(items)


def _query_folder(path: str, reading: Mapping[str, Any], query_csv: str) -> list[FolderItem]:
    if query_csv:
        return list(read_images(path, {"csv": query_csv}))
    if reading.get("csv") or not (reading.get("pattern") or reading.get("camera")):
        # The cameras are unknown: the table lists only the gallery, and there is no pattern.
        return [FolderItem(item.path, "", None, None) for item in read_images(path, {})]
    return list(read_images(path, reading))


def _query_file(path: str, reading: Mapping[str, Any]) -> FolderItem:
    if not reading.get("pattern"):
        return FolderItem(path, "", None, None)
    source = reading.get("camera", "")
    _, expression, of_ids = check_path_settings(
        pattern=reading["pattern"],
        id_pattern=reading.get("id_pattern", ""),
        levels=reading.get("levels", ("camera",)),
        camera="" if source == "csv" else source,
    )
    groups: dict[str, str | None] = {}
    for pattern in (expression, of_ids):
        if pattern is not None:
            (found,) = pattern.search([path.replace(os.sep, "/")])
            groups.update(found or {})
    return FolderItem(path, groups.get("camera") or "", groups.get("id") or None, None)
