"""When checkpoints are written, and what a run saves that ends early."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.projects.tiny_run import (
    BASELINE,
    assert_same_labels,
    assert_same_weights,
    final_checkpoint,
    train_tiny,
)
from unreid.engine.checkpoint import AtomicCheckpointer
from unreid.engine.checkpoint_hook import CheckpointHook, check_finite, copy_to_cpu
from unreid.engine.interrupt import Terminated, raise_on_signals
from unreid.engine.step import UnsupervisedStep


class Trainer:
    """The attributes of a trainer that the hook reads."""

    def __init__(self, folder: Path, *, period: int, max_epoch: int = 6) -> None:
        self.model = nn.Linear(2, 2)
        self.start_epoch, self.max_epoch, self.iters_per_epoch = 0, max_epoch, 10
        self.epoch, self.iter = -1, 0
        self.hook = CheckpointHook(AtomicCheckpointer(self.model, str(folder)), period)
        self.hook.trainer = self
        self.hook.before_train()

    def extra_state(self) -> dict[str, Any]:
        return {"labels": torch.full((3,), self.epoch)}

    def run(self, epochs: int) -> None:
        for _ in range(epochs):
            self.epoch += 1
            self.iter += self.iters_per_epoch
            with torch.no_grad():
                self.model.weight.fill_(self.epoch)
            self.hook.after_epoch()


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "model_last.pth", weights_only=True)


def test_newest_epoch__is_saved_by_period_and_when_the_run_ends_early(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path, period=2)
    trainer.run(3)
    assert last(tmp_path)["epoch"] == 1
    trainer.iter += 4  # within epoch 3, which has changed the weights
    with torch.no_grad():
        trainer.model.weight.fill_(99)
    with pytest.raises(Terminated) as error, trainer.hook.save_on_early_exit():
        raise Terminated
    state = last(tmp_path)
    assert state["epoch"] == 2 and state["labels"].tolist() == [2, 2, 2]
    assert state["model"]["weight"].unique().tolist() == [2]
    assert str(error.value) == (
        f"{tmp_path / 'model_last.pth'} holds the state after epoch 2; --resume continues from it"
        " (epoch 3 starts again, 4 iterations are repeated)"
    )


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), Terminated(), FloatingPointError("loss_a not finite in iteration 3")],
)
def test_end_in_the_first_epoch__reports_that_no_epoch_was_saved(
    error: BaseException, tmp_path: Path
) -> None:
    trainer = Trainer(tmp_path, period=2)
    with pytest.raises(type(error)) as raised, trainer.hook.save_on_early_exit():
        raise error
    assert type(raised.value) is type(error)
    assert str(raised.value).endswith("no epoch was saved: --resume starts with the first epoch")
    assert str(raised.value).startswith(str(error))
    assert os.listdir(tmp_path) == []


def test_other_errors__pass_unchanged_and_the_newest_epoch_is_saved(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path, period=5)
    trainer.run(1)
    error = RuntimeError("no cluster in epoch 1")
    with pytest.raises(RuntimeError) as raised, trainer.hook.save_on_early_exit():
        raise error
    assert raised.value is error and last(tmp_path)["epoch"] == 0


def test_signal_after_an_error__does_not_interrupt_saving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another process fails, its connection is lost and then the launcher sends SIGTERM."""
    trainer = Trainer(tmp_path, period=5)
    trainer.run(1)
    write = trainer.hook._write

    def write_after_signal() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        write()

    monkeypatch.setattr(trainer.hook, "_write", write_after_signal)
    with pytest.raises(Terminated), raise_on_signals(), trainer.hook.save_on_early_exit():
        raise RuntimeError("Connection closed by peer")
    assert last(tmp_path)["epoch"] == 0


