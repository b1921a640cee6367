"""Checkpoints: atomic writes, safe loading, and errors for other models."""

from __future__ import annotations

import dataclasses
import errno
import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.projects.tiny_run import BASELINE, Interrupted, final_checkpoint, load_tiny, train_tiny
from unreid.engine import checkpoint as module
from unreid.engine.checkpoint import AtomicCheckpointer, rng_state, set_rng_state
from unreid.engine.run import evaluate_only
from unreid.engine.trainer import UnsupervisedTrainer


class Model(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))
        self.heads = nn.Linear(width, 2)


def saved(folder: Path, model: nn.Module, name: str = "model_last") -> Path:
    AtomicCheckpointer(model, str(folder)).save(name, epoch=0)
    return folder / f"{name}.pth"


def test_round_trip__restores_model_and_optimiser(tmp_path: Path) -> None:
    model = Model()
    optimizer = torch.optim.Adam(model.parameters())
    model.heads(model.backbone(torch.randn(4, 2))).sum().backward()
    optimizer.step()
    AtomicCheckpointer(model, str(tmp_path), optimizer=optimizer).save("model_last", epoch=4)
    other = Model()
    again = torch.optim.Adam(other.parameters())
    state = AtomicCheckpointer(other, str(tmp_path), optimizer=again).load(
        str(tmp_path / "model_last.pth")
    )
    assert state == {"epoch": 4}
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values())
    )
    assert len(again.state) == len(optimizer.state) > 0
    assert (tmp_path / "last_checkpoint").read_text() == "model_last.pth"


