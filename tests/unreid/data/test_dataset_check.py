"""Validation of datasets: one test per kind of problem, the table, and hints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unreid.data.dataset_check import (
    ImageEntry,
    Problem,
    find_problems,
    list_images,
    read_files,
    suggest_camera_option,
    summary_table,
)
from unreid.data.folder import FolderItem
from unreid.data.folder_dataset import FolderDataset


@pytest.fixture
def make(tmp_path: Path, rng: np.random.Generator) -> Any:
    """Return a function that saves a noise image and returns its entry."""

    def save(
        name: str,
        camera: str = "1",
        pid: str | None = None,
        part: str = "train",
        tracklet: str | None = None,
        size: tuple[int, int] = (32, 64),
    ) -> ImageEntry:
        coarse = rng.integers(0, 256, (16, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size).save(tmp_path / name)
        return ImageEntry(part, FolderItem(str(tmp_path / name), camera, pid, tracklet))

    return save


def check(entries: list[ImageEntry], **settings: object) -> list[Problem]:
    infos = read_files([p.item.path for p in entries])
    return find_problems(entries, infos, **{"min_images": 0, **settings})  # type: ignore[arg-type]


def only(found: list[Problem], level: str, words: str) -> Problem:
    """Return the single problem of a level whose text contains ``words``."""
    matching = [f for f in found if f.level == level and words in f.text]
    assert len(matching) == 1, found
    return matching[0]


def copy(entry: ImageEntry, name: str, **changes: str) -> ImageEntry:
    target = Path(entry.item.path).with_name(name)
    target.write_bytes(Path(entry.item.path).read_bytes())
    fields = {"camera": entry.item.camera, "pid": entry.item.pid, **changes}
    part = fields.pop("part", entry.part)
    return ImageEntry(str(part), FolderItem(str(target), **fields))  # type: ignore[arg-type]


def test_valid_dataset__has_no_problem(make: Any) -> None:
    assert check([make("a.png", "1"), make("b.png", "2")]) == []


def test_no_image__is_an_error() -> None:
    (found,) = find_problems([], [])
    assert found.level == "error" and "no image found" in found.text


def test_unreadable_file__is_an_error_or_a_warning_if_skipped(make: Any) -> None:
    entries = [make("a.jpg", "1"), make("b.jpg", "1")]
    broken = Path(entries[1].item.path)
    broken.write_bytes(broken.read_bytes()[:200])
    found = check(entries)
    assert found[0].level == "error" and f"1 unreadable: {broken} (" in found[0].text
    assert "UNSUP.BAD_IMAGE skip" in found[0].text
    only(check(entries, skip_bad=True), "warning", "1 unreadable, skipped")
    Path(entries[0].item.path).write_bytes(b"")
    only(check(entries, skip_bad=True), "error", "2 unreadable")


def test_exact_copies__are_counted_and_named(make: Any) -> None:
    one = make("a.png")
    found = check([one, copy(one, "b.png"), copy(one, "c.png"), make("d.png", "2")])
    text = only(found, "warning", "exact copies").text
    assert text.startswith("2 exact copies of 1 images:") and "a.png = " in text
    assert len(found) == 1


def test_copy_in_another_camera_or_identity__is_a_warning(make: Any) -> None:
    one = make("a.png", "1", "7")
    found = check([one, copy(one, "b.png", camera="2"), copy(one, "c.png", pid="8")])
    only(found, "warning", "1 images have copies in two cameras")
    only(found, "warning", "1 images have copies in two people")


def test_copy_in_training_and_test__is_an_error(make: Any) -> None:
    one = make("a.png", "1", "7")
    found = check([one, make("d.png", "2", "9"), copy(one, "b.png", part="gallery")])
    only(found, "error", "1 images are both in training and in the test")


def test_image_compressed_again__is_a_note(make: Any) -> None:
    one = make("a.png")
    again = Path(one.item.path).with_name("b.jpg")
    Image.open(one.item.path).save(again, quality=90)
    found = check([one, ImageEntry("train", FolderItem(str(again), "2"))])
    only(found, "note", "2 images are near duplicates, in 1 groups")


def test_cameras_with_few_images__are_named(make: Any) -> None:
    entries = [make(f"{i}.png", "12"[i > 2]) for i in range(4)]
    only(
        check(entries, min_images=3),
        "warning",
        "1 cameras have fewer than 3 training images: 2 (1)",
    )
    assert check(entries, min_images=1) == []


def test_one_camera__is_a_warning(make: Any) -> None:
    only(check([make("a.png"), make("b.png")]), "warning", "all training images are of one camera")


def test_small_images__are_named_with_their_size(make: Any) -> None:
    found = check([make("a.png", "1"), make("b.png", "2", size=(15, 40))])
    assert "b.png (15 x 40)" in only(found, "warning", "a side below 16 pixels").text


def test_ids_in_training_and_test_and_queries_without_match__are_named(make: Any) -> None:
    found = check(
        [
            make("a.png", "1", "7"),
            make("b.png", "2", "8"),
            make("q.png", "1", "7", "query"),
            make("g.png", "1", "7", "gallery"),
        ]
    )
    only(found, "warning", "1 ids are both in training and in the test: 7")
    only(found, "note", "1 queries have no match in another camera")


def test_tracklet_of_two_ids__is_named(make: Any) -> None:
    found = check(
        [
            make("a.png", "1", "7", tracklet="t1"),
            make("b.png", "1", "8", tracklet="t1"),
            make("c.png", "2", "8", tracklet="t1"),
        ]
    )
    only(found, "warning", "1 tracklets have images of several ids: t1 of camera 1")


def test_table__counts_by_part_and_camera(make: Any) -> None:
    entries = [
        make("a.png", "1", "7", tracklet="t"),
        make("b.png", "1", "7", size=(20, 64)),
        make("c.png", "1", "8"),
        make("q.png", "2", "9", "query"),
    ]
    Path(entries[2].item.path).write_bytes(b"?")
    first, second, everything = summary_table(entries, read_files([p.item.path for p in entries]))
    assert first == {
        "part": "train",
        "camera": "1",
        "images": 3,
        "people": 2,
        "tracklets": 1,
        "width": "20 to 32, median 26",
        "height": "64",
        "unreadable": 1,
    }
    assert (second["part"], second["images"], second["tracklets"]) == ("query", 1, "-")
    assert (everything["camera"], everything["images"], everything["people"]) == ("all", 4, 3)


def test_read_files__calls_step_per_file_and_keeps_the_order(make: Any) -> None:
    entries = [make(f"{i}.png", size=(20 + i, 40)) for i in range(9)]
    steps: list[int] = []
    infos = read_files([p.item.path for p in entries], lambda: steps.append(1))
    assert len(steps) == 9 and [r.width for r in infos] == list(range(20, 29))


def test_dataset__is_listed_with_unknown_ids_as_none() -> None:
    item = FolderItem("a.jpg", "1")
    listed = list_images(FolderDataset([item], gallery=[item]), ("train", "gallery"))
    assert [(p.part, p.item) for p in listed] == [("train", item), ("gallery", item)]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["x/0001_c1s1_01.jpg", "x/0002_c2s3_01.jpg"], "(2 cameras)"),
        (["cam-01/a.jpg", "Cam-02/b.jpg"], "(2 cameras)"),
        (["door/a.jpg", "till/b.jpg"], "--camera subfolder (2 cameras)"),
        (["c1_a.jpg", "c1_b.jpg"], ""),
        (["c1_a.jpg", "b.jpg"], ""),
        ([], ""),
    ],
)
def test_suggestion__needs_two_cameras(names: list[str], words: str) -> None:
    hint = suggest_camera_option(names)
    assert words in hint and bool(hint) == bool(words)
