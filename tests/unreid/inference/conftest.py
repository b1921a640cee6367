"""Fixtures: a run and its model, created once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

import unreid  # noqa: F401  (before fastreid: makes it importable)
from tests.unreid.inference.making import make_run
from unreid.inference import Predictor


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run's folder, which tests must not change."""
    return make_run(tmp_path_factory.mktemp("inference") / "run")


@pytest.fixture(scope="session")
def predictor(run_folder: Path) -> Predictor:
    """Return the predictor of the run."""
    return Predictor.from_run(run_folder, batch_size=4)


@pytest.fixture
def forwarded(predictor: Predictor) -> Iterator[list[int]]:
    """Return the list of batch sizes of all forward passes during the test."""
    forward, sizes = Predictor._forward, []

    def counted(self: Predictor, images: object) -> object:
        sizes.append(len(images))  # type: ignore[arg-type]
        return forward(self, images)  # type: ignore[arg-type]

    predictor.num_features  # noqa: B018  (asks for a forward pass once)
    with mock.patch.object(Predictor, "_forward", counted):
        yield sizes
