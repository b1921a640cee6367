"""Predictor: features equal those of the run, for all input types."""

from __future__ import annotations

import os
import pty
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unreid.inference.making import CALR, PAIRS, SPHERE, draw, fill, make_run, truncate
from unreid.config import load_config
from unreid.data.images import UnreadableImageError
from unreid.data.unlabelled import load_training_images
from unreid.engine.extract import extract
from unreid.inference import Predictor


@pytest.mark.parametrize("config", [CALR, SPHERE, PAIRS], ids=lambda c: c.parts[1])
def test_features__equal_those_of_the_extraction_of_the_run(
    config: Path, tmp_path: Path, synthetic_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(synthetic_root))
    folder = make_run(tmp_path / "run", config, UNSUP__EXTRACT_FLIP=config == SPHERE)
    predictor = Predictor.from_run(folder)
    images, _ = load_training_images(("Market1501",))
    cfg, _ = load_config(str(folder / "config.yaml"))
    bank = extract(cfg, predictor.model, images)
    np.testing.assert_allclose(predictor(images.paths), bank.features, atol=1e-6)
    files = predictor.embed_files(images.paths)
    np.testing.assert_allclose(files.features, bank.features, atol=1e-6)
    assert files.kept.tolist() == list(range(len(images))) and files.bad == {}
    assert bank.features.std(axis=0).max() > 1e-3, "features that differ, or nothing is shown"


def test_features_of_any_norm__are_normalised(tmp_path: Path) -> None:
    folder = make_run(
        tmp_path / "run", SPHERE, SPHERECLUSTER__SPHERE=False, TEST__METRIC="euclidean"
    )
    predictor = Predictor.from_run(folder)
    image = draw(np.random.default_rng(0))
    with torch.no_grad():
        raw = predictor.model({"images": predictor.transform(image)[None]})
    assert abs(float(raw.norm()) - 1) > 0.01
    assert np.linalg.norm(predictor(image)) == pytest.approx(1, abs=1e-5)


def test_batch_of_mixed_sizes_and_types__equals_single_images(
    predictor: Predictor, tmp_path: Path, rng: np.random.Generator
) -> None:
    small, large, wide = (draw(rng, size) for size in [(7, 9), (200, 400), (90, 30)])
    small.save(tmp_path / "small.png")
    mixed = [
        tmp_path / "small.png",
        str(tmp_path / "small.png"),
        small,
        np.asarray(small),
        large,
        wide,
    ]
    features = predictor(mixed)
    assert features.shape == (6, predictor.num_features) and features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    alone = np.concatenate([predictor(image) for image in mixed])
    np.testing.assert_allclose(features, alone, atol=1e-5)
    np.testing.assert_allclose(features[:4], features[[0]].repeat(4, axis=0), atol=1e-5)
    assert np.abs(features[4] - features[5]).max() > 1e-3


def test_grey_image__gets_three_equal_channels(
    predictor: Predictor, rng: np.random.Generator
) -> None:
    grey = draw(rng).convert("L")
    array = np.asarray(grey)
    one, *others = predictor([Image.merge("RGB", [grey] * 3), grey, array, array[..., None]])
    for other in others:
        np.testing.assert_array_equal(one, other)


def test_rgba_and_palette_images__are_converted_to_rgb(
    predictor: Predictor, rng: np.random.Generator, tmp_path: Path
) -> None:
    rgb = draw(rng)
    rgba = rgb.copy()
    rgba.putalpha(Image.fromarray(rng.integers(0, 256, (64, 32), dtype=np.uint8)))
    rgba.save(tmp_path / "a.png")
    palette = rgb.quantize(16)
    features = predictor([rgb, rgba, np.asarray(rgba), tmp_path / "a.png"])
    np.testing.assert_allclose(features[1:], features[[0]].repeat(3, axis=0), atol=1e-6)
    np.testing.assert_allclose(*predictor([palette, palette.convert("RGB")]), atol=1e-6)


def test_exif_orientation__is_applied_to_files_and_images(
    predictor: Predictor, rng: np.random.Generator, tmp_path: Path
) -> None:
    upright = draw(rng)
    exif = Image.Exif()
    exif[0x0112] = 6  # upright after a rotation by 270 degrees
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        features = predictor([upright, tmp_path / "turned.png", opened])
    np.testing.assert_allclose(features[1:], features[[0]].repeat(2, axis=0), atol=1e-6)


def test_empty_input__gives_an_empty_array_of_the_right_width(predictor: Predictor) -> None:
    assert predictor([]).shape == (0, predictor.num_features)
    assert predictor.embed_files([]).features.shape == (0, predictor.num_features)