def test_full_disk__names_the_file_that_failed_and_the_saved_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tmp_path, period=1)
    trainer.run(1)
    before = (tmp_path / "model_last.pth").read_bytes()

    def full(data: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("unreid.engine.checkpoint.torch.save", full)
    with pytest.raises(OSError) as raised, trainer.hook.save_on_early_exit():
        trainer.run(1)
    assert raised.value.errno == errno.ENOSPC
    assert f"could not write {tmp_path / 'model_last.pth'}" in str(raised.value)
    assert "its previous content is unchanged" in str(raised.value)
    assert "holds the state after epoch 0" in str(raised.value)
    assert (tmp_path / "model_last.pth").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_last.pth"]


def test_log_on_a_full_disk__names_its_folder_and_other_errors_are_unchanged(
    tmp_path: Path,
) -> None:
    trainer = Trainer(tmp_path, period=1)
    with (
        pytest.raises(OSError, match=rf"could not write the log of {tmp_path} \(No space left"),
        trainer.hook.save_on_early_exit(),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(FileNotFoundError, match="an image"), trainer.hook.save_on_early_exit():
        raise FileNotFoundError(errno.ENOENT, "an image")


def test_interrupted_last_save__leaves_the_final_checkpoint_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tmp_path, period=1, max_epoch=2)
    trainer.run(1)
    write, calls = AtomicCheckpointer.write, []

    def interrupted(self: AtomicCheckpointer, name: str, data: dict[str, Any]) -> None:
        calls.append(name)
        if len(calls) == 1:
            raise KeyboardInterrupt
        write(self, name, data)

    monkeypatch.setattr(AtomicCheckpointer, "write", interrupted)
    with pytest.raises(KeyboardInterrupt), trainer.hook.save_on_early_exit():
        trainer.run(1)
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_final.pth"]


def test_kill_after_the_final_checkpoint__leaves_no_model_last_after_resume(
    tmp_path: Path,
) -> None:
    (tmp_path / "model_last.pth").write_text("")
    trainer = Trainer(tmp_path, period=1, max_epoch=3)
    assert (tmp_path / "model_last.pth").exists()
    trainer.start_epoch = 3
    trainer.hook.before_train()
    assert os.listdir(tmp_path) == []


def test_copy_to_cpu__shares_no_memory_with_its_argument() -> None:
    content = {"a": [torch.ones(2), 3], "b": (torch.zeros(1), "x"), "c": None}
    copy = copy_to_cpu(content)
    content["a"][0].add_(1)  # type: ignore[index]
    assert copy["a"][0].tolist() == [1, 1] and copy["a"][1] == 3
    assert copy["b"] == (torch.zeros(1), "x") and copy["c"] is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("weight", float("inf")), ("weight", float("nan")), ("running_mean", float("nan"))],
)
def test_non_finite_model__is_not_saved(name: str, value: float, tmp_path: Path) -> None:
    trainer = Trainer(tmp_path, period=1)
    trainer.model.add_module("norm", nn.BatchNorm1d(2))
    trainer.run(1)
    with torch.no_grad():
        getattr(trainer.model.norm, name)[0] = value  # type: ignore[index, union-attr]
    with (
        pytest.raises(
            FloatingPointError,
            match=rf"^norm.{name} is (not finite|NaN) after epoch 1.*"
            r"holds the state after epoch 0",
        ),
        trainer.hook.save_on_early_exit(),
    ):
        trainer.run(1)
    assert last(tmp_path)["epoch"] == 0


def test_infinite_buffer__is_accepted() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("best", torch.tensor(-float("inf")))
    check_finite(model, 0)


def test_interrupted_run__saves_its_newest_epoch_and_resumes_bit_identically(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"SOLVER__CHECKPOINT_PERIOD": 5, "SOLVER__MAX_EPOCH": 3, "DATASETS__TESTS": "()"}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train_tiny(BASELINE, synthetic_root, whole, **settings)
    step, calls = UnsupervisedStep.run_step, []

    def interrupted(self: UnsupervisedStep) -> None:
        calls.append(1)
        if len(calls) == 6:
            raise Terminated
        step(self)

    monkeypatch.setattr(UnsupervisedStep, "run_step", interrupted)
    with pytest.raises(
        Terminated,
        match=r"model_last.pth holds the state after epoch 1; --resume"
        r" continues from it \(epoch 2 starts again,"
        r" 1 iterations are repeated\)",
    ):
        train_tiny(BASELINE, synthetic_root, stopped, **settings)
    assert last(stopped)["epoch"] == 1
    train_tiny(BASELINE, synthetic_root, stopped, resume=True, **settings)
    assert_same_labels(whole, stopped)
    assert_same_weights(whole, stopped)
    assert final_checkpoint(stopped)["epoch"] == 2


def test_run_that_diverges__names_the_loss_and_keeps_the_last_good_epoch(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = UnsupervisedStep.run_step, []

    def diverging(self: UnsupervisedStep) -> None:
        calls.append(1)
        if len(calls) == 4:
            with torch.no_grad():
                self.model.memory.centroids.fill_(float("nan"))
        step(self)

    monkeypatch.setattr(UnsupervisedStep, "run_step", diverging)
    with pytest.raises(
        FloatingPointError,
        match=r"loss_inter not finite in iteration 3 \(.*"
        r"model_last.pth holds the state after epoch 0",
    ):
        train_tiny(
            BASELINE, synthetic_root, tmp_path, DATASETS__TESTS="()", SOLVER__CHECKPOINT_PERIOD=5
        )
    state = last(tmp_path)
    assert state["epoch"] == 0
    assert all(bool(torch.isfinite(v).all()) for v in state["model"].values())
