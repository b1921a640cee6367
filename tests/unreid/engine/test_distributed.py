"""What several processes share. How they end: ``test_launch.py``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.projects.tiny_run import BASELINE, load_tiny
from tests.unreid.engine.ranks import exit_codes, run_on_ranks
from unreid.engine import agreement, distributed, launch
from unreid.engine.extract import rows_of_ranks
from unreid.graph.jaccard import jaccard_distance
from unreid.graph.knn import knn
from unreid.labels.neighbours import Search
from unreid.structures import FeatureBank


def bank_of(num: int) -> FeatureBank:
    rows = np.random.default_rng(3).standard_normal((num, 12)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return FeatureBank(rows, np.zeros(num, np.int64))


def test_alone__nothing_needs_others() -> None:
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.on_first(lambda: 7) == 7
    assert distributed.gather_all("x") == ["x"] == distributed.gather_first("x")
    model = nn.BatchNorm1d(2)
    assert agreement.parallel(model) is model
    assert agreement.same_everywhere(model) == []
    before = torch.get_rng_state()
    agreement.seed_alike(0, 0)
    agreement.seed_apart(0, 0)
    assert torch.equal(torch.get_rng_state(), before), "runs of one process draw as ever"


def test_result_of_rank_0__is_everybodys(tmp_path: Path) -> None:
    def work(rank: int) -> Any:
        led = distributed.on_first(lambda: np.arange(3) + (0 if rank == 0 else 9))
        rows = rows_of_ranks(11, 2, 2)
        mine = torch.arange(11)[torch.from_numpy(rows[rank])].float()[:, None]
        whole = distributed.join_rows(mine, rows)
        return (
            led.tolist(),
            distributed.gather_all(rank),
            distributed.gather_first(rank),
            whole[:, 0].tolist(),
        )

    first, second = run_on_ranks(work, tmp_path)
    assert first == ([0, 1, 2], [0, 1], [0, 1], list(map(float, range(11))))
    assert second == (*first[:2], [], *first[3:])


@pytest.mark.parametrize("num", [2, 40])
def test_neighbours_and_distances__of_three_processes_are_those_of_one(
    num: int, tmp_path: Path
) -> None:
    bank = bank_of(num)

    def work(rank: int) -> Any:
        def label() -> Any:
            neighbours = Search()(bank.features)
            near = neighbours.knn(6)
            far = neighbours.jaccard(6, 2, max_distance=0.9)
            return near, (far.indptr, far.indices, far.data)

        return distributed.on_first(label)

    near = knn(bank.features, 6)
    far = jaccard_distance(bank.features, 6, 2, neighbours=near, max_distance=0.9)
    for found, distances in run_on_ranks(work, tmp_path, size=3):
        for ours, theirs in zip((*found, *distances), (*near, far.indptr, far.indices, far.data)):
            np.testing.assert_array_equal(ours, theirs)


def test_norms__have_the_mean_statistics_and_what_differs_is_named(tmp_path: Path) -> None:
    def work(rank: int) -> Any:
        torch.manual_seed(5)
        model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        assert agreement.same_everywhere(model) == []
        model.train()(torch.full((4, 3), float(rank)) + torch.arange(4)[:, None])
        own = model[1].running_mean.clone()
        agreement.average_norms(model)
        averaged = model[1].running_mean.clone()
        with torch.no_grad():
            model[0].bias += rank
        names = agreement.same_everywhere(model)
        agreement.seed_alike(1, 2)
        alike = torch.rand(1).item()
        agreement.seed_apart(1, 2)
        return (
            own.tolist(),
            averaged.tolist(),
            names,
            model[0].bias.tolist(),
            alike,
            torch.rand(1).item(),
        )

    first, second = run_on_ranks(work, tmp_path)
    np.testing.assert_allclose(first[1], np.mean([first[0], second[0]], axis=0), rtol=1e-6)
    assert first[0] != second[0] and first[1] == second[1]
    assert first[2] == second[2] == ["0.bias"] and first[3] == second[3]
    assert first[4] == second[4] and first[5] != second[5]


def test_rank_0__takes_the_threads_of_the_processes_that_wait_on_its_machine(
    tmp_path: Path,
) -> None:
    def work(rank: int) -> list[int]:
        torch.set_num_threads(2)
        distributed._team.local_size = 3  # type: ignore[union-attr]
        counts = [distributed.on_first(torch.get_num_threads), torch.get_num_threads()]
        if rank == 0:
            with pytest.raises(RuntimeError, match="no cluster"):
                distributed.on_first(no_cluster)
            counts.append(torch.get_num_threads())
            distributed.on_first(int)  # the others are still in the call that failed
        else:
            distributed.on_first(int)
        return counts

    assert run_on_ranks(work, tmp_path) == [[6, 2, 2], [6, 2]]


def no_cluster() -> None:
    raise RuntimeError("no cluster")


def test_work_of_rank_0__may_ask_for_work_on_rank_0_itself(tmp_path: Path) -> None:
    def work(rank: int) -> int:
        return distributed.on_first(lambda: 1 + distributed.on_first(lambda: 1))

    assert run_on_ranks(work, tmp_path) == [2, 2]


def test_connection_that_is_lost__is_recognised_and_raised_where_no_launcher_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "NOTICED", 0.5)

    def work(rank: int) -> None:
        if rank == 1:
            os._exit(7)
        try:
            distributed.gather_all(rank)
        except RuntimeError as error:
            assert distributed.is_lost_connection(error), error
            raise

    assert exit_codes(work, tmp_path) == [3, 7]
    assert "RuntimeError" in (tmp_path / "0.err").read_text()
    assert "AssertionError" not in (tmp_path / "0.err").read_text()
    assert not distributed.is_lost_connection(RuntimeError("no cluster"))


@pytest.mark.parametrize(
    ("batch", "instances", "accumulate", "fits"),
    [
        (8, 2, 1, True),
        (8, 4, 1, True),
        (8, 8, 1, False),
        (8, 2, 2, True),
        (8, 4, 2, False),
        (2, 1, 1, False),
        (4, 1, 1, True),
    ],
)
def test_batch__must_be_whole_clusters_for_each_process(
    batch: int, instances: int, accumulate: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg, _ = load_tiny(BASELINE, SOLVER__ACCUMULATE=accumulate)
    names = ("CALR.INTRA.IMS_PER_BATCH", "CALR.INTRA.NUM_INSTANCE")
    agreement.check_share(cfg, batch, instances, *names)
    monkeypatch.setattr(distributed, "_team", distributed._Team(0, 2, 1, None))
    if fits:
        agreement.check_share(cfg, batch, instances, *names)
        return
    with pytest.raises(
        ValueError,
        match=r"CALR.INTRA.IMS_PER_BATCH is the batch of all processes"
        rf" together: .* with 2 processes.* got {batch}",
    ):
        agreement.check_share(cfg, batch, instances, *names)


@pytest.mark.parametrize(("num", "batch", "ranks"), [(10, 3, 2), (3, 4, 2), (64, 8, 3)])
def test_images_of_the_ranks__are_whole_batches_in_turn(num: int, batch: int, ranks: int) -> None:
    rows = rows_of_ranks(num, batch, ranks)
    assert sorted(np.concatenate(rows).tolist()) == list(range(num))
    for rank, own in enumerate(rows):
        assert {i // batch % ranks for i in own.tolist()} <= {rank}


def test_gpus__must_suffice_and_are_not_chosen_by_number() -> None:
    with pytest.raises(
        ValueError,
        match=r"MODEL.DEVICE must be 'cuda' with several processes.*"
        r"got 'cuda:1'",
    ):
        distributed._take_gpu("cuda:1", 0, 2)
    with pytest.raises(ValueError, match=r"99 processes need as many GPUs on this machine"):
        distributed._take_gpu("cuda", 0, 99)