@pytest.mark.parametrize(
    "failure",
    [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()],
    ids=["full disk", "crash"],
)
def test_failure_while_saving__keeps_the_earlier_checkpoint(
    failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model()
    path = saved(tmp_path, model)
    before = path.read_bytes()
    with torch.no_grad():
        model.heads.weight.add_(1)

    def half(data: Any, file: Any) -> None:
        file.write(b"half a checkpoint")
        raise failure

    monkeypatch.setattr(module.torch, "save", half)
    with pytest.raises(type(failure)) as error:
        saved(tmp_path, model)
    if isinstance(failure, OSError):
        assert f"could not write {path}" in str(error.value)
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_last.pth"]


def test_full_disk__during_torch_save_raises_oserror_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer of torch raises a RuntimeError when the file object fails."""
    import builtins

    opened = builtins.open

    class Full:
        def __init__(self, file: Any) -> None:
            self._file = file

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: object) -> None:
            self._file.close()

        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def flush(self) -> None:
            pass

        def fileno(self) -> int:
            return self._file.fileno()

    def open_full(path: Any, *args: Any, **kwargs: Any) -> Any:
        file = opened(path, *args, **kwargs)
        return Full(file) if str(path).endswith(".tmp") else file

    monkeypatch.setattr(builtins, "open", open_full)
    with pytest.raises(OSError, match=r"could not write .*model_last.pth"):
        saved(tmp_path, Model())


class Malicious:
    def __reduce__(self) -> Any:
        return (os.system, ("touch pwned",))


def test_malicious_pickle__is_refused_and_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Malicious()}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Malicious()))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(
            ValueError,
            match=rf"checkpoint .*{name} is refused: it holds more"
            r" than tensors and plain values, and asks to run"
            r" posix.system",
        ):
            AtomicCheckpointer(Model()).load(str(tmp_path / name))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [b"", b"PK half a zip", b"text"])
def test_damaged_file__is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint .*bad.pth cannot be loaded"):
        AtomicCheckpointer(Model()).load(str(path))


def test_truncated_checkpoint__is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, Model())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"checkpoint .*model_last.pth cannot be loaded"):
        AtomicCheckpointer(Model()).load(str(path))


def test_missing_file__is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"checkpoint nowhere.pth: no such file"):
        AtomicCheckpointer(Model()).load("nowhere.pth")


def test_missing_last_checkpoint__is_named(tmp_path: Path) -> None:
    saved(tmp_path, Model()).unlink()
    with pytest.raises(FileNotFoundError, match=r"checkpoint .*model_last.pth: no such file"):
        AtomicCheckpointer(Model(), str(tmp_path)).resume_or_load("", resume=True)


def test_another_width__is_reported_as_another_model(tmp_path: Path) -> None:
    path = saved(tmp_path, Model(width=5))
    with pytest.raises(
        ValueError,
        match=r"model_last.pth is of another model \(see MODEL.BACKBONE"
        r"[\s\S]*backbone.0.weight",
    ):
        AtomicCheckpointer(Model()).load(str(path))


def test_another_backbone__states_how_many_entries_are_missing(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(
        ValueError,
        match=r"other.pth is of another model: 6 of 7 backbone entries"
        r" are missing, the first is 'backbone.0.weight'; it"
        r" holds 'conv.weight'",
    ):
        AtomicCheckpointer(Model()).load(str(tmp_path / "other.pth"))


def test_checkpoint_that_is_no_dict__is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list.pth must hold a dict, got list"):
        AtomicCheckpointer(Model()).load(str(tmp_path / "list.pth"))


def test_bare_state_dict_of_data_parallel__loads(tmp_path: Path) -> None:
    model, other = Model(), Model()
    state = {f"module.{k}": v for k, v in model.state_dict().items()}
    torch.save({**state, "module.heads.weight_of_classes": torch.zeros(2)}, tmp_path / "dp.pth")
    AtomicCheckpointer(other).load(str(tmp_path / "dp.pth"))
    assert torch.equal(other.backbone[0].weight, model.backbone[0].weight)


def test_rng_state__restores_every_generator() -> None:
    state = rng_state()

    def sample() -> tuple[Any, ...]:
        normal = np.random.standard_normal(3).tolist()  # noqa: NPY002
        return random.random(), random.gauss(0, 1), normal, torch.rand(3).tolist()

    first = sample()
    set_rng_state(state)
    assert sample() == first


def test_rng_state__is_tensors_and_plain_values(tmp_path: Path) -> None:
    torch.save(rng_state(), tmp_path / "rng.pth")
    set_rng_state(torch.load(tmp_path / "rng.pth", weights_only=True))


@pytest.fixture(scope="module")
def finished(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("checkpoint") / "run"
    train_tiny(BASELINE, synthetic_root, output)
    return output


def test_checkpoint_of_a_run__has_everything_that_resume_needs(finished: Path) -> None:
    state = final_checkpoint(finished)  # weights_only
    assert set(state) >= {
        "model",
        "optimizer",
        "lr_sched",
        "labels",
        "rng",
        "epoch",
        "num_images",
        "project",
    }
    assert state["epoch"] == 1 and state["num_images"] == 72 == len(state["labels"])
    assert state["project"] == "CALR"
    centroids = state["model"]["memory.centroids"]
    assert centroids.shape == (int(state["labels"].max()) + 1, 1280)
    assert set(state["rng"]) == {"python", "numpy", "torch", "cuda"}
    steps = {int(s["step"]) for s in state["optimizer"]["state"].values()}
    assert steps == {4}


def test_finished_run__has_one_checkpoint(finished: Path) -> None:
    assert [p.name for p in finished.glob("*.pth")] == ["model_final.pth"]
    assert (finished / "last_checkpoint").read_text() == "model_final.pth"


def test_resume__with_another_network_or_training_list_is_refused(
    finished: Path, synthetic_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"model_final.pth is of another model"):
        train_tiny(BASELINE, synthetic_root, finished, resume=True, MODEL__BACKBONE__DEPTH="0.25x")
    monkeypatch.setattr(
        UnsupervisedTrainer, "train", lambda self: pytest.fail("training must not start")
    )
    real = UnsupervisedTrainer.resume_or_load

    def fewer(self: UnsupervisedTrainer, resume: bool = True) -> None:
        self.label_hook.images = self.label_hook.images.subset(np.arange(60))
        real(self, resume=resume)

    monkeypatch.setattr(UnsupervisedTrainer, "resume_or_load", fewer)
    with pytest.raises(ValueError, match=r"was trained on 72 images, but DATASETS.NAMES has 60"):
        train_tiny(BASELINE, synthetic_root, finished, resume=True)


def test_evaluation__of_a_checkpoint_of_another_model_is_refused(
    finished: Path, synthetic_root: Path
) -> None:
    os.environ["FASTREID_DATASETS"] = str(synthetic_root)
    weights = finished / "model_final.pth"
    wrong, _ = load_tiny(
        BASELINE,
        MODEL__WEIGHTS=weights,
        MODEL__BACKBONE__NAME="build_osnet_backbone",
        MODEL__BACKBONE__DEPTH="x0_25",
        MODEL__BACKBONE__FEAT_DIM=512,
    )
    with pytest.raises(ValueError, match=r"model_final.pth is of another model"):
        evaluate_only(wrong)
    right, _ = load_tiny(BASELINE, MODEL__WEIGHTS=weights)
    assert evaluate_only(right)["mAP"] > 0


def test_interrupted_save__resumes_from_the_previous_checkpoint(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = torch.save, []

    def second_fails(data: Any, file: Any) -> None:
        calls.append(1)
        if len(calls) in (2, 3):  # a run that ends early tries to save once more
            file.write(b"half")
            raise Interrupted
        real(data, file)

    monkeypatch.setattr(module.torch, "save", second_fails)
    with pytest.raises(Interrupted):
        train_tiny(BASELINE, synthetic_root, tmp_path)
    assert torch.load(tmp_path / "model_last.pth", weights_only=True)["epoch"] == 0
    train_tiny(BASELINE, synthetic_root, tmp_path, resume=True)
    assert final_checkpoint(tmp_path)["epoch"] == 1


def test_resume__with_the_same_number_of_other_images_is_refused(
    finished: Path, synthetic_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        UnsupervisedTrainer, "train", lambda self: pytest.fail("training must not start")
    )
    real = UnsupervisedTrainer.resume_or_load

    def renamed(self: UnsupervisedTrainer, resume: bool = True) -> None:
        images = self.label_hook.images
        others = (images.paths[0] + "x", *images.paths[1:])
        self.label_hook.images = dataclasses.replace(images, paths=others)
        real(self, resume=resume)

    monkeypatch.setattr(UnsupervisedTrainer, "resume_or_load", renamed)
    with pytest.raises(ValueError, match=r"was trained on other images"):
        train_tiny(BASELINE, synthetic_root, finished, resume=True)


@pytest.mark.parametrize(
    "tag",
    ["../elsewhere/model_last.pth", "/etc/passwd", "", "log.txt", "a\nb.pth", "x" * 1000 + ".pth"],
)
def test_last_checkpoint__must_name_a_file_in_its_own_folder(tag: str, tmp_path: Path) -> None:
    saved(tmp_path, Model())
    (tmp_path / "last_checkpoint").write_text(tag)
    with pytest.raises(ValueError, match=r"last_checkpoint must name a checkpoint in its own"):
        AtomicCheckpointer(Model(), str(tmp_path)).resume_or_load("", resume=True)


@pytest.mark.parametrize("state", ["Adam", {"state": {}, "param_groups": []}, [1]])
def test_damaged_optimiser_state__is_named(state: Any, tmp_path: Path) -> None:
    model = Model()
    torch.save({"model": model.state_dict(), "optimizer": state}, tmp_path / "a.pth")
    checkpointer = AtomicCheckpointer(model, optimizer=torch.optim.Adam(model.parameters()))
    with pytest.raises(ValueError, match=r"a\.pth cannot be resumed from: its optimizer is"):
        checkpointer.load(str(tmp_path / "a.pth"))


@pytest.mark.parametrize("epoch", ["0", -1, 10**30, 1.5])
def test_epoch__must_be_a_non_negative_integer(epoch: Any, tmp_path: Path) -> None:
    model = Model()
    torch.save({"model": model.state_dict(), "epoch": epoch}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: epoch must be an integer >= 0"):
        AtomicCheckpointer(model).load(str(tmp_path / "a.pth"))


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bool])
def test_weights_of_another_dtype__are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    model = Model()
    state = {key: value.to(dtype) for key, value in model.state_dict().items()}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth is damaged or of another model: .* got torch\."):
        AtomicCheckpointer(model).load(str(tmp_path / "a.pth"))
