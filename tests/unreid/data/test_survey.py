"""What a data set has and what is amiss in it, one claim at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unreid.data.folder import FolderItem
from unreid.data.folder_dataset import FolderDataset
from unreid.data.survey import (
    Finding,
    Picture,
    findings,
    list_pictures,
    read_pictures,
    suggest_reading,
    table,
)


@pytest.fixture
def make(tmp_path: Path, rng: np.random.Generator) -> Any:
    """Draws a picture of noise and lists it."""

    def draw(
        name: str,
        camera: str = "1",
        pid: str | None = None,
        part: str = "train",
        tracklet: str | None = None,
        size: tuple[int, int] = (32, 64),
    ) -> Picture:
        coarse = rng.integers(0, 256, (16, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size).save(tmp_path / name)
        return Picture(part, FolderItem(str(tmp_path / name), camera, pid, tracklet))

    return draw


def check(pictures: list[Picture], **settings: object) -> list[Finding]:
    readings = read_pictures([p.item.path for p in pictures])
    return findings(pictures, readings, **{"min_images": 0, **settings})  # type: ignore[arg-type]


def only(found: list[Finding], level: str, words: str) -> Finding:
    matching = [f for f in found if f.level == level and words in f.text]
    assert len(matching) == 1, found
    return matching[0]


def copy(picture: Picture, name: str, **changes: str) -> Picture:
    target = Path(picture.item.path).with_name(name)
    target.write_bytes(Path(picture.item.path).read_bytes())
    fields = {"camera": picture.item.camera, "pid": picture.item.pid, **changes}
    part = fields.pop("part", picture.part)
    return Picture(str(part), FolderItem(str(target), **fields))  # type: ignore[arg-type]


def test_nothing_amiss__finds_nothing(make: Any) -> None:
    assert check([make("a.png", "1"), make("b.png", "2")]) == []


def test_no_picture__is_an_error() -> None:
    (found,) = findings([], [])
    assert found.level == "error" and "no picture" in found.text


def test_unreadable__is_an_error_first_or_a_warning_where_it_is_skipped(make: Any) -> None:
    pictures = [make("a.jpg", "1"), make("b.jpg", "1")]
    broken = Path(pictures[1].item.path)
    broken.write_bytes(broken.read_bytes()[:200])
    found = check(pictures)
    assert found[0].level == "error" and f"1 unreadable: {broken} (" in found[0].text
    assert "UNSUP.BAD_IMAGE skip" in found[0].text
    only(check(pictures, skip_bad=True), "warning", "1 unreadable, left out")
    Path(pictures[0].item.path).write_bytes(b"")
    only(check(pictures, skip_bad=True), "error", "2 unreadable")


def test_exact_copies__are_counted_and_named(make: Any) -> None:
    one = make("a.png")
    found = check([one, copy(one, "b.png"), copy(one, "c.png"), make("d.png", "2")])
    text = only(found, "warning", "exact copies").text
    assert text.startswith("2 exact copies of 1 pictures:") and "a.png = " in text
    assert len(found) == 1


def test_copy_in_another_camera_or_person__is_called_misfiled(make: Any) -> None:
    one = make("a.png", "1", "7")
    found = check([one, copy(one, "b.png", camera="2"), copy(one, "c.png", pid="8")])
    only(found, "warning", "1 pictures are in two cameras at once")
    only(found, "warning", "1 pictures are in two people at once")


def test_copy_in_training_and_test__is_an_error(make: Any) -> None:
    one = make("a.png", "1", "7")
    found = check([one, make("d.png", "2", "9"), copy(one, "b.png", part="gallery")])
    only(found, "error", "1 pictures are for training and for the test")


def test_picture_saved_again__is_a_note(make: Any) -> None:
    one = make("a.png")
    again = Path(one.item.path).with_name("b.jpg")
    Image.open(one.item.path).save(again, quality=90)
    found = check([one, Picture("train", FolderItem(str(again), "2"))])
    only(found, "note", "2 pictures look like another in 1 groups")


def test_cameras_with_few_images__are_named(make: Any) -> None:
    pictures = [make(f"{i}.png", "12"[i > 2]) for i in range(4)]
    only(
        check(pictures, min_images=3),
        "warning",
        "1 cameras have fewer than 3 training images: 2 (1)",
    )
    assert check(pictures, min_images=1) == []


def test_one_camera__is_a_warning(make: Any) -> None:
    only(check([make("a.png"), make("b.png")]), "warning", "all training images are of one camera")


def test_small_pictures__are_named_with_their_size(make: Any) -> None:
    found = check([make("a.png", "1"), make("b.png", "2", size=(15, 40))])
    assert "b.png (15 x 40)" in only(found, "warning", "a side below 16 pixels").text


def test_people_in_training_and_test__and_queries_without_match__are_named(make: Any) -> None:
    found = check(
        [
            make("a.png", "1", "7"),
            make("b.png", "2", "8"),
            make("q.png", "1", "7", "query"),
            make("g.png", "1", "7", "gallery"),
        ]
    )
    only(found, "warning", "1 names of people are in training and in the test: 7")
    only(found, "note", "1 queries have no match in another camera")


def test_tracklet_of_two_people__is_named(make: Any) -> None:
    found = check(
        [
            make("a.png", "1", "7", tracklet="t1"),
            make("b.png", "1", "8", tracklet="t1"),
            make("c.png", "2", "8", tracklet="t1"),
        ]
    )
    only(found, "warning", "1 tracklets hold pictures of several people: t1 of camera 1")


def test_table__counts_by_part_and_camera(make: Any) -> None:
    pictures = [
        make("a.png", "1", "7", tracklet="t"),
        make("b.png", "1", "7", size=(20, 64)),
        make("c.png", "1", "8"),
        make("q.png", "2", "9", "query"),
    ]
    Path(pictures[2].item.path).write_bytes(b"?")
    first, second, everything = table(pictures, read_pictures([p.item.path for p in pictures]))
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


def test_every_file__is_one_step_and_keeps_its_place(make: Any) -> None:
    pictures = [make(f"{i}.png", size=(20 + i, 40)) for i in range(9)]
    steps: list[int] = []
    readings = read_pictures([p.item.path for p in pictures], lambda: steps.append(1))
    assert len(steps) == 9 and [r.width for r in readings] == list(range(20, 29))


def test_data_set__is_listed_with_unknown_people_as_unknown() -> None:
    item = FolderItem("a.jpg", "1")
    listed = list_pictures(FolderDataset([item], gallery=[item]), ("train", "gallery"))
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
def test_suggestion__finds_two_cameras_or_says_nothing(names: list[str], words: str) -> None:
    hint = suggest_reading(names)
    assert words in hint and bool(hint) == bool(words)
