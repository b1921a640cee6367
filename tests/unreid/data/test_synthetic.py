"""The synthetic dataset: layout, determinism, rendering, and difficulty.

Notation: N images, D channels, Q queries, G gallery images.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unreid.data import synthetic
from unreid.data.synthetic import (
    FOLDER,
    generate_dataset,
    make_camera,
    make_identity,
    next_view,
    render_contact_sheet,
    render_image,
    sample_track,
)
from unreid.data.synthetic_cameras import MAX_CAMERAS

NAME = re.compile(r"^(\d{4})_c([1-6])s(\d+)_(\d{6})_(\d{2})\.jpg$")
TINY: dict[str, Any] = {
    "num_train_ids": 8,
    "num_test_ids": 4,
    "num_cameras": 3,
    "images_per_id": 6,
}


def names(root: Path, folder: str) -> list[tuple[int, int, int]]:
    """Return (pid, camera, sequence) of every image in ``folder``, sorted by name."""
    found = []
    for path in sorted((root / FOLDER / folder).iterdir()):
        match = NAME.match(path.name)
        assert match, path.name
        found.append((int(match[1]), int(match[2]), int(match[3])))
    return found


def bytes_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.jpg"))}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    generate_dataset(root, **TINY)
    return root


# ---------------------------------------------------------------- layout


def test_layout__is_market_1501s_own(tiny: Path) -> None:
    folders = {p.name for p in (tiny / FOLDER).iterdir() if p.is_dir()}
    assert folders == {"bounding_box_train", "query", "bounding_box_test"}
    for folder in folders:
        assert names(tiny, folder)


def test_layout__is_read_by_fastreid(tiny: Path) -> None:
    datasets = pytest.importorskip("fastreid.data.datasets")
    market = datasets.DATASET_REGISTRY.get("Market1501")(root=str(tiny))
    assert len(market.train) == 8 * 6
    assert len(market.query) + len(market.gallery) == 4 * 6
    assert {item[2] for item in market.query} <= {0, 1, 2}
    assert {item[1] for item in market.query} == {9, 10, 11, 12}


def test_summary__counts_the_images(tmp_path: Path) -> None:
    summary = generate_dataset(tmp_path, **TINY)
    assert summary.generated
    assert summary.num_train_images == len(names(tmp_path, "bounding_box_train")) == 48
    assert summary.num_query_images == len(names(tmp_path, "query"))
    assert summary.num_gallery_images == len(names(tmp_path, "bounding_box_test"))
    assert (summary.num_train_ids, summary.num_test_ids, summary.num_cameras) == (8, 4, 3)


def test_ids__of_training_and_test_are_disjoint_and_start_at_one(tiny: Path) -> None:
    train = {pid for pid, _, _ in names(tiny, "bounding_box_train")}
    test = {pid for f in ("query", "bounding_box_test") for pid, _, _ in names(tiny, f)}
    assert train == set(range(1, 9))
    assert test == set(range(9, 13))


def test_query__is_one_image_of_each_id_and_camera(tiny: Path) -> None:
    queries = Counter((pid, cam) for pid, cam, _ in names(tiny, "query"))
    gallery = {(pid, cam) for pid, cam, _ in names(tiny, "bounding_box_test")}
    assert set(queries.values()) == {1}
    assert set(queries) == gallery


def test_query__has_a_match_under_another_camera(tiny: Path) -> None:
    gallery = names(tiny, "bounding_box_test")
    for pid, cam, _ in names(tiny, "query"):
        assert any(p == pid and c != cam for p, c, _ in gallery)


@pytest.mark.parametrize("images_per_id", [4, 5, 12, 17])
@pytest.mark.parametrize("num_cameras", [2, 3, 6])
def test_visits__are_at_least_two_cameras_with_at_least_two_images(
    num_cameras: int, images_per_id: int
) -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        visits = synthetic._visits(num_cameras, images_per_id, rng)
        cameras = [camera for camera, _ in visits]
        assert 2 <= len(set(cameras)) == len(cameras)
        assert all(0 <= camera < num_cameras for camera in cameras)
        assert min(images for _, images in visits) >= 2
        assert sum(images for _, images in visits) == images_per_id


def test_bursts__are_consecutive_frames_of_one_track() -> None:
    track = synthetic._tracks(make_camera(0), 7, np.random.default_rng(0))
    assert len(track) == 7
    by_sequence: dict[int, list[Any]] = {}
    for sequence, frame, view in track:
        by_sequence.setdefault(sequence, []).append((frame, view))
    assert len(by_sequence) == 2
    for frames in by_sequence.values():
        assert np.all(np.diff([frame for frame, _ in frames]) == 12)
        # One orientation per burst: front, side and back differ by 90 degrees, frames by less.
        assert np.ptp([view.yaw for _, view in frames]) < 1.2


def test_images__have_the_requested_size(tmp_path: Path) -> None:
    generate_dataset(
        tmp_path, num_train_ids=1, num_test_ids=1, num_cameras=2, images_per_id=4, size=(32, 96)
    )
    for path in tmp_path.rglob("*.jpg"):
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((32, 96), "RGB")


# ---------------------------------------------------------------- determinism


def test_same_seed__same_bytes(tiny: Path, tmp_path: Path) -> None:
    generate_dataset(tmp_path, **TINY)
    assert bytes_of(tmp_path) == bytes_of(tiny)


def test_other_seed__other_images(tiny: Path, tmp_path: Path) -> None:
    generate_dataset(tmp_path, **TINY, seed=1)
    assert not set(bytes_of(tmp_path).values()) & set(bytes_of(tiny).values())


def test_global_random_state__is_unchanged(tmp_path: Path) -> None:
    np.random.seed(5)  # noqa: NPY002 - the global state is tested here
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    generate_dataset(tmp_path, num_train_ids=1, num_test_ids=1, num_cameras=2, images_per_id=4)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_identity__does_not_depend_on_the_size_of_the_dataset() -> None:
    assert make_identity(7) == make_identity(7)
    assert make_identity(7) != make_identity(8)
    assert make_identity(7) != make_identity(7, seed=1)


# ---------------------------------------------------------------- generated once and completely


def test_same_dataset__is_not_generated_again(tiny: Path) -> None:
    stamps = {p: p.stat().st_mtime_ns for p in tiny.rglob("*.jpg")}
    summary = generate_dataset(tiny, **TINY)
    assert not summary.generated
    assert summary.num_train_images == 48
    assert stamps == {p: p.stat().st_mtime_ns for p in tiny.rglob("*.jpg")}


def test_incomplete_dataset__is_generated_again(tmp_path: Path) -> None:
    generate_dataset(tmp_path, **TINY)
    whole = bytes_of(tmp_path)
    next((tmp_path / FOLDER / "query").iterdir()).unlink()
    assert generate_dataset(tmp_path, **TINY).generated
    assert bytes_of(tmp_path) == whole


def test_other_parameters__replace_the_dataset(tmp_path: Path) -> None:
    generate_dataset(tmp_path, **TINY)
    assert generate_dataset(tmp_path, **{**TINY, "num_train_ids": 2}).generated
    assert {pid for pid, _, _ in names(tmp_path, "bounding_box_train")} == {1, 2}
    assert [p.name for p in tmp_path.iterdir()] == [FOLDER]


def test_other_version__replaces_the_dataset(tmp_path: Path) -> None:
    generate_dataset(tmp_path, **TINY)
    manifest = tmp_path / FOLDER / "synthetic.json"
    content = json.loads(manifest.read_text())
    content["wanted"]["version"] -= 1
    manifest.write_text(json.dumps(content))
    assert generate_dataset(tmp_path, **TINY).generated


def _fail_after(crops: int, error: type[BaseException]) -> Callable[..., Image.Image]:
    rendered = 0

    def render_or_fail(*args: Any) -> Image.Image:
        nonlocal rendered
        rendered += 1
        if rendered > crops:
            raise error
        return render_image(*args)

    return render_or_fail


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interruption__leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    monkeypatch.setattr(synthetic, "render_image", _fail_after(20, error))
    with pytest.raises(error):
        generate_dataset(tmp_path, **TINY)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_replacement__keeps_the_old_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate_dataset(tmp_path, **TINY)
    old = bytes_of(tmp_path)
    monkeypatch.setattr(synthetic, "render_image", _fail_after(20, KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        generate_dataset(tmp_path, **TINY, seed=3)
    assert bytes_of(tmp_path) == old
    assert [p.name for p in tmp_path.iterdir()] == [FOLDER]


def test_real_dataset__is_not_overwritten(tmp_path: Path) -> None:
    real = tmp_path / FOLDER / "query" / "0001_c1s1_000001_00.jpg"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"an image of the real dataset")
    with pytest.raises(
        FileExistsError,
        match=r"has no synthetic\.json, so it is not a synthetic .* is not overwritten",
    ):
        generate_dataset(tmp_path, **TINY)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [real]


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"num_train_ids": 0}, "num_train_ids must be an integer >= 1"),
        ({"num_test_ids": 0}, "num_test_ids must be an integer >= 1"),
        ({"num_train_ids": 1000, "num_test_ids": 600}, "num_train_ids + num_test_ids must be"),
        ({"num_cameras": 1}, "num_cameras must be an integer >= 2 and <= 6, got 1"),
        ({"num_cameras": 7}, "num_cameras must be an integer >= 2 and <= 6, got 7"),
        ({"images_per_id": 3}, "images_per_id must be an integer >= 4"),
        ({"images_per_id": 6.0}, "images_per_id must be an integer"),
        ({"size": (8, 128)}, "size[0] (width) must be an integer >= 16"),
        ({"size": (64, 20)}, "size[1] (height) must be an integer >= 32"),
        ({"size": (64,)}, "size must be (width, height)"),
        ({"seed": -1}, "seed must be an integer >= 0"),
    ],
)
def test_argument_out_of_range__is_an_error_before_rendering(
    tmp_path: Path, wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        generate_dataset(tmp_path / "new", **{**TINY, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_unknown_camera__is_an_error() -> None:
    with pytest.raises(ValueError, match="index must be an integer >= 0 and <= 5, got 6"):
        make_camera(MAX_CAMERAS)


def test_old_name_of_the_function__warns() -> None:
    with pytest.warns(FutureWarning, match="draw_dataset was renamed to generate_dataset"):
        assert synthetic.draw_dataset is generate_dataset
    with pytest.raises(AttributeError, match="no attribute 'draw_nothing'"):
        _ = synthetic.draw_nothing


# ---------------------------------------------------------------- rendering


def render(pid: int = 3, camera: int = 0, yaw: float = 0.0, **changes: Any) -> np.ndarray:
    """Return an image (128, 64, 3) without noise and occluder, in a fixed pose."""
    source = replace(make_camera(camera), noise=0.0)
    rng = np.random.default_rng(0)
    view = replace(next_view(source, sample_track(source, rng), 0, rng), yaw=yaw, occluder=-1)
    image = render_image(make_identity(pid), source, replace(view, **changes), rng)
    return np.asarray(image, np.float64)


def test_render_image__front_differs_from_back() -> None:
    assert np.abs(render(yaw=0.0) - render(yaw=np.pi)).max() > 40


def test_render_image__occluder_hides_the_person() -> None:
    assert np.abs(render() - render(occluder=0, occluder_x=0.0)).mean() > 5


@pytest.mark.parametrize("camera", range(1, MAX_CAMERAS))
def test_render_image__each_camera_changes_the_image(camera: int) -> None:
    assert np.abs(render(camera=0) - render(camera=camera)).mean() > 5


@pytest.mark.parametrize("pid", range(1, 25))
def test_render_image__works_for_many_identities_from_all_sides(pid: int) -> None:
    crops = [render(pid=pid, yaw=yaw) for yaw in np.arange(-3.0, 3.5, 1.0)]
    # Images of two identities differ mostly in the centre, where the person is.
    other = render(pid=pid + 1, yaw=-3.0)
    assert np.abs(crops[0] - other)[30:100, 20:44].mean() > np.abs(crops[0] - other).mean()
    assert np.isfinite(crops).all()


@pytest.mark.parametrize(
    "changes",
    [{"shift": (5.0, 0.0)}, {"shift": (0.0, -5.0)}, {"scale": 0.05}, {"scale": 6.0}],
    ids=["beside", "above", "very far", "very near"],
)
def test_render_image__crop_that_misses_the_person_is_still_an_image(
    changes: dict[str, Any],
) -> None:
    assert render(**changes).shape == (128, 64, 3)


def test_contact_sheet__has_a_row_per_identity_and_columns_per_camera() -> None:
    sheet = render_contact_sheet([1, 2], num_cameras=3, views=2, size=(20, 40), margin=1)
    assert sheet.size == (3 * (2 * 21 + 1) - 2, 2 * 41 - 1)


# ---------------------------------------------------------------- difficulty


def mean_average_precision(
    features: np.ndarray, queries: int, pids: np.ndarray, camids: np.ndarray
) -> float:
    """Return the mAP of Market-1501's protocol, written as a slow loop."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    precisions = []
    for q in range(queries):
        ranked = sorted(
            (-float(unit[q] @ unit[g]), g)
            for g in range(queries, len(unit))
            if not (pids[g] == pids[q] and camids[g] == camids[q])
        )
        hits, found = [], 0
        for rank, (_, g) in enumerate(ranked, start=1):
            if pids[g] == pids[q]:
                found += 1
                hits.append(found / rank)
        precisions.append(np.mean(hits))
    return 100 * float(np.mean(precisions))


