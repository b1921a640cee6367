"""The dataset "Folder": split by identity, queries, and its config keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.projects.tiny_run import BASELINE, load_tiny
from unreid.config import config_hash
from unreid.data.folder import FolderItem
from unreid.data.folder_dataset import FolderDataset, split_by_id
from unreid.data.loader import build_test_loader
from unreid.data.unlabelled import load_training_images

PATTERN = r"c(?P<camera>\d+)_p(?P<id>\d+)(?:_(?P<tracklet>t\d+))?"
BOTH = {"DATASETS__NAMES": "('Folder',)", "DATASETS__TESTS": "('Folder',)"}
ALONE = {"DATASETS__NAMES": "('Folder',)", "DATASETS__TESTS": "()"}


def write_images(root: Path, *names: str) -> Path:
    """Write small images of different colours."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 16), (number % 256, 90, 30)).save(root / name)
    return root


def config(**settings: object) -> Any:
    return load_tiny(BASELINE, "unused", **settings)[0]


def items(*rows: tuple[str, str | None, str]) -> list[FolderItem]:
    """Return images of rows (camera, id, tracklet or "")."""
    return [
        FolderItem(f"{i:03d}.jpg", camera, pid, tracklet or None)
        for i, (camera, pid, tracklet) in enumerate(rows)
    ]


PEOPLE = st.lists(
    st.tuples(
        st.sampled_from("1234"),
        st.sampled_from([None, *"abcdefg"]),
        st.sampled_from(["", "", "t1", "t2"]),
    ),
    min_size=1,
    max_size=60,
)


@given(PEOPLE, st.floats(0.01, 1.0), st.integers(0, 3))
def test_split__is_disjoint_by_identity_and_every_query_has_a_match_in_another_camera(
    rows: list[tuple[str, str | None, str]], share: float, seed: int
) -> None:
    everyone = items(*rows)
    cameras: dict[str, set[str]] = {}
    for item in everyone:
        if item.pid is not None:
            cameras.setdefault(item.pid, set()).add(item.camera)
    testable = [pid for pid, seen in cameras.items() if len(seen) > 1]
    number = max(1, round(share * len(testable)))
    left = [i for i in everyone if i.pid is None or i.pid not in testable]
    if not testable or (number == len(testable) and not left):
        with pytest.raises(ValueError, match=r"UNSUP.FOLDER"):
            split_by_id(everyone, share, seed)
        return
    train, query, gallery = split_by_id(everyone, share, seed)
    assert sorted([*train, *query, *gallery]) == sorted(everyone)
    tested = {item.pid for item in [*query, *gallery]}
    assert len(tested) == number and None not in tested
    assert not tested & {item.pid for item in train}
    assert {item.pid for item in query} == tested
    for one in query:
        assert any(one.pid == g.pid and one.camera != g.camera for g in gallery)
    for pid in tested:  # at most one image or tracklet of a camera is a query
        for camera in "1234":
            units = {i.tracklet or i.path for i in query if i.pid == pid and i.camera == camera}
            assert len(units) <= 1
    shared = {(i.pid, i.camera, i.tracklet) for i in query if i.tracklet}
    assert not shared & {(i.pid, i.camera, i.tracklet) for i in gallery}


def test_split__of_one_image_per_camera_has_one_query() -> None:
    rows = items(("1", "a", ""), ("2", "a", ""), ("1", "b", ""))
    train, query, gallery = split_by_id(rows, 0.5)
    assert [[i.path for i in part] for part in (train, query, gallery)] == [
        ["002.jpg"],
        ["000.jpg"],
        ["001.jpg"],
    ]


def test_split__queries_are_the_first_image_of_each_camera_with_two() -> None:
    rows = items(
        ("1", "a", ""),
        ("1", "a", ""),
        ("2", "a", ""),
        ("2", "a", ""),
        ("3", "a", ""),
        ("1", None, ""),
    )
    train, query, gallery = split_by_id(rows, 1.0)
    assert [i.path for i in query] == ["000.jpg", "002.jpg"]
    assert [i.path for i in gallery] == ["001.jpg", "003.jpg", "004.jpg"]
    assert [i.path for i in train] == ["005.jpg"]


