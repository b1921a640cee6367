"""A whole run: results, resume, invalid data, and training without access to person ids."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import shutil
import types
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.market1501 import Market1501

from tests.projects.tiny_run import (
    BASELINE,
    MARKET,
    assert_same_labels,
    assert_same_weights,
    label_files,
    load_tiny,
    train_tiny,
)
from unreid.config import config_hash
from unreid.engine import run
from unreid.engine.earlier_run import move_earlier_run
from unreid.engine.run import LabelScorer
from unreid.engine.step import UnsupervisedStep
from unreid.engine.trainer import UnsupervisedTrainer
from unreid.modeling.memory_reid import MemoryReID

TRAIN = "Market-1501-v15.09.15/bounding_box_train"
SHORT = {"SOLVER__MAX_EPOCH": 1, "UNSUP__ITERS_PER_EPOCH": 1}


@pytest.fixture(scope="module")
def finished(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "run"
    train_tiny(BASELINE, synthetic_root, output, UNSUP__EVAL_BEFORE=True)
    return output


def read(output: Path) -> dict[str, Any]:
    return json.loads((output / "results.json").read_text())


def test_results__have_scores_before_and_after_in_percent(finished: Path) -> None:
    results = read(finished)
    for key in ("before", "after"):
        scores = results[key]
        assert set(scores) >= {"mAP", "Rank-1", "Rank-5", "mINP"}
        assert all(0 <= value <= 100 for value in scores.values())
        assert max(scores.values()) > 1, "percent, not fractions"
        assert scores["Rank-1"] <= scores["Rank-5"]
    assert set(results["seconds"]) >= {"evaluate", "extract", "label", "train"}
    assert all(s >= 0 for s in results["seconds"].values())
    assert set(results["versions"]) >= {"unreid", "fastreid", "torch", "numpy", "python"}
    assert results["versions"]["fastreid"] == "1.4.0"
    assert re.fullmatch("[0-9a-f]{12}", results["config_hash"])
    assert results["project"] == "CALR"
    assert results["datasets"] == {"train": ["Market1501"], "test": ["Market1501"]}
    assert results["center_cameras"] == {"labels": False, "test": False}
    assert results["labels"]["clusters"] >= 2
    assert {"precision", "recall"} <= {k.removeprefix("pairwise_") for k in results["labels"]}


def test_eval_before__evaluates_the_weights_that_training_starts_from(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with random initial weights, and with a stage of CALR in between."""
    states: list[dict[str, torch.Tensor]] = []

    def keep(model: torch.nn.Module) -> None:
        states.append(
            {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("memory.")}
        )

    test, train = UnsupervisedTrainer.test, UnsupervisedTrainer.train
    monkeypatch.setattr(
        UnsupervisedTrainer,
        "test",
        classmethod(lambda cls, cfg, model: keep(model) or test(cfg, model)),
    )
    monkeypatch.setattr(UnsupervisedTrainer, "train", lambda self: keep(self.model) or train(self))
    train_tiny(MARKET, synthetic_root, tmp_path, UNSUP__EVAL_BEFORE=True, **SHORT)
    before, start = states[0], states[-2]
    assert before.keys() == start.keys()
    assert all(torch.equal(before[k], start[k]) for k in before)