Split = tuple[np.ndarray, int, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Return the images (N, H, W, 3) with the queries first, Q, pids (N,), camids (N,)."""
    root = tmp_path_factory.mktemp("difficulty")
    generate_dataset(root, num_train_ids=1, num_test_ids=40, images_per_id=10)
    people = names(root, "query") + names(root, "bounding_box_test")
    paths = sorted((root / FOLDER / "query").iterdir())
    queries = len(paths)
    paths += sorted((root / FOLDER / "bounding_box_test").iterdir())
    crops = np.stack([np.asarray(Image.open(path)) for path in paths])
    return crops, queries, np.array([p for p, _, _ in people]), np.array(
        [c for _, c, _ in people]
    )  # fmt: skip


def untrained(crops: np.ndarray, seed: int) -> np.ndarray:
    """Return the features (N, 512) of a ResNet-18 with random weights."""
    models = pytest.importorskip("torchvision").models
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = models.resnet18(weights=None)
    network.fc = torch.nn.Identity()
    network.eval()
    images = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    with torch.no_grad():
        return torch.cat([network(part) for part in images.split(100)]).numpy()


def histogram(crops: np.ndarray, space: str, stripes: int) -> np.ndarray:
    """Return root histograms (N, stripes * 512) of 8 x 8 x 8 colours in horizontal stripes."""
    rows = []
    for one in crops:
        pixels = np.asarray(Image.fromarray(one).convert(space)) // 32
        for stripe in np.array_split(pixels.astype(np.int64), stripes):
            code = stripe[..., 0] * 64 + stripe[..., 1] * 8 + stripe[..., 2]
            rows.append(np.sqrt(np.bincount(code.ravel(), minlength=512) / code.size))
    return np.asarray(rows).reshape(len(crops), -1)


@pytest.mark.parametrize("seed", [0, 1])
def test_difficulty__untrained_network_has_a_map_between_10_and_35(split: Split, seed: int) -> None:
    crops, queries, pids, camids = split
    features = untrained(crops, seed)
    assert 10 < mean_average_precision(features, queries, pids, camids) < 35
    # Unsupervised training requires this: the nearest image of the same camera mostly has the
    # same id, but the nearest image of another camera mostly has another id.
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    near = unit @ unit.T
    np.fill_diagonal(near, -2.0)
    same = camids[:, None] == camids[None]
    within = np.where(same, near, -2.0).argmax(axis=1)
    across = np.where(same, -2.0, near).argmax(axis=1)
    assert np.mean(pids[within] == pids) > 0.8
    assert np.mean(pids[across] == pids) < 0.65


@pytest.mark.parametrize("stripes", [1, 3, 6])
@pytest.mark.parametrize("space", ["RGB", "HSV"])
def test_difficulty__colour_histogram_has_a_map_below_60(
    split: Split, space: str, stripes: int
) -> None:
    crops, queries, pids, camids = split
    features = histogram(crops, space, stripes)
    assert mean_average_precision(features, queries, pids, camids) < 60


def test_difficulty__camera_centred_histogram_has_a_map_below_60(
    split: Split,
) -> None:
    crops, queries, pids, camids = split
    features = histogram(crops, "HSV", 3)
    for camera in np.unique(camids):
        features[camids == camera] -= features[camids == camera].mean(axis=0)
    assert mean_average_precision(features, queries, pids, camids) < 60


# ---------------------------------------------------------------- the command


def load_tool() -> Any:
    path = Path(__file__).resolve().parents[3] / "tools" / "make_demo_data.py"
    spec = importlib.util.spec_from_file_location("make_demo_data", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tool__writes_the_images_of_the_function(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path), "--identities", "8", "4", "--cameras", "3"]
    assert load_tool().main([*arguments, "--images-per-identity", "6"]) == 0
    assert "48 images of 8 people" in capsys.readouterr().out
    assert bytes_of(tmp_path) == bytes_of(tiny)


def test_tool__contact_sheet_is_an_image(tmp_path: Path) -> None:
    path = tmp_path / "sheet.jpg"
    assert load_tool().main(["--contact-sheet", str(path), "--cameras", "2"]) == 0
    with Image.open(path) as sheet:
        assert sheet.width > 200


def test_tool__invalid_argument_is_one_line_of_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_tool().main(["--out", str(tmp_path), "--cameras", "9"]) == 2
    assert "num_cameras must be an integer >= 2 and <= 6, got 9" in capsys.readouterr().err


def test_tool__without_output_is_an_error() -> None:
    with pytest.raises(SystemExit):
        load_tool().main([])