def test_generator__is_read_batch_by_batch(
    predictor: Predictor, rng: np.random.Generator, forwarded: list[int]
) -> None:
    taken = []

    def generate() -> object:
        for number in range(9):
            taken.append((number, len(forwarded)))
            yield draw(rng)

    assert len(predictor(generate())) == 9  # type: ignore[arg-type]
    assert forwarded == [4, 4, 1]
    assert taken[5] == (5, 1) and taken[8] == (8, 2), "no image is read before its batch"


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (np.zeros((4, 4, 3), np.float32), TypeError, r"images\[1\] must be uint8 in 0..255, got f"),
        (np.zeros((4, 4, 2), np.uint8), ValueError, r"images\[1\] must have shape \(H, W\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"images\[1\] must have shape"),
        (7, TypeError, r"images\[1\] must be a path, a PIL image or an array, got int"),
        (Image.new("RGB", (0, 5)), ValueError, r"images\[1\] must have pixels, got 0 x 5"),
    ],
)
def test_input_that_is_no_image__is_named_by_its_index(
    predictor: Predictor, image: object, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        predictor([np.zeros((4, 4, 3), np.uint8), image])  # type: ignore[list-item]


def test_input__is_not_changed(predictor: Predictor, rng: np.random.Generator) -> None:
    array = rng.integers(0, 256, (20, 10, 3), dtype=np.uint8)
    image = draw(rng)
    before = array.copy(), image.tobytes()
    predictor([array, image])
    np.testing.assert_array_equal(array, before[0])
    assert image.tobytes() == before[1]


def test_truncated_file__is_named_or_skipped(predictor: Predictor, tmp_path: Path) -> None:
    paths = fill(tmp_path, [f"{i}.jpg" for i in range(6)])
    truncate(paths[2])
    (tmp_path / "5.jpg").write_bytes(b"")
    names = [str(p) for p in paths]
    with pytest.raises(UnreadableImageError, match=r"2\.jpg cannot be read .*--skip-bad"):
        predictor.embed_files(names)
    found = predictor.embed_files(names, skip_bad=True)
    assert found.kept.tolist() == [0, 1, 3, 4] and list(found.bad) == [names[2], names[5]]
    assert all(found.bad.values())
    np.testing.assert_allclose(found.features, predictor([names[i] for i in found.kept]), atol=1e-5)


def test_only_unreadable_files__give_an_empty_array(predictor: Predictor, tmp_path: Path) -> None:
    (path := tmp_path / "a.jpg").write_text("no image")
    found = predictor.embed_files([str(path)], skip_bad=True)
    assert found.features.shape == (0, predictor.num_features) and list(found.bad) == [str(path)]


def test_non_finite_feature__names_the_image(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    predictor = Predictor.from_run(folder)
    next(predictor.model.parameters()).data.fill_(float("nan"))
    paths = [str(p) for p in fill(tmp_path / "crops", ["a.png"])]
    with pytest.raises(FloatingPointError, match=r"a\.png is not finite"):
        predictor.embed_files(paths)


def test_fingerprint__depends_only_on_what_determines_features(
    run_folder: Path, tmp_path: Path
) -> None:
    one = Predictor.from_run(run_folder).fingerprint
    moved = shutil.copytree(run_folder, tmp_path / "moved")
    assert Predictor.from_run(moved, batch_size=3, flip=False).fingerprint == one
    config, weights = moved / "config.yaml", moved / "model_final.pth"
    same = ["MODEL.CHANNELS_LAST", "False", "TEST.IMS_PER_BATCH", "9"]
    assert Predictor.from_config(config, weights, same).fingerprint == one
    others = {
        Predictor.from_run(moved, flip=True).fingerprint,
        Predictor.from_config(config, weights, ["INPUT.SIZE_TEST", "[32, 32]"]).fingerprint,
        Predictor.from_run(make_run(tmp_path / "other", seed=1)).fingerprint,
    }
    assert len(others | {one}) == 4


def test_model__has_no_gradients_and_is_in_evaluation_mode(predictor: Predictor) -> None:
    assert not predictor.model.training
    assert not any(p.requires_grad for p in predictor.model.parameters())


def test_missing_pretrained_weights__are_not_needed(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    config = folder / "config.yaml"
    text = config.read_text()
    assert "PRETRAIN: false" in text.replace("False", "false")
    text = text.replace("PRETRAIN: false", "PRETRAIN: true").replace(
        "PRETRAIN: False", "PRETRAIN: True"
    )
    config.write_text(text.replace("PRETRAIN_PATH: ''", "PRETRAIN_PATH: gone.pth"))
    assert Predictor.from_run(folder)([]).shape[0] == 0


def test_folder_without_a_run__is_an_error_that_lists_the_files_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is no folder of a run.*config\.yaml"):
        Predictor.from_run(tmp_path)


def test_run_without_final_model__is_an_error_that_lists_existing_weights(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "model_final.pth").rename(folder / "model_last.pth")
    with pytest.raises(FileNotFoundError, match=r"the run has model_last\.pth: name one"):
        Predictor.from_run(folder)
    assert Predictor.from_run(folder, weights=str(folder / "model_last.pth")).num_features
    (folder / "model_last.pth").unlink()
    with pytest.raises(FileNotFoundError, match="has not saved a model yet"):
        Predictor.from_run(folder)


def test_pickle_with_code__is_refused(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    torch.save({"model": Path("a")}, folder / "model_final.pth")  # loading a class executes code
    with pytest.raises(ValueError, match="more than tensors and plain values"):
        Predictor.from_run(folder)


def test_unavailable_device__is_named(run_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"--device (cuda:99|nowhere) is not available"):
        Predictor.from_run(run_folder, device="nowhere")


def test_embedding__shows_the_remaining_time_on_a_terminal_and_nothing_in_a_file(
    predictor: Predictor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A real terminal: a pseudo-terminal in place of stderr."""
    forward = Predictor._forward

    def slow(self: Predictor, images: torch.Tensor) -> torch.Tensor:
        time.sleep(0.25)
        return forward(self, images)

    monkeypatch.setattr(Predictor, "_forward", slow)
    paths = [str(path) for path in fill(tmp_path, [f"{i}.png" for i in range(12)])]
    predictor.embed_files(paths)
    assert capsys.readouterr().err == "", "a file gets no progress of a library function"
    reading, writing = pty.openpty()
    with os.fdopen(writing, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        predictor.embed_files(paths)
        monkeypatch.undo()
        shown = os.read(reading, 4096).decode()
    os.close(reading)
    assert re.search(r"features: image 4 of 12, \d+ s left", shown)
    assert shown.endswith("\r\033[K"), "the line is cleared"