def test_resume_of_a_finished_run__changes_no_score_label_or_weight(
    finished: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    train_tiny(BASELINE, synthetic_root, copy, resume=True, UNSUP__EVAL_BEFORE=True)
    first, second = read(finished), read(copy)
    for key in ("before", "after", "labels", "config_hash"):
        assert first[key] == second[key] is not None
    assert_same_labels(finished, copy)
    assert_same_weights(finished, copy)


def test_kill_before_the_final_evaluation__is_completed_by_resume(
    finished: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    whole = read(finished)
    (copy / "results.json").write_text(json.dumps({**whole, "after": None, "labels": None}))
    train_tiny(BASELINE, synthetic_root, copy, resume=True, UNSUP__EVAL_BEFORE=True)
    assert {k: read(copy)[k] for k in ("before", "after", "labels")} == {
        k: whole[k] for k in ("before", "after", "labels")
    }


def test_new_run_in_a_used_folder__moves_all_files_of_the_earlier_run(
    tmp_path: Path,
) -> None:
    def fill(text: str) -> dict[str, str]:
        for name in (
            "results.json",
            "config.yaml",
            "model_final.pth",
            "last_checkpoint",
            "labels/epoch_000.npz",
            "intra/market1501_0/local_labels.npz",
            "local_labels.npz",
            "log.txt",
            "metrics.json",
            "epochs.jsonl",
            "events.out.tfevents.1",
        ):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text + name)
        return {
            p.relative_to(tmp_path).as_posix(): p.read_text()
            for p in tmp_path.rglob("*")
            if p.is_file() and "previous" not in p.parts
        }

    (tmp_path / "notes.txt").write_text("of the user")
    assert move_earlier_run(str(tmp_path)) is None
    for number, text in (("001", "first "), ("002", "second ")):
        content = fill(text)
        target = move_earlier_run(str(tmp_path))
        assert target == str(tmp_path / "previous" / number)
        notes = content.pop("notes.txt")
        moved = {
            p.relative_to(target).as_posix(): p.read_text()
            for p in Path(target).rglob("*")
            if p.is_file()
        }
        assert moved == content
        assert (tmp_path / "notes.txt").read_text() == notes
        assert sorted(os.listdir(tmp_path)) == ["notes.txt", "previous"]
    assert (tmp_path / "previous/001/log.txt").read_text() == "first log.txt"
    assert move_earlier_run(str(tmp_path / "missing")) is None


def test_start__logs_the_moved_run_and_the_changed_settings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("fastreid").propagate = True
    cfg, _ = load_tiny(BASELINE, tmp_path / "run")
    fresh = Namespace(eval_only=False, resume=False, config_file="")
    run.start(cfg, fresh)
    logging.getLogger("fastreid").propagate = True
    (tmp_path / "run" / "results.json").write_text("{}")
    changed, _ = load_tiny(BASELINE, tmp_path / "run", UNSUP__SEED=5)
    with caplog.at_level(logging.WARNING):
        run.start(changed, Namespace(eval_only=False, resume=True, config_file=""))
        assert "resuming with changed settings: UNSUP.SEED 0 -> 5" in caplog.text
        run.start(changed, fresh)
    assert "it was moved to" in caplog.text and "--resume" in caplog.text
    assert (tmp_path / "run/previous/001/results.json").exists()


def test_evaluation__keeps_the_config_of_the_training_in_its_folder(tmp_path: Path) -> None:
    cfg, _ = load_tiny(BASELINE, tmp_path / "run")
    run.start(cfg, Namespace(eval_only=False, resume=False, config_file=""))
    trained = (tmp_path / "run" / "config.yaml").read_bytes()
    other, _ = load_tiny(BASELINE, tmp_path / "run", UNSUP__SEED=5)
    run.start(other, Namespace(eval_only=True, resume=False, config_file=""))
    assert (tmp_path / "run" / "config.yaml").read_bytes() == trained


def holds_ids(thing: Any, truth: set[bytes], skip: type | None = None) -> list[str]:
    """Return the attribute paths from ``thing`` to arrays that equal one of ``truth``."""
    found, seen, queue = [], set(), [("", thing)]
    while queue:
        path, value = queue.pop()
        ignored = (types.ModuleType, type, str, bytes, int, float, logging.Logger)
        if id(value) in seen or isinstance(value, ignored) or (skip and isinstance(value, skip)):
            continue
        seen.add(id(value))
        if isinstance(value, (np.ndarray, torch.Tensor)):
            if (
                np.asarray(value.detach() if torch.is_tensor(value) else value)
                .astype(np.int64, casting="unsafe")
                .tobytes()
                in truth
            ):
                found.append(path)
        elif isinstance(value, types.FunctionType):
            cells = value.__closure__ or ()
            queue += [(f"{path}.cell", c.cell_contents) for c in cells]
        elif isinstance(value, dict):
            queue += [(f"{path}[{k!r}]", v) for k, v in list(value.items())]
        elif isinstance(value, (list, tuple, set, frozenset)):
            queue += [(f"{path}[{i}]", v) for i, v in enumerate(value)]
        elif hasattr(value, "__dict__"):
            queue += [(f"{path}.{k}", v) for k, v in list(vars(value).items())]
    return found


def test_training_loop__has_no_access_to_person_ids(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No id in a batch, nor in an attribute of the trainer outside of the label scorer."""
    batches: list[dict[str, Any]] = []
    trainers: list[UnsupervisedTrainer] = []
    forward, train = MemoryReID.forward, UnsupervisedTrainer.train

    def record(self: MemoryReID, batch: dict[str, Any]) -> Any:
        if self.training:
            batches.append(batch)
        return forward(self, batch)

    def keep(self: UnsupervisedTrainer) -> Any:
        trainers.append(self)
        return train(self)

    monkeypatch.setattr(UnsupervisedTrainer, "train", keep)
    monkeypatch.setattr(MemoryReID, "forward", record)
    scored: list[LabelScorer] = []
    init = LabelScorer.__init__

    def record_scorer(self: LabelScorer, *args: Any) -> None:
        init(self, *args)
        scored.append(self)

    monkeypatch.setattr(LabelScorer, "__init__", record_scorer)
    # Centred features have clusters on any processor and with any number of threads.
    train_tiny(MARKET, synthetic_root, tmp_path, UNSUP__CENTER_CAMERAS=True)
    assert len(batches) == 3 + 4 and len(trainers) == 4
    published = label_files(tmp_path)
    for data in batches:
        assert set(data) == {"images", "img_paths", "targets", "camids", "indices"}
    for epoch, two in enumerate((batches[3:5], batches[5:7])):
        labels = published[f"labels/epoch_{epoch:03d}.npz"]["labels"]
        for data in two:
            assert data["targets"].tolist() == labels[data["indices"].numpy()].tolist()
    truth = {s._pids.tobytes() for s in scored}
    assert all(len(t) > 8 for t in truth)
    for trainer in trainers:
        assert holds_ids(trainer, truth), "the search must find the ids of the scorer"
        assert holds_ids(trainer, truth, skip=LabelScorer) == []


def test_without_label_quality__no_label_scorer_is_created(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(LabelScorer, "__init__", lambda *a: made.append(a))
    train_tiny(BASELINE, synthetic_root, tmp_path, UNSUP__LOG_LABEL_QUALITY=False, **SHORT)
    assert made == []
    gc.collect()


def test_shuffled_ids__change_neither_labels_nor_weights(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_tiny(MARKET, synthetic_root, tmp_path / "true", **SHORT)
    process = Market1501.process_dir

    def shuffled(self: Any, folder: str, is_train: bool = True) -> list[tuple]:
        items = process(self, folder, is_train)
        if not is_train:
            return items
        pids = np.random.default_rng(0).permutation([pid for _, pid, _ in items]).tolist()
        return [(path, pid, cam) for (path, _, cam), pid in zip(items, pids)]

    monkeypatch.setattr(Market1501, "process_dir", shuffled)
    train_tiny(MARKET, synthetic_root, tmp_path / "shuffled", **SHORT)
    assert_same_labels(tmp_path / "true", tmp_path / "shuffled")
    assert_same_weights(tmp_path / "true", tmp_path / "shuffled")
    true, false = read(tmp_path / "true"), read(tmp_path / "shuffled")
    assert true["after"] == false["after"]
    assert true["labels"] != false["labels"], "only the logged label quality differs"


@pytest.fixture
def copy(synthetic_root: Path, tmp_path: Path) -> Path:
    target = tmp_path / "copy"
    shutil.copytree(synthetic_root, target)
    return target


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        UnsupervisedStep, "run_step", lambda self: pytest.fail("training must not start")
    )


def keep_cameras(root: Path, kept: str) -> None:
    for file in (root / TRAIN).iterdir():
        if f"_c{kept}s" not in file.name:
            file.unlink()


def test_one_camera__is_refused_before_training(
    copy: Path, tmp_path: Path, no_training: None
) -> None:
    keep_cameras(copy, "1")
    with pytest.raises(
        ValueError,
        match=r"CALR needs images of at least two cameras, got 1"
        r" \(market1501_0\).*baseline.yml",
    ):
        train_tiny(MARKET, copy, tmp_path / "run")


def test_one_camera__is_accepted_by_the_baseline(copy: Path, tmp_path: Path) -> None:
    keep_cameras(copy, "1")
    assert train_tiny(BASELINE, copy, tmp_path / "run", **SHORT)["after"]


def test_camera_with_too_few_images__is_named_before_training(
    copy: Path, tmp_path: Path, no_training: None
) -> None:
    third = [f for f in sorted((copy / TRAIN).iterdir()) if "_c3s" in f.name]
    for file in third[2:]:
        file.unlink()
    with pytest.raises(
        ValueError,
        match=r"needs at least 4 images per camera, but camera market1501_2"
        r" has 2",
    ):
        train_tiny(MARKET, copy, tmp_path / "run")


def test_missing_test_set__is_named_before_training(
    synthetic_root: Path, tmp_path: Path, no_training: None
) -> None:
    with pytest.raises(FileNotFoundError, match=r"DATASETS.TESTS DukeMTMC"):
        train_tiny(BASELINE, synthetic_root, tmp_path, DATASETS__TESTS="('DukeMTMC',)")


def test_labeler__must_be_set_for_training(synthetic_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"UNSUP.LABELER must name a labeler"):
        train_tiny(BASELINE, synthetic_root, tmp_path, UNSUP__LABELER="''")


DBSCAN = {"UNSUP__CLUSTER__NAME": "dbscan"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {**DBSCAN, "UNSUP__CLUSTER__DBSCAN__EPS": 1e-6},
            r"no cluster in epoch 0: 72 of 72 images are noise \(100.0 %\), by UNSUP.CLUSTER.NAME"
            r" dbscan \(UNSUP.CLUSTER.DBSCAN.EPS 1e-06, UNSUP.CLUSTER.DBSCAN.MIN_SAMPLES 4, ",
        ),
        (
            {
                **DBSCAN,
                "UNSUP__CLUSTER__DBSCAN__EPS": 1.0,
                "UNSUP__CLUSTER__DBSCAN__MIN_SAMPLES": 1,
            },
            r"one cluster only in epoch 0: 0 of 72 images are noise \(0.0 %\)",
        ),
    ],
    ids=["all noise", "one cluster"],
)
def test_fewer_than_two_clusters__stop_the_run_with_a_suggestion(
    settings: dict[str, Any], words: str, synthetic_root: Path, tmp_path: Path, no_training: None
) -> None:
    with pytest.raises(RuntimeError, match=words) as error:
        train_tiny(BASELINE, synthetic_root, tmp_path, **settings)
    assert "Loosen the clustering" in str(error.value)


@pytest.fixture
def second_set(synthetic_root: Path) -> Iterator[str]:
    name = "SecondForTests"

    class Second(Market1501):
        dataset_name = "second"

    # The same images; only their cameras count as others.
    DATASET_REGISTRY._do_register(name, lambda root: Second(root=str(synthetic_root)))
    yield name
    del DATASET_REGISTRY._obj_map[name]


def test_several_datasets__train_together_and_are_evaluated_by_name(
    second_set: str, copy: Path, tmp_path: Path
) -> None:
    names = f"('Market1501', '{second_set}')"
    results = train_tiny(
        MARKET,
        copy,
        tmp_path / "run",
        DATASETS__NAMES=names,
        DATASETS__TESTS=names,
        UNSUP__EVAL_BEFORE=True,
        **SHORT,
    )
    for key in ("before", "after"):
        assert set(results[key]) == {"Market1501", second_set}
        assert results[key]["Market1501"] == results[key][second_set]
    camids = label_files(tmp_path / "run")["labels/epoch_000.npz"]["camids"]
    assert len(camids) == 144 and np.unique(camids).tolist() == [0, 1, 2, 3, 4, 5]
    assert len(list((tmp_path / "run/intra").iterdir())) == 6
    assert read(tmp_path / "run")["datasets"]["train"] == ["Market1501", second_set]


@pytest.mark.parametrize(
    "settings",
    [{"SOLVER__AMP__ENABLED": True}, {"INPUT__AFFINE__ENABLED": True}],
    ids=["mixed precision", "affine"],
)
def test_amp_and_affine__train_on_a_cpu(
    settings: dict[str, Any], synthetic_root: Path, tmp_path: Path
) -> None:
    """Mixed precision of fast-reid needs CUDA; its affine transform needs an old torchvision."""
    train_tiny(BASELINE, synthetic_root, tmp_path, **settings, **SHORT)
    state = torch.load(tmp_path / "model_final.pth", weights_only=True)
    model = {k: v for k, v in state["model"].items() if v.is_floating_point()}
    assert all(v.dtype == torch.float32 and torch.isfinite(v).all() for v in model.values())


def test_divergence__raises_floating_point_error(synthetic_root: Path, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError):
        train_tiny(BASELINE, synthetic_root, tmp_path, SOLVER__BASE_LR=1e30)


def test_workers__end_with_the_run(synthetic_root: Path, tmp_path: Path) -> None:
    import multiprocessing

    before = set(multiprocessing.active_children())
    train_tiny(BASELINE, synthetic_root, tmp_path, DATALOADER__NUM_WORKERS=1, **SHORT)
    gc.collect()
    assert set(multiprocessing.active_children()) <= before


def test_config_hash__is_that_of_the_config_with_dataset_size(finished: Path) -> None:
    cfg, _ = load_tiny(BASELINE, finished, UNSUP__EVAL_BEFORE=True)
    assert read(finished)["config_hash"] == config_hash(
        run.with_dataset_size(cfg, num_cameras=3, num_images=72)
    )
