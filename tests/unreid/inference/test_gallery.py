"""Gallery index: only new content is embedded, and another model is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from tests.unreid.inference.making import draw, fill, make_run, truncate
from unreid.data.folder import read_folder
from unreid.data.images import UnreadableImageError
from unreid.inference import Predictor
from unreid.inference.gallery import Changes, Gallery, summary

NAMES = ["a.jpg", "b/c.png", "b/д 1.jpg"]


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    fill(tmp_path / "crops", NAMES)
    return tmp_path / "crops"


def embed(
    crops: Path, predictor: Predictor, gallery: Gallery | None = None, **options: bool
) -> tuple[Gallery, Changes]:
    gallery = gallery or Gallery.empty(str(crops), predictor)
    return gallery.update(read_folder(crops), str(crops), predictor, **options)


def through_disk(gallery: Gallery, tmp_path: Path) -> Gallery:
    gallery.save(str(tmp_path / "kept.index"))
    return Gallery.load(str(tmp_path / "kept.index"))


def assert_fresh(gallery: Gallery, crops: Path, predictor: Predictor) -> None:
    """Check that the gallery equals one that is embedded from scratch."""
    items = read_folder(crops)
    assert [os.path.abspath(item.path) for item in items] == gallery.paths
    np.testing.assert_allclose(gallery.features, predictor([i.path for i in items]), atol=1e-5)


def test_unchanged_gallery__needs_no_forward_pass(
    crops: Path, predictor: Predictor, tmp_path: Path, forwarded: list[int]
) -> None:
    first, changes = embed(crops, predictor)
    assert sum(forwarded) == 3 and changes == Changes(added=3, embedded=3)
    kept = through_disk(first, tmp_path)
    assert kept.entries == first.entries and kept.model == predictor.title
    np.testing.assert_array_equal(kept.features, first.features)
    forwarded.clear()
    again, changes = embed(crops, predictor, kept)
    assert forwarded == [] and changes == Changes(kept=3)
    assert summary(changes) == "no change; 0 embedded"
    assert again.entries == first.entries


def test_added_images__are_the_only_ones_embedded(
    crops: Path, predictor: Predictor, tmp_path: Path, forwarded: list[int]
) -> None:
    kept = through_disk(embed(crops, predictor)[0], tmp_path)
    fill(crops, ["0 first.jpg", "z.png"], seed=9)
    forwarded.clear()
    gallery, changes = embed(crops, predictor, kept)
    assert sum(forwarded) == 2 and changes == Changes(added=2, kept=3, embedded=2)
    assert summary(changes) == "2 added; 2 embedded"
    assert_fresh(gallery, crops, predictor)


def test_changed_file__is_embedded_again(
    crops: Path, predictor: Predictor, tmp_path: Path, forwarded: list[int]
) -> None:
    kept = through_disk(embed(crops, predictor)[0], tmp_path)
    draw(np.random.default_rng(77)).save(crops / "b/c.png")
    forwarded.clear()
    gallery, changes = embed(crops, predictor, kept)
    assert sum(forwarded) == 1 and changes == Changes(changed=1, kept=2, embedded=1)
    assert_fresh(gallery, crops, predictor)


def test_touched_renamed_and_copied_files__are_recognised_by_content(
    crops: Path, predictor: Predictor, tmp_path: Path, forwarded: list[int]
) -> None:
    kept = through_disk(embed(crops, predictor)[0], tmp_path)
    os.utime(crops / "a.jpg", ns=(1, 1))
    (crops / "b/c.png").rename(crops / "b/renamed.png")
    shutil.copy(crops / "b/д 1.jpg", crops / "copy.jpg")
    forwarded.clear()
    gallery, changes = embed(crops, predictor, kept)
    assert forwarded == []
    assert changes == Changes(added=2, removed=1, kept=2)
    assert_fresh(gallery, crops, predictor)


def test_removed_files__are_dropped(
    crops: Path, predictor: Predictor, forwarded: list[int]
) -> None:
    kept, _ = embed(crops, predictor)
    (crops / "a.jpg").unlink()
    gallery, changes = embed(crops, predictor, kept)
    assert sum(forwarded) == 3 and changes == Changes(removed=1, kept=2)
    assert_fresh(gallery, crops, predictor)


def test_moved_gallery__keeps_its_features(
    crops: Path, predictor: Predictor, tmp_path: Path, forwarded: list[int]
) -> None:
    kept, _ = embed(crops, predictor)
    moved = shutil.move(crops, tmp_path / "elsewhere")
    forwarded.clear()
    gallery, changes = embed(Path(moved), predictor, kept)
    assert forwarded == [] and changes == Changes(kept=3)
    assert gallery.root == str(moved)


def test_camera_and_id__are_updated(crops: Path, predictor: Predictor) -> None:
    kept, _ = embed(crops, predictor)
    assert [entry.camera for entry in kept.entries] == ["0"] * 3
    items = read_folder(crops, pattern=r"(?P<camera>[a-z])(/(?P<id>.))?")
    gallery, changes = kept.update(items, str(crops), predictor)
    assert changes == Changes(kept=3)
    assert [(e.camera, e.pid) for e in gallery.entries] == [("a", None), ("b", "c"), ("b", "д")]


def test_unreadable_images__are_named_or_skipped(crops: Path, predictor: Predictor) -> None:
    truncate(crops / "a.jpg")
    shutil.copy(crops / "a.jpg", crops / "twin.jpg")
    (crops / "dead.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(UnreadableImageError, match=r"dead\.jpg cannot be read \(No such file"):
        embed(crops, predictor)
    gallery, changes = embed(crops, predictor, skip_bad=True)
    assert sorted(os.path.basename(p) for p in changes.bad) == ["a.jpg", "dead.jpg", "twin.jpg"]
    assert all(changes.bad.values()) and changes.added == len(gallery) == 2
    assert summary(changes) == "2 added, 3 unreadable, left out; 2 embedded"
    (crops / "dead.jpg").unlink()
    with pytest.raises(UnreadableImageError, match=r"a\.jpg cannot be read"):
        embed(crops, predictor)


def test_all_images_removed__gives_an_empty_gallery_that_can_be_saved(
    crops: Path, predictor: Predictor, tmp_path: Path
) -> None:
    kept, _ = embed(crops, predictor)
    gallery, changes = kept.update((), str(crops), predictor)
    assert changes == Changes(removed=3)
    assert len(through_disk(gallery, tmp_path)) == 0


def test_another_model__is_refused_and_both_are_named(
    crops: Path, predictor: Predictor, tmp_path: Path
) -> None:
    kept, _ = embed(crops, predictor)
    other = Predictor.from_run(make_run(tmp_path / "other", seed=5))
    with pytest.raises(ValueError, match="cannot be compared") as caught:
        kept.update(read_folder(crops), str(crops), other)
    text = str(caught.value)
    for one in (predictor, other):
        assert one.title in text and one.fingerprint in text
    assert predictor.title.startswith("/") and predictor.title.endswith("model_final.pth at 64x32")
    flipped = Predictor(predictor.cfg, predictor.model, name=predictor.name, flip=True)
    with pytest.raises(ValueError, match="with flip"):
        kept.check_model(flipped, "index x")


def test_index__can_be_read_by_faiss(crops: Path, predictor: Predictor, tmp_path: Path) -> None:
    kept, _ = embed(crops, predictor)
    through_disk(kept, tmp_path)
    with np.load(tmp_path / "kept.index", allow_pickle=False) as file:
        index = faiss.deserialize_index(file["faiss"])
    similarities, rows = index.search(kept.features, 1)
    assert rows[:, 0].tolist() == [0, 1, 2]
    np.testing.assert_allclose(similarities, 1, atol=1e-5)


@pytest.mark.parametrize("how", ["cut", "text", "other npz", "newer"])
def test_damaged_index__is_named(
    how: str, crops: Path, predictor: Predictor, tmp_path: Path
) -> None:
    path = tmp_path / "kept.index"
    embed(crops, predictor)[0].save(str(path))
    if how == "cut":
        truncate(path)
    elif how == "text":
        path.write_text("features")
    elif how == "other npz":
        with open(path, "wb") as file:
            np.savez(file, a=np.zeros(3))
    else:
        with np.load(path) as file:
            arrays = dict(file)
        text = arrays["table"].tobytes().replace(b'"format": 1', b'"format": 2')
        with open(path, "wb") as target:
            np.savez(target, faiss=arrays["faiss"], table=np.frombuffer(text, np.uint8))
    with pytest.raises(
        ValueError, match=r"kept\.index is damaged, or not an index of unreid search"
    ):
        Gallery.load(str(path))


def _changed(path: Path, change: Callable[[dict[str, Any], bytearray], None]) -> None:
    """Change the table and the faiss array of the index at ``path``."""
    with np.load(path) as file:
        table, raw = json.loads(file["table"].tobytes()), bytearray(file["faiss"].tobytes())
    change(table, raw)
    with open(path, "wb") as target:
        np.savez(
            target,
            table=np.frombuffer(json.dumps(table).encode(), np.uint8),
            faiss=np.frombuffer(bytes(raw), np.uint8),
        )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t, r: t["entries"][0].update(path="../../etc/x.jpg"), "leaves the gallery"),
        (lambda t, r: t["entries"][0].update(path="/etc/x.jpg"), "leaves the gallery"),
        (lambda t, r: t["entries"][0].update(path=7), "an entry has unexpected types"),
        (lambda t, r: t["entries"].pop(), "3 features of 2 images"),
        (lambda t, r: t.update(root=["a"]), "root, fingerprint and model must be strings"),
        (
            lambda t, r: r.__setitem__(slice(8, 16), (2**40).to_bytes(8, "little")),
            "1099511627776 x",
        ),
        (lambda t, r: r.__setitem__(slice(37, 45), (2**40).to_bytes(8, "little")), "features in"),
        (lambda t, r: r.__setitem__(slice(0, 4), b"IwPQ"), "not an IndexFlatIP"),
        (lambda t, r: r.__setitem__(slice(45, 49), b"\x00\x00\xc0\x7f"), "finite"),
        (lambda t, r: r.clear(), "not a faiss index"),
    ],
)
def test_index_with_false_sizes__is_refused_before_faiss_allocates_memory(
    change: Any, why: str, crops: Path, predictor: Predictor, tmp_path: Path
) -> None:
    path = tmp_path / "kept.index"
    embed(crops, predictor)[0].save(str(path))
    _changed(path, change)
    with pytest.raises(ValueError, match=rf"kept\.index is damaged, .*{why}"):
        Gallery.load(str(path))


def test_pipe_in_a_gallery__is_named_and_does_not_block(crops: Path, predictor: Predictor) -> None:
    os.mkfifo(crops / "pipe.jpg")
    with pytest.raises(
        UnreadableImageError, match=r"pipe\.jpg cannot be read \(not a regular file\)"
    ):
        embed(crops, predictor)


def test_missing_index__is_an_error_that_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file; give a gallery"):
        Gallery.load(str(tmp_path / "none.index"))


def test_interrupted_save__keeps_the_old_index(
    crops: Path, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, _ = embed(crops, predictor)
    path = tmp_path / "kept.index"
    gallery.save(str(path))
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="previous content is unchanged"):
        Gallery.empty(str(crops), predictor).save(str(path))
    assert path.read_bytes() == before and sorted(os.listdir(tmp_path)) == ["crops", "kept.index"]