def test_split__is_stable_when_an_identity_is_added_and_depends_on_the_seed() -> None:
    people = [(camera, f"p{number}", "") for number in range(40) for camera in "12"]
    tested = [
        {i.pid for i in split_by_id(items(*rows), 0.3, seed)[1]}
        for rows, seed in (
            (people, 0),
            ([*people, ("1", "new", ""), ("2", "new", "")], 0),
            (people, 1),
        )
    ]
    assert len(tested[0]) == 12 and len(tested[0] - tested[1]) <= 1
    assert len(tested[0] & tested[2]) < 12


@pytest.mark.parametrize(
    ("rows", "share", "message"),
    [
        (
            [("1", None, ""), ("2", None, "")],
            0.5,
            "no image has an id, which evaluation needs; add a group",
        ),
        ([("1", "a", ""), ("1", "b", "")], 0.5, "none of 2 identities is seen by two cameras"),
        (
            [("1", "a", ""), ("2", "a", "")],
            0.5,
            "TEST_SHARE 0.5 of 1 identities leaves no training image",
        ),
    ],
)
def test_impossible_split__is_an_error_with_its_reason(
    rows: list[tuple[str, str | None, str]], share: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        split_by_id(items(*rows), share)


NAMES = [
    f"c{camera}_p{person}_{shot}.PNG"
    for camera in (1, 2, 10)
    for person in range(6)
    for shot in range(2)
]


def test_root_with_ids__is_split_and_read_by_the_loaders(tmp_path: Path) -> None:
    root = write_images(tmp_path / "größe", *NAMES)
    cfg = config(**BOTH, UNSUP__FOLDER__ROOT=root, UNSUP__FOLDER__PATTERN=PATTERN)
    images, pids = load_training_images(cfg.DATASETS.NAMES, cfg=cfg)
    assert pids is not None and len(images) == len(pids) == 24  # 4 of 6 people
    assert images.cameras == ("folder_1", "folder_2", "folder_10") and images.tracklets is None
    assert images.root == str(root)
    assert set(images.relative_paths) < set(NAMES)
    loader, num_query = build_test_loader(cfg, "Folder")
    batch = next(iter(loader))
    assert num_query == 6 and len(loader.dataset) == 12 and "tracklets" not in batch
    trained = {name.split("_")[1] for name in images.relative_paths}
    assert not trained & {Path(p).name.split("_")[1] for p in batch["img_paths"]}
    own = [(int(t), int(c)) for t, c in zip(batch["targets"], batch["camids"])]
    for target, camera in own[:num_query]:
        assert any(t == target and c != camera for t, c in own[num_query:])


def test_root_without_ids__is_for_training_only(tmp_path: Path) -> None:
    root = write_images(tmp_path, "door/1.jpg", "till/2.jpg", "till/3.JPG")
    cfg = config(**ALONE, UNSUP__FOLDER__ROOT=root, UNSUP__FOLDER__CAMERA="subfolder")
    images, pids = load_training_images(cfg.DATASETS.NAMES, cfg=cfg)
    assert pids is None and images.camids.tolist() == [0, 1, 1]
    wanted = config(**BOTH, UNSUP__FOLDER__ROOT=root, UNSUP__FOLDER__CAMERA="subfolder")
    with pytest.raises(ValueError, match=r"no image has an id, .* DATASETS.TESTS \"\(\)\""):
        load_training_images(wanted.DATASETS.NAMES, cfg=wanted)


def test_ids_of_some_images__are_not_used_for_label_quality(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_images(tmp_path, "c1_p1.jpg", "c2_p1.jpg", "c1_x.jpg")
    cfg = config(
        **ALONE,
        UNSUP__FOLDER__ROOT=root,
        UNSUP__FOLDER__PATTERN=r"c(?P<camera>\d)_(?:p(?P<id>\d))?",
    )
    with caplog.at_level("INFO", logger="fastreid"):
        images, pids = load_training_images(cfg.DATASETS.NAMES, cfg=cfg)
    assert len(images) == 3 and pids is None
    assert "1 of 3 images have no id: label quality is not computed" in caplog.text


def test_three_folders__inside_a_root_or_separate(tmp_path: Path) -> None:
    write_images(
        tmp_path,
        "a/c1_p1.jpg",
        "a/c2_p1.jpg",
        "q/c1_p9.jpg",
        "g/c2_p9.jpg",
        "g/c2_p8.jpg",
        "unused/c1_p3.jpg",
    )
    inside = config(
        **BOTH,
        UNSUP__FOLDER__ROOT=tmp_path,
        UNSUP__FOLDER__TRAIN="a",
        UNSUP__FOLDER__QUERY="q",
        UNSUP__FOLDER__GALLERY="g",
        UNSUP__FOLDER__PATTERN=PATTERN,
    )
    separate = config(
        **BOTH,
        UNSUP__FOLDER__TRAIN=tmp_path / "a",
        UNSUP__FOLDER__QUERY=tmp_path / "q",
        UNSUP__FOLDER__GALLERY=tmp_path / "g",
        UNSUP__FOLDER__PATTERN=PATTERN,
    )
    for cfg in (inside, separate):
        images, pids = load_training_images(cfg.DATASETS.NAMES, cfg=cfg)
        assert [Path(p).name for p in images.paths] == ["c1_p1.jpg", "c2_p1.jpg"]
        assert pids is not None and pids.tolist() == [0, 0]
        loader, num_query = build_test_loader(cfg, "Folder")
        assert num_query == 1 and len(loader.dataset) == 3
    assert (
        load_training_images(inside.DATASETS.NAMES, cfg=inside)[0].relative_paths[0]
        == "a/c1_p1.jpg"
    )


def test_gallery_image_without_id__matches_no_query_and_a_query_without_id_is_an_error(
    tmp_path: Path,
) -> None:
    write_images(tmp_path, "t/c1_p1.jpg", "q/c1_p2.jpg", "g/c2_p2.jpg", "g/c2_p.jpg", "g/c3_p.jpg")
    settings = dict(
        BOTH,
        UNSUP__FOLDER__ROOT=tmp_path,
        UNSUP__FOLDER__TRAIN="t",
        UNSUP__FOLDER__GALLERY="g",
        UNSUP__FOLDER__PATTERN=r"c(?P<camera>\d)_p(?P<id>\d)?",
    )
    cfg = config(**settings, UNSUP__FOLDER__QUERY="q")
    loader, _ = build_test_loader(cfg, "Folder")
    targets = next(iter(loader))["targets"].tolist()
    names = [Path(p).name for p in loader.dataset.paths]
    assert len(set(targets)) == 3
    assert targets[names.index("c1_p2.jpg")] == targets[names.index("c2_p2.jpg")]
    with pytest.raises(ValueError, match=r"g/c2_p.jpg: a query must have an id"):
        build_test_loader(config(**settings, UNSUP__FOLDER__QUERY="g"), "Folder")


def test_tracklets__are_numbered_per_camera(tmp_path: Path) -> None:
    names = [f"c{c}_p{p}_t{p}_{f}.jpg" for c in (1, 2) for p in range(4) for f in range(3)]
    cfg = config(
        **BOTH,
        UNSUP__FOLDER__ROOT=write_images(tmp_path, *names),
        UNSUP__FOLDER__TEST_SHARE=0.5,
        UNSUP__FOLDER__PATTERN=PATTERN,
    )
    images, _ = load_training_images(cfg.DATASETS.NAMES, cfg=cfg)
    assert images.tracklets is not None
    assert np.bincount(images.tracklets).tolist() == [3, 3, 3, 3]
    loader, num_query = build_test_loader(cfg, "Folder")
    batch = next(iter(loader))
    query = set(batch["tracklets"][:num_query].tolist())
    assert num_query == 6 and len(query) == 2, "one tracklet per identity: the first"
    assert not query & set(batch["tracklets"][num_query:].tolist())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (BOTH, "UNSUP.FOLDER.ROOT must name the folder of your images, got ''"),
        (dict(BOTH, UNSUP__FOLDER__ROOT="r", UNSUP__FOLDER__TEST_SHARE=0.0), "TEST_SHARE must be"),
        (dict(BOTH, UNSUP__FOLDER__ROOT="r", UNSUP__FOLDER__SPLIT_SEED=-1), "SPLIT_SEED must be"),
        (dict(BOTH, UNSUP__FOLDER__ROOT="r", UNSUP__FOLDER__CAMERA="csw"), "did you mean 'csv'"),
        (dict(BOTH, UNSUP__FOLDER__ROOT="r", UNSUP__FOLDER__PATTERN="c1"),
         r"UNSUP.FOLDER: pattern must have a group \(\?P<camera>"),
        (dict(BOTH, UNSUP__FOLDER__ROOT="r", UNSUP__FOLDER__TRAIN="t"), "QUERY and .*GALLERY must"),
        (dict(BOTH, UNSUP__FOLDER__ROOT="r", UNSUP__FOLDER__QUERY="q",
              UNSUP__FOLDER__GALLERY="g"), "TRAIN must name a folder"),
        (dict(ALONE, UNSUP__FOLDER__CSV="a.csv", UNSUP__FOLDER__TRAIN="t"),
         "ROOT must name the folder that the paths in UNSUP.FOLDER.CSV are relative to"),
    ],
)  # fmt: skip
def test_invalid_setting__is_an_error_before_the_folder_is_read(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_settings_of_an_unused_folder__do_not_change_the_hash_and_are_not_checked() -> None:
    market = config()
    assert config_hash(market) == config_hash(config(UNSUP__FOLDER__ROOT="elsewhere"))
    assert config_hash(config(**ALONE, UNSUP__FOLDER__ROOT="a")) != config_hash(
        config(**ALONE, UNSUP__FOLDER__ROOT="b")
    )


def test_missing_folder__is_named_with_its_key(tmp_path: Path) -> None:
    cfg = config(**ALONE, UNSUP__FOLDER__ROOT=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"UNSUP.FOLDER: .*nowhere: no such folder"):
        load_training_images(cfg.DATASETS.NAMES, cfg=cfg)


def test_folder_beside_another_dataset__has_its_own_cameras(
    tmp_path: Path, synthetic_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(synthetic_root))
    root = write_images(tmp_path, "c1_p1.jpg", "c1_p2.jpg")
    cfg = config(
        DATASETS__NAMES="('Market1501', 'Folder')",
        DATASETS__TESTS="()",
        UNSUP__FOLDER__ROOT=root,
        UNSUP__FOLDER__PATTERN=PATTERN,
    )
    images, pids = load_training_images(cfg.DATASETS.NAMES, cfg=cfg)
    assert images.cameras[0] == "folder_1" and len(images.cameras) == 4
    assert len(images) == 74 and pids is not None and len(set(pids.tolist())) == 10


def test_unreadable_image__is_named_or_skipped(tmp_path: Path) -> None:
    root = write_images(tmp_path, "c1_p1.jpg", "c1_p2.jpg", "c2_p1.JPG")
    broken = root / "c1_p2.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    cfg = config(**ALONE, UNSUP__FOLDER__ROOT=root, UNSUP__FOLDER__PATTERN=PATTERN)
    with pytest.raises(ValueError, match=r"c1_p2.jpg cannot be read as an image"):
        load_training_images(cfg.DATASETS.NAMES, cfg=cfg)
    images, _ = load_training_images(cfg.DATASETS.NAMES, bad_image="skip", cfg=cfg)
    assert images.relative_paths == ["c1_p1.jpg", "c2_p1.JPG"]


def test_empty_folder__is_an_error_that_names_it(tmp_path: Path) -> None:
    cfg = config(**ALONE, UNSUP__FOLDER__ROOT=tmp_path)
    with pytest.raises(
        ValueError,
        match=rf"DATASETS.NAMES Folder: no training image found in"
        rf" {tmp_path}",
    ):
        load_training_images(cfg.DATASETS.NAMES, cfg=cfg)


def test_dataset__has_the_attributes_of_a_fastreid_dataset() -> None:
    one = FolderItem("a.jpg", "1", None, "t")
    dataset = FolderDataset([one], gallery=[one])
    assert dataset.train == [("a.jpg", "", "1", "1/t")] and dataset.query == []
    assert dataset.gallery[0][1] == "no id: a.jpg"
