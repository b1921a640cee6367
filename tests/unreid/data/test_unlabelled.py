"""Training images of labelled datasets: order, cameras, ids, and errors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.market1501 import Market1501

from tests.projects.overrides import ROOT
from tests.projects.tiny_run import BASELINE, load_tiny
from unreid.config import load_config
from unreid.data.unlabelled import UnlabelledImages, load_training_images

TRAIN = "Market-1501-v15.09.15/bounding_box_train"


@pytest.fixture
def root(synthetic_root: Path) -> Path:
    os.environ["FASTREID_DATASETS"] = str(synthetic_root)
    return synthetic_root


@pytest.fixture
def copy(synthetic_root: Path, tmp_path: Path) -> Path:
    """Return a copy of the synthetic dataset, which a test may modify."""
    target = tmp_path / "copy"
    shutil.copytree(synthetic_root, target)
    os.environ["FASTREID_DATASETS"] = str(target)
    return target


def test_images__are_sorted_with_cameras_from_zero(root: Path) -> None:
    images, pids = load_training_images(["Market1501"])
    assert list(images.paths) == sorted(images.paths)
    assert len(images) == len(pids) == 72 and pids.dtype == np.int64
    assert images.cameras == ("market1501_0", "market1501_1", "market1501_2")
    for path, camera in zip(images.paths, images.camids):
        assert f"_c{camera + 1}s" in path
    assert all(p.startswith(f"{TRAIN}/") for p in images.relative_paths)
    assert [len({p for p, i in zip(pids, images.paths) if f"/{n:04d}_" in i}) for n in (1, 8)] == [
        1,
        1,
    ]


def test_images__have_no_field_for_ids(root: Path) -> None:
    images, _ = load_training_images(["Market1501"])
    assert set(vars(images)) == {"paths", "camids", "cameras", "root", "tracklets"}
    assert images.tracklets is None and images.unit_indices.tolist() == list(range(72))


def test_subset__renumbers_the_cameras_that_are_left(root: Path) -> None:
    images, _ = load_training_images(["Market1501"])
    own = np.flatnonzero(images.camids == 2)
    part = images.subset(own)
    assert part.cameras == ("market1501_2",) and set(part.camids.tolist()) == {0}
    assert part.paths == tuple(images.paths[i] for i in own)


def test_cameras__are_sorted_by_number() -> None:
    from unreid.data.unlabelled import _natural_key

    names = ["duke_1", "duke_10", "duke_2", "market_0"]
    assert sorted(names[::-1], key=_natural_key) == ["duke_1", "duke_2", "duke_10", "market_0"]


@pytest.fixture(params=["second", "market1501"])
def other_set(copy: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Register a second dataset in the layout of Market-1501.

    Its class attribute ``dataset_name`` may be that of the first dataset.
    """
    name = "SecondForTests"

    class Second(Market1501):
        dataset_name = request.param

    shutil.copytree(copy / "Market-1501-v15.09.15", copy / "second" / "Market-1501-v15.09.15")
    DATASET_REGISTRY._do_register(name, lambda root: Second(root=str(copy / "second")))
    yield name
    del DATASET_REGISTRY._obj_map[name]


def test_two_datasets__have_separate_cameras_and_ids(other_set: str, copy: Path) -> None:
    images, pids = load_training_images(["Market1501", other_set])
    assert len(images) == 144 and len(images.cameras) == 6
    assert len(np.unique(pids)) == 16
    for camera, name in enumerate(images.cameras):
        folders = {
            "second" in images.paths[i].replace(str(copy), "")
            for i in np.flatnonzero(images.camids == camera)
        }
        assert folders == {name.startswith("second")}


def test_missing_folder__is_named(tmp_path: Path) -> None:
    os.environ["FASTREID_DATASETS"] = str(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError) as error:
        load_training_images(["Market1501"])
    message = str(error.value)
    assert "DATASETS.NAMES Market1501" in message
    assert f"Searched in {tmp_path / 'nowhere'}" in message
    assert "FASTREID_DATASETS" in message


def test_unknown_dataset__suggests_the_nearest_name(root: Path) -> None:
    with pytest.raises(
        KeyError,
        match=r"DATASETS.NAMES: no data set 'Market1510'; did you mean"
        r" 'Market1501'\?; known: .*DukeMTMC",
    ):
        load_training_images(["Market1510"])


def test_no_training_image__names_the_folder(copy: Path) -> None:
    for file in (copy / TRAIN).iterdir():
        file.unlink()
    with pytest.raises(
        ValueError,
        match=r"DATASETS.NAMES Market1501: no training image found in"
        rf" .*{TRAIN}",
    ):
        load_training_images(["Market1501"])


def truncate_one(copy: Path) -> Path:
    file = sorted((copy / TRAIN).iterdir())[3]
    file.write_bytes(file.read_bytes()[:300])
    return file


def test_truncated_image__is_skipped_with_a_warning_that_names_it(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = truncate_one(copy)
    images, pids = load_training_images(["Market1501"], bad_image="skip")
    assert len(images) == len(pids) == 71
    assert str(file) not in images.paths
    assert f"UNSUP.BAD_IMAGE skip: {file} is skipped" in caplog.text


def test_truncated_image__is_an_error_before_any_work(copy: Path) -> None:
    file = truncate_one(copy)
    with pytest.raises(ValueError, match=rf"{file} cannot be read as an image"):
        load_training_images(["Market1501"])


def test_no_readable_image__is_an_error(copy: Path) -> None:
    for file in (copy / TRAIN).iterdir():
        file.write_bytes(b"?")
    with pytest.raises(ValueError, match="none of 72 training images is readable"):
        load_training_images(["Market1501"], bad_image="skip")


def test_relative_paths__have_forward_slashes() -> None:
    path = os.path.join("r", "a", "b.jpg")
    images = UnlabelledImages((path,), np.zeros(1, np.int64), ("c",), "r")
    assert images.relative_paths == ["a/b.jpg"]


@pytest.mark.parametrize(("with_val", "number"), [(False, 6), (True, 8)])
def test_train_with_val__adds_the_validation_images_of_msmt17(
    msmt17: Path, with_val: bool, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    cfg, _ = load_tiny(BASELINE, UNSUP__TRAIN_WITH_VAL=with_val)
    with caplog.at_level("INFO", logger="fastreid.unreid.data"):
        images, pids = load_training_images(["MSMT17"], cfg=cfg)
    assert len(images) == number and images.cameras == ("msmt17_0", "msmt17_1", "msmt17_2")
    assert pids is not None and len(set(pids.tolist())) == 3
    assert sum("_val" in os.path.basename(path) for path in images.paths) == number - 6
    assert not any("/test/" in path for path in images.paths)
    logged = "MSMT17 has 6 training images and 2 validation images, 8 together" in caplog.text
    assert logged == with_val and f"Training on {number} images" in caplog.text


def test_train_with_val__without_validation_images_is_an_error(root: Path) -> None:
    cfg, _ = load_tiny(BASELINE, UNSUP__TRAIN_WITH_VAL=True)
    with pytest.raises(ValueError, match="TRAIN_WITH_VAL must be False for Market1501"):
        load_training_images(["Market1501"], cfg=cfg)


def test_train_with_val__is_on_in_calrs_msmt17_config() -> None:
    def train_with_val(name: str) -> bool:
        cfg, _ = load_config(str(ROOT / BASELINE.with_name(name)))
        return cfg.UNSUP.TRAIN_WITH_VAL

    assert train_with_val("msmt17.yml") and not train_with_val(BASELINE.name)
