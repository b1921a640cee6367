"""Folders of crops: which images are listed, and their cameras, ids and tracklets."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unreid.data.folder import FolderItem, check_path_settings, image_files, read_folder
from unreid.data.images import UnreadableImageError, find_unreadable, load_image

PATTERN = r"c(?P<camera>\d+)_p(?P<id>\d+)"


def fill(root: Path, *names: str) -> Path:
    """Create empty files with these names; listing does not open files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@contextlib.contextmanager
def warnings_of(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Send the log of ``unreid.data.folder`` to ``caplog``, independent of the logging setup."""
    log = logging.getLogger("fastreid.unreid.folder")
    log.addHandler(caplog.handler)
    propagate, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.removeHandler(caplog.handler)
        log.propagate = propagate


def relative(root: Path, items: tuple[FolderItem, ...]) -> list[str]:
    return [item.path.removeprefix(f"{root}/") for item in items]


def test_all_formats__are_found_in_any_case_and_nothing_else(tmp_path: Path) -> None:
    wanted = [
        "a.jpg",
        "b.JPG",
        "c.jpeg",
        "d.JPEG",
        "e.png",
        "f.PnG",
        "g.webp",
        "h.WEBP",
        "i.bmp",
        "sub/deep/j.BMP",
    ]
    fill(
        tmp_path,
        *wanted,
        "notes.txt",
        "k.gif",
        "jpg",
        "l.jpg.part",
        ".hidden.jpg",
        ".thumbnails/m.jpg",
        "sub/._n.jpg",
    )
    assert list(image_files(str(tmp_path))) == sorted(wanted)
    assert relative(tmp_path, read_folder(tmp_path)) == sorted(wanted)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "webp", "bmp", "JPG", "WebP"])
def test_every_format__can_be_decoded(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.new("RGB", (12, 30), (200, 10, 10)).save(path)
    image = load_image(read_folder(tmp_path)[0].path)
    assert image.size == (12, 30) and image.mode == "RGB"


def test_unicode_names__are_kept_and_sorted(tmp_path: Path) -> None:
    names = ["Kasse Süd/c1_p1_größe.jpg", "入口/c2_p2_人.jpg", "z/c3_p3 \U0001f6b6.png"]
    fill(tmp_path, *names)
    items = read_folder(tmp_path, pattern=PATTERN)
    assert relative(tmp_path, items) == sorted(names)
    assert {(i.camera, i.pid) for i in items} == {("1", "1"), ("2", "2"), ("3", "3")}
    levels = read_folder(tmp_path, camera="subfolder")
    assert {item.camera for item in levels} == {"Kasse Süd", "入口", "z"}


def test_name_that_is_no_utf8__is_refused_by_a_message_that_can_be_printed(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such name")
    with pytest.raises(ValueError, match=r"a file name must be UTF-8; rename the file") as error:
        read_folder(tmp_path)
    str(error.value).encode()


def test_name_with_control_characters__is_refused(tmp_path: Path) -> None:
    (tmp_path / "a\nINFO: done.jpg").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"a\\nINFO: done\.jpg': a file name must not have control"
    ):
        image_files(str(tmp_path))


def test_links__are_followed_to_files_and_folders(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "x/c1_p1.jpg")
    root = fill(tmp_path / "root", "c2_p2.jpg")
    (root / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "c3_p3.JPG").symlink_to(tmp_path / "elsewhere/x/c1_p1.jpg")
    items = read_folder(root, pattern=PATTERN)
    assert relative(root, items) == ["c2_p2.jpg", "c3_p3.JPG", "link/x/c1_p1.jpg"]
    assert [item.camera for item in items] == ["2", "3", "1"]


def test_cyclic_links__list_each_image_once_by_its_real_path(tmp_path: Path) -> None:
    fill(tmp_path, "b/1.jpg", "b/c/2.jpg")
    (tmp_path / "a").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "b" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b" / "c" / "self").symlink_to(tmp_path / "b" / "c", target_is_directory=True)
    (tmp_path / "me").symlink_to(tmp_path / "me")
    assert image_files(str(tmp_path)) == ("b/1.jpg", "b/c/2.jpg")


def test_repeated_links__visit_each_folder_once(tmp_path: Path) -> None:
    """Each of 40 folders has two links to the next, so 2^40 paths lead to one image."""
    for step in range(40):
        (tmp_path / f"s{step}").mkdir()
    for step in range(39):
        for side in "lr":
            (tmp_path / f"s{step}" / side).symlink_to(tmp_path / f"s{step + 1}")
    (tmp_path / "s39" / "end.jpg").touch()
    assert image_files(str(tmp_path)) == ("s39/end.jpg",)


def test_dead_link_and_pipe__are_unreadable_and_do_not_block(tmp_path: Path) -> None:
    (tmp_path / "dead.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "me.jpg").symlink_to(tmp_path / "me.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    paths = [item.path for item in read_folder(tmp_path)]
    reasons = find_unreadable(paths)
    assert [Path(p).name for p in reasons] == ["dead.jpg", "me.jpg", "pipe.jpg"]
    assert "no regular file" in reasons[str(tmp_path / "pipe.jpg")]
    with pytest.raises(UnreadableImageError, match=r"pipe.jpg cannot be read"):
        load_image(str(tmp_path / "pipe.jpg"))


def test_empty_folder__has_no_item(tmp_path: Path) -> None:
    assert read_folder(tmp_path) == ()
    assert read_folder(tmp_path, pattern=PATTERN) == read_folder(tmp_path, camera="subfolder") == ()


def test_missing_folder__is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"train: no such folder"):
        read_folder(tmp_path, under="train")


def test_folder_without_settings__has_one_camera(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.jpg", "b/2.jpg")
    items = read_folder(tmp_path)
    assert {item.camera for item in items} == {"0"}
    assert all(item.pid is None and item.tracklet is None for item in items)


def test_pattern__gives_camera_id_and_tracklet_from_anywhere_in_the_path(tmp_path: Path) -> None:
    fill(tmp_path, "shop/cam_2/0007-t31-004.jpg", "shop/cam_10/0007-t2-001.jpg")
    pattern = r"cam_(?P<camera>\d+)/(?P<id>\d+)-(?P<tracklet>t\d+)"
    assert [(i.camera, i.pid, i.tracklet) for i in read_folder(tmp_path, pattern=pattern)] == [
        ("10", "0007", "t2"),
        ("2", "0007", "t31"),
    ]


def test_optional_group_without_match__is_unknown(tmp_path: Path) -> None:
    fill(tmp_path, "c1_p7.jpg", "c2.jpg")
    items = read_folder(tmp_path, pattern=r"c(?P<camera>\d+)(?:_p(?P<id>\d+))?")
    assert [(i.camera, i.pid) for i in items] == [("1", "7"), ("2", None)]


def test_path_that_does_not_match__is_named_with_how_many_others(tmp_path: Path) -> None:
    fill(tmp_path, "c1_p1.jpg", "thumb.jpg", "zebra.jpg")
    with pytest.raises(ValueError, match=r"/thumb.jpg \(and 1 others\) does not match the pattern"):
        read_folder(tmp_path, pattern=PATTERN)


def test_empty_camera__is_named(tmp_path: Path) -> None:
    fill(tmp_path, "c_p1.jpg")
    with pytest.raises(ValueError, match=r"c_p1.jpg: the group camera of .* is empty"):
        read_folder(tmp_path, pattern=r"c(?P<camera>\d*)_")


def test_subfolders__are_cameras_or_the_fields_of_levels(tmp_path: Path) -> None:
    fill(tmp_path, "ann/door/x/1.jpg", "bob/till/2.jpg")
    assert [i.camera for i in read_folder(tmp_path, camera="subfolder")] == ["ann", "bob"]
    items = read_folder(tmp_path, camera="subfolder", levels=("id", "camera"))
    assert [(i.pid, i.camera) for i in items] == [("ann", "door"), ("bob", "till")]
    items = read_folder(tmp_path, camera="subfolder", levels=("", "camera"))
    assert [(i.pid, i.camera) for i in items] == [(None, "door"), (None, "till")]


def test_image_outside_the_subfolders__is_named(tmp_path: Path) -> None:
    fill(tmp_path, "ann/1.jpg", "ann/door/2.jpg")
    with pytest.raises(
        ValueError,
        match=r"/ann/1.jpg is in 1 sub-folders, but camera 'subfolder'"
        r" expects id/camera/image",
    ):
        read_folder(tmp_path, camera="subfolder", levels=("id", "camera"))


def test_ids_of_a_pattern__go_with_cameras_of_subfolders(tmp_path: Path) -> None:
    fill(tmp_path, "door/p7.jpg", "till/p8.jpg")
    items = read_folder(tmp_path, camera="subfolder", pattern=r"p(?P<id>\d+)")
    assert [(i.camera, i.pid) for i in items] == [("door", "7"), ("till", "8")]
    items = read_folder(tmp_path, camera="one", pattern=r"p(?P<id>\d+)")
    assert [(i.camera, i.pid) for i in items] == [("0", "7"), ("0", "8")]


def test_under__reads_one_folder_of_the_root_with_paths_and_levels_from_there(
    tmp_path: Path,
) -> None:
    fill(tmp_path, "train/door/1.jpg", "query/till/2.jpg")
    assert relative(tmp_path, read_folder(tmp_path, under="train")) == ["train/door/1.jpg"]
    assert read_folder(tmp_path, under="train/", camera="subfolder")[0].camera == "door"
    assert len(read_folder(tmp_path, under=str(tmp_path / "train"))) == 1
    assert len(read_folder(tmp_path, under=".")) == 2
    with pytest.raises(ValueError, match=r"\.\./x must be a folder inside"):
        read_folder(tmp_path / "train", under="../x")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(pattern="c1"), r"pattern must have a group \(\?P<camera>\.\.\.\), got 'c1'; if"),
        (dict(pattern=r"(?P<id>\d)"), r"must have a group \(\?P<camera>"),
        (dict(pattern=r"(?P<camra>\d)"), "must be one of 'camera', 'id', 'tracklet', got 'camra';"
         " did you mean 'camera'"),
        (dict(pattern="(?P<camera>"), "pattern must be a regular expression"),
        (dict(pattern="(?P<camera>x)", csv="a.csv"), "not both"),
        (dict(camera="regex"), "camera 'regex' needs a pattern"),
        (dict(camera="csv"), "give a CSV with camera 'csv' only"),
        (dict(camera="one", csv="a.csv"), "give a CSV with camera 'csv' only"),
        (dict(camera="subfolders"), "did you mean 'subfolder'"),
        (dict(camera="subfolder", levels=("id",)), "levels must name camera once"),
        (dict(camera="subfolder", levels=("camera", "id", "id")), "no field twice"),
        (dict(camera="subfolder", levels=("cam",)), "levels must be one of"),
    ],
)  # fmt: skip
def test_invalid_settings__are_errors_that_name_the_problem(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_folder(tmp_path, **settings)  # type: ignore[arg-type]


def test_accents_in_two_forms__are_two_names_in_a_folder(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")]
    fill(tmp_path, *names)
    assert sorted(os.listdir(tmp_path)) == relative(tmp_path, read_folder(tmp_path))


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9999)), max_size=8, unique=True))
def test_pattern__agrees_with_a_plain_search_of_each_name(pairs: list[tuple[int, int]]) -> None:
    _, expression, _ = check_path_settings(pattern=PATTERN)
    assert expression is not None
    for camera, pid in pairs:
        name = f"a/c{camera}_p{pid}.jpg"
        (found,), plain = expression.search([name]), re.search(r"c(\d+)_p(\d+)", name)
        assert plain and found == {"camera": plain[1], "id": plain[2]}


def test_two_patterns__give_camera_and_id_and_some_images_have_no_id(tmp_path: Path) -> None:
    fill(tmp_path, "cam1/person7_a.jpg", "cam2/unknown.jpg")
    items = read_folder(tmp_path, pattern="cam([0-9]+)", id_pattern="person([0-9]+)")
    assert [(i.camera, i.pid) for i in items] == [("1", "7"), ("2", None)]
    for settings, words in (
        (
            dict(pattern=PATTERN, id_pattern="p([0-9]+)"),
            "the id must be in one of the two patterns",
        ),
        (dict(id_pattern="person[0-9]+"), "id_pattern must have one group"),
        (dict(csv="a.csv", id_pattern="p([0-9]+)"), "give a pattern or a CSV, not both"),
    ):
        with pytest.raises(ValueError, match=words):
            read_folder(tmp_path, **settings)


def test_ignored_files__are_counted_in_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, "a.jpg", "notes.txt", "more/b.gif", "more/c.gif", ".hidden.txt")
    with warnings_of(caplog):
        assert len(read_folder(tmp_path)) == 1
    (warning,) = caplog.messages
    assert "3 files are ignored (2 .gif, 1 .txt), such as more/b.gif" in warning
    assert "supported formats: .jpg .jpeg .png .webp .bmp" in warning


@pytest.mark.parametrize(
    ("names", "settings", "shared"),
    [
        (["storeA/cam1/a.jpg", "storeB/cam1/b.jpg"], dict(pattern="cam([0-9]+)"), True),
        (
            ["storeA/cam1/a.jpg", "storeB/cam1/b.jpg"],
            dict(camera="subfolder", levels=("", "camera")),
            True,
        ),
        (["storeA/cam1/a.jpg", "storeB/cam1/b.jpg"], dict(pattern="(store./cam[0-9]+)"), False),
        (["storeA/cam1/a.jpg", "storeB/cam2/b.jpg"], dict(pattern="cam([0-9]+)"), False),
        (["7/cam1/a.jpg", "8/cam1/b.jpg"], dict(pattern="{id}/cam{camera}"), False),
        (["train/7_c1.jpg", "test/8_c1.jpg"], dict(pattern="c([0-9]+)"), False),
        (["a/2021/c1.jpg", "b/2021/c1.jpg"], dict(pattern="c([0-9]+)"), False),
    ],
)
def test_folders_merged_into_one_camera__are_logged(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    names: list[str],
    settings: dict,
    shared: bool,
) -> None:
    fill(tmp_path, *names)
    with warnings_of(caplog):
        read_folder(tmp_path, **settings)
    found = [m for m in caplog.messages if "are treated as one camera" in m]
    assert len(found) == shared
    if shared:
        assert "1': storeA/cam1, storeB/cam1 are treated as one camera" in found[0]
        assert "include the parent folder in the camera group" in found[0]
