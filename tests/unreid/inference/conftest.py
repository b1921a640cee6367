"""A run and its model, made once."""

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
    """A run's folder, not to be changed."""
    return make_run(tmp_path_factory.mktemp("inference") / "run")


@pytest.fixture(scope="session")
def predictor(run_folder: Path) -> Predictor:
    """Its model."""
    return Predictor.from_run(run_folder, batch_size=4)


@pytest.fixture
def forwarded(predictor: Predictor) -> Iterator[list[int]]:
    """The sizes of the batches that any predictor's network is asked for while the test runs."""
    forward, sizes = Predictor._forward, []

    def counted(self: Predictor, images: object) -> object:
        sizes.append(len(images))  # type: ignore[arg-type]
        return forward(self, images)  # type: ignore[arg-type]

    predictor.num_features  # noqa: B018  (asks for a forward pass once)
    with mock.patch.object(Predictor, "_forward", counted):
        yield sizes
