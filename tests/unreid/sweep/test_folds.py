"""Folds: each identity is tested once, training and test identities are disjoint, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.projects.overrides import tiny_options
from tests.projects.tiny_run import BASELINE, ROOT
from unreid.config import load_config
from unreid.sweep.folds import (
    Crop,
    Fold,
    divide,
    given_folds,
    image_list_hash,
    make_folds,
    split,
)

PEOPLE = st.dictionaries(
    st.text("abc0123456789_", min_size=1, max_size=4),
    st.sets(st.sampled_from("xyz"), min_size=1), min_size=1, max_size=40,
)  # fmt: skip


def config(*opts: str) -> Any:
    return load_config(str(ROOT / BASELINE), [*tiny_options(BASELINE, "out"), *opts])[0]


@given(PEOPLE, st.integers(2, 6), st.integers(0, 3))
def test_folds__test_every_identity_exactly_once(
    people: dict[str, set[str]], folds: int, seed: int
) -> None:
    pairs = sum(len(seen) > 1 for seen in people.values())
    if pairs < folds:
        with pytest.raises(ValueError, match=f"--folds {folds}: the data set is too small"):
            divide(people, folds, seed)
        return
    tested = divide(people, folds, seed)
    assert len(tested) == folds and sum(map(len, tested)) == len(people)
    assert set().union(*tested) == set(people)
    assert all(any(len(people[pid]) > 1 for pid in fold) for fold in tested)
    assert tested == divide(dict(reversed(people.items())), folds, seed)
    assert max(map(len, tested)) - min(map(len, tested)) <= 2


@given(PEOPLE, st.integers(1, 3), st.data())
def test_split__keeps_all_images_and_every_query_has_a_match(
    people: dict[str, set[str]], images: int, data: st.DataObject
) -> None:
    crops = [Crop(f"{pid}-{cam}-{i}", pid, cam) for pid, seen in people.items() for cam in seen
             for i in range(images)]  # fmt: skip
    tested = data.draw(st.sets(st.sampled_from(sorted(people))))
    parts = split(crops, tested, 0)
    assert sorted(c for part in parts.values() for c in part) == sorted(crops)
    assert not {c.pid for c in parts["train"]} & tested
    for query in parts["query"]:
        assert people[query.pid] - {query.camera}
    queries = [(c.pid, c.camera) for c in parts["query"]]
    assert sorted(queries) == sorted(
        (pid, cam) for pid in tested if len(people[pid]) > 1 for cam in people[pid]
    )


def test_split__keeps_a_tracklet_together() -> None:
    crops = [Crop(f"{cam}{t}{i}", "p", cam, f"{cam}/{t}") for cam in "xy" for t in "12"
             for i in range(3)]  # fmt: skip
    parts = split(crops, {"p"}, 0)
    assert len(parts["query"]) == len(parts["gallery"]) == 6
    assert not {c.tracklet for c in parts["query"]} & {c.tracklet for c in parts["gallery"]}


def test_no_identities__are_refused() -> None:
    with pytest.raises(ValueError, match="has no identities to divide it by"):
        divide({}, 2, 0)
    with pytest.raises(ValueError, match="--folds must be an integer >= 2, got 1"):
        divide({"a": {"x", "y"}}, 1, 0)


@pytest.fixture
def market(synthetic_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTREID_DATASETS", str(synthetic_root))
    return synthetic_root


def ids(folder: Path) -> set[str]:
    return {p.name.split("_")[0] for p in folder.glob("*.jpg")}


def test_made_folds__are_datasets_in_market_layout(market: Path, tmp_path: Path) -> None:
    folds = make_folds(config(), 3, 0, str(tmp_path))
    every = ids(next(market.glob("Market*"))).union(*map(ids, market.glob("Market*/*")))
    assert [fold.name for fold in folds] == ["fold0", "fold1", "fold2"]
    tested = []
    for fold in folds:
        (root,) = Path(fold.root).glob("Market*")
        assert all(p.is_symlink() and p.is_file() for p in root.rglob("*.jpg"))
        test = ids(root / "query") | ids(root / "bounding_box_test")
        assert test and not test & ids(root / "bounding_box_train")
        assert test | ids(root / "bounding_box_train") == every
        tested.append(test)
    assert sum(map(len, tested)) == len(every) == len(set().union(*tested))
    hashes = [image_list_hash(config(), fold) for fold in folds]
    assert len(set(hashes)) == 3
    # The same division, again and in another folder, has the same images.
    assert make_folds(config(), 3, 0, str(tmp_path)) == folds
    moved = make_folds(config(), 3, 0, str(tmp_path / "other"))
    assert [image_list_hash(config(), fold) for fold in moved] == hashes
    assert given_folds([str(tmp_path / "other")]) == moved
    # Another division in the same folder leaves no link of the first.
    again = make_folds(config(), 3, 7, str(tmp_path))
    elsewhere = make_folds(config(), 3, 7, str(tmp_path / "third"))
    assert (
        [image_list_hash(config(), f) for f in again]
        == [image_list_hash(config(), f) for f in elsewhere]
        != hashes
    )


def test_folds_of_the_training_part__exclude_the_test_part(market: Path, tmp_path: Path) -> None:
    folds = make_folds(config(), 2, 0, str(tmp_path), among="train")
    (root,) = Path(folds[0].root).glob("Market*")
    assert set().union(*map(ids, root.iterdir())) == ids(
        next(market.glob("Market*/bounding_box_train"))
    )


def test_folder_with_ids__can_be_divided(market: Path, tmp_path: Path) -> None:
    images = next(market.glob("Market*/bounding_box_train"))
    opts = ["DATASETS.NAMES", "('Folder',)", "DATASETS.TESTS", "('Folder',)",
            "UNSUP.FOLDER.ROOT", str(images), "UNSUP.FOLDER.PATTERN",
            r"(?P<id>\d+)_c(?P<camera>\d+)s"]  # fmt: skip
    folds = make_folds(config(*opts), 2, 0, str(tmp_path))
    tested = []
    for fold in folds:
        settings = [word for pair in fold.settings for word in pair]
        cfg = config(*opts[:2], *settings)
        assert len(image_list_hash(cfg, fold)) == 12
        test = ids(Path(tmp_path, fold.name, "query")) | ids(Path(tmp_path, fold.name, "gallery"))
        assert test and not test & ids(Path(tmp_path, fold.name, "train"))
        tested.append(test)
    assert not tested[0] & tested[1] and tested[0] | tested[1] == ids(images)
    nameless = [*opts[:-1], r"c(?P<camera>\d+)s", "UNSUP.FOLDER.CAMERA", "regex"]
    with pytest.raises(ValueError, match=r"no image in UNSUP.FOLDER has an identity"):
        make_folds(config(*nameless), 2, 0, str(tmp_path / "no"))


def test_fold_without_queries__is_named(market: Path, tmp_path: Path) -> None:
    (fold, _) = make_folds(config(), 2, 0, str(tmp_path))
    for link in Path(fold.root).glob("*/query/*"):
        link.unlink()
    with pytest.raises(ValueError, match="fold fold0 has no identities to test"):
        image_list_hash(config(), fold)


def test_fold_with_identities_in_training_and_test__is_named(market: Path, tmp_path: Path) -> None:
    (fold, _) = make_folds(config(), 2, 0, str(tmp_path))
    (root,) = Path(fold.root).glob("Market*")
    link = next((root / "query").iterdir())
    (root / "bounding_box_train" / link.name).symlink_to(link.resolve())
    with pytest.raises(ValueError, match="fold fold0: 1 identities are trained on and tested"):
        image_list_hash(config(), fold)


def test_given_folds__that_are_missing_or_have_equal_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"--fold-roots .*nowhere: no such folder"):
        given_folds([str(tmp_path / "nowhere")])
    for name in ("a/x", "b/x", "fold0", "fold1", "fold10", "fold2"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(ValueError, match="two folds are named x"):
        given_folds([str(tmp_path / "a/x"), str(tmp_path / "b/x")])
    found = given_folds([str(tmp_path)])
    assert [fold.name for fold in found] == ["fold0", "fold1", "fold2", "fold10"]
    assert given_folds([str(tmp_path / "a/x")]) == [Fold("x", str(tmp_path / "a/x"))]
