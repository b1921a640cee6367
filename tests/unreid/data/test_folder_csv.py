"""CSVs of images: accepted formats, errors by line, and no path outside the root."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unreid.data.folder import SUFFIXES, read_folder
from unreid.data.folder_csv import read_csv


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    for name in ("a.jpg", "sub/b.JPG", "sub/ö, c.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (tmp_path / "secret.jpg").touch()
    return folder


def write(root: Path, text: str | bytes) -> str:
    path = root / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_rows__give_camera_id_and_tracklet_and_unlisted_images_are_ignored(
    root: Path,
) -> None:
    write(root, "path,camera,id,tracklet\nsub/b.JPG,door,7,\na.jpg,till,,t1\n")
    items = read_folder(root, csv="list.csv")
    assert [(i.path, i.camera, i.pid, i.tracklet) for i in items] == [
        (f"{root}/a.jpg", "till", None, "t1"),
        (f"{root}/sub/b.JPG", "door", "7", None),
    ]
    assert [i.path for i in read_folder(root, csv="list.csv", under="sub")] == [f"{root}/sub/b.JPG"]


@pytest.mark.parametrize(
    "text",
    [
        '\ufeffpath,camera\r\n"sub/ö, c.png",1\r\n',
        "Camera;note; PATH \n1;x;sub/ö, c.png\n\n;;\n",
        "camera\tpath\n1\tsub\\ö, c.png",
        f'path,camera\n"{unicodedata.normalize("NFD", "sub/ö, c.png")}",1\n',
    ],
    ids=["spreadsheet", "semicolons", "tabs and backslashes", "decomposed accents"],
)
def test_formats_of_common_programs__are_read(root: Path, text: str) -> None:
    (row,) = read_csv(write(root, text), str(root), SUFFIXES)
    assert (row.path, row.camera, row.pid) == ("sub/ö, c.png", "1", None)


@pytest.mark.parametrize(
    "path",
    [
        "../secret.jpg",
        "sub/../../secret.jpg",
        "/etc/passwd.jpg",
        "..\\secret.jpg",
        "sub\\..\\..\\secret.jpg",
        "C:\\secret.jpg",
        "\\\\host\\secret.jpg",
        "//host/secret.jpg",
    ],
)
def test_path_that_leaves_the_root__is_refused_by_line(root: Path, path: str) -> None:
    file = write(root, f"path,camera\na.jpg,1\n{path},1\n")
    with pytest.raises(ValueError, match=r"list.csv line 3: .* leaves the root; paths must be"):
        read_csv(file, str(root), SUFFIXES)


def test_absolute_path_into_the_root__is_refused_too(root: Path) -> None:
    file = write(root, f"path,camera\n{root}/a.jpg,1\n")
    with pytest.raises(ValueError, match=r"leaves the root; paths must be relative to"):
        read_csv(file, str(root), SUFFIXES)


def test_link_that_the_owner_of_the_root_made__is_followed(root: Path) -> None:
    (root / "link.jpg").symlink_to(root.parent / "secret.jpg")
    assert len(read_csv(write(root, "path,camera\nlink.jpg,1\n"), str(root), SUFFIXES)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"must name the columns path, camera .* found ''"),
        ("a.jpg,1\n", "must name the columns path, camera"),
        ("paht,camera\na.jpg,1\n", "did you mean 'paht'"),
        ("path,camera,path\na.jpg,1,a.jpg\n", "must name path once"),
        ("path,camera\na.jpg\n", "line 2: 1 fields, but the header has 2"),
        ("path,camera\na.jpg, \n", "line 2: 'a.jpg' has no camera"),
        ("path,camera\n,1\n", "line 2: no path"),
        ("path,camera\ngone.jpg,1\n", "line 2: no file 'gone.jpg' in"),
        ("path,camera\nlist.csv,1\n", "line 2: 'list.csv' must end in one of .jpg"),
        ("path,camera\na.jpg,1\na.jpg,2\n", "line 3: 'a.jpg' is already in line 2"),
        ("path,camera\na.jpg,1\n./a.jpg,2\n", "line 3: 'a.jpg' is already in line 2"),
        ("path,camera\nsub/x\x00.jpg,1\n", "control characters|must be a CSV"),
        ('path,camera\n"a.jpg,1\n', "must be a CSV"),
        ("path,camera\n" + "x" * 200_000 + ".jpg,1\n", "must be a CSV|no file"),
        ("path,camera\n" + "x" * 5_000 + ".jpg,1\n", "no file"),
        (b"path,camera\n\xff\xfe.jpg,1\n", "must be a CSV in UTF-8"),
    ],
)
def test_invalid_csv__is_an_error_with_line_and_reason(
    root: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_csv(write(root, text), str(root), SUFFIXES)
    assert "list.csv" in str(error.value) and len(str(error.value)) < 6000


def test_missing_csv__is_named(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nope.csv: no such CSV"):
        read_folder(root, csv="nope.csv")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=120), st.sampled_from([b"", b"path,camera\n", b"path;camera;id\na.jpg;"]))
def test_any_bytes__are_read_or_raise_a_value_error(root: Path, noise: bytes, head: bytes) -> None:
    try:
        rows = read_csv(write(root, head + noise), str(root), SUFFIXES)
    except ValueError:
        return
    inside = os.path.realpath(root)
    assert all(os.path.realpath(root / row.path).startswith(inside + os.sep) for row in rows)


@pytest.mark.parametrize("column", ["camera", "id", "tracklet"])
@pytest.mark.parametrize("value", ["1\nINFO: done", "\x1b[2J", "a\0b"])
def test_control_characters__are_refused_in_every_column(
    root: Path, column: str, value: str
) -> None:
    names = ["camera", "id", "tracklet"]
    fields = [value if name == column else "1" for name in names]
    file = write(root, "path,camera,id,tracklet\na.jpg," + ",".join(f'"{f}"' for f in fields))
    with pytest.raises(ValueError, match=rf"must be a {column} without control|must be a CSV"):
        read_csv(file, str(root), SUFFIXES)
