"""Collective operations and replicas of several processes. Failures: ``test_launch.py``."""

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
from unreid.engine import distributed, launch, replicas
from unreid.engine.extract import indices_per_rank
from unreid.graph.jaccard import jaccard_distance
from unreid.graph.knn import knn
from unreid.labels.neighbours import Search
from unreid.structures import FeatureBank


def bank_of(num: int) -> FeatureBank:
    rows = np.random.default_rng(3).standard_normal((num, 12)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return FeatureBank(rows, np.zeros(num, np.int64))


def test_single_process__needs_no_process_group_and_keeps_the_random_state() -> None:
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.run_on_rank_0(lambda: 7) == 7
    assert distributed.all_gather("x") == ["x"] == distributed.gather_to_rank_0("x")
    model = nn.BatchNorm1d(2)
    assert replicas.wrap_ddp(model) is model
    assert replicas.synchronize_replicas(model) == []
    before = torch.get_rng_state()
    replicas.seed_replicated(0, 0)
    replicas.seed_per_rank(0, 0)
    assert torch.equal(torch.get_rng_state(), before), "a single process is not seeded again"


def test_collectives__give_all_ranks_the_result_of_rank_0_and_all_rows(tmp_path: Path) -> None:
    def work(rank: int) -> Any:
        from_rank_0 = distributed.run_on_rank_0(lambda: np.arange(3) + (0 if rank == 0 else 9))
        rows = indices_per_rank(11, 2, 2)
        mine = torch.arange(11)[torch.from_numpy(rows[rank])].float()[:, None]
        whole = distributed.all_gather_rows(mine, rows)
        return (
            from_rank_0.tolist(),
            distributed.all_gather(rank),
            distributed.gather_to_rank_0(rank),
            whole[:, 0].tolist(),
        )

    first, second = run_on_ranks(work, tmp_path)
    assert first == ([0, 1, 2], [0, 1], [0, 1], list(map(float, range(11))))
    assert second == (*first[:2], [], *first[3:])


@pytest.mark.parametrize("num", [2, 40])
def test_neighbours_and_distances__of_three_processes_equal_those_of_one(
    num: int, tmp_path: Path
) -> None:
    bank = bank_of(num)

    def work(rank: int) -> Any:
        def label() -> Any:
            neighbours = Search()(bank.features)
            near = neighbours.knn(6)
            far = neighbours.jaccard(6, 2, max_distance=0.9)
            return near, (far.indptr, far.indices, far.data)

        return distributed.run_on_rank_0(label)

    near = knn(bank.features, 6)
    far = jaccard_distance(bank.features, 6, 2, neighbours=near, max_distance=0.9)
    for found, distances in run_on_ranks(work, tmp_path, size=3):
        for ours, theirs in zip((*found, *distances), (*near, far.indptr, far.indices, far.data)):
            np.testing.assert_array_equal(ours, theirs)


def test_replicas__average_norm_statistics_name_differences_and_seed_per_rank(
    tmp_path: Path,
) -> None:
    def work(rank: int) -> Any:
        torch.manual_seed(5)
        model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        assert replicas.synchronize_replicas(model) == []
        model.train()(torch.full((4, 3), float(rank)) + torch.arange(4)[:, None])
        own = model[1].running_mean.clone()
        replicas.average_norm_statistics(model)
        averaged = model[1].running_mean.clone()
        with torch.no_grad():
            model[0].bias += rank
        names = replicas.synchronize_replicas(model)
        replicas.seed_replicated(1, 2)
        replicated = torch.rand(1).item()
        replicas.seed_per_rank(1, 2)
        return (
            own.tolist(),
            averaged.tolist(),
            names,
            model[0].bias.tolist(),
            replicated,
            torch.rand(1).item(),
        )

    first, second = run_on_ranks(work, tmp_path)
    np.testing.assert_allclose(first[1], np.mean([first[0], second[0]], axis=0), rtol=1e-6)
    assert first[0] != second[0] and first[1] == second[1]
    assert first[2] == second[2] == ["0.bias"] and first[3] == second[3]
    assert first[4] == second[4] and first[5] != second[5]


def test_rank_0__uses_the_threads_of_the_waiting_processes_of_its_machine(
    tmp_path: Path,
) -> None:
    def work(rank: int) -> list[int]:
        torch.set_num_threads(2)
        distributed._group.local_size = 3  # type: ignore[union-attr]
        counts = [distributed.run_on_rank_0(torch.get_num_threads), torch.get_num_threads()]
        if rank == 0:
            with pytest.raises(RuntimeError, match="no cluster"):
                distributed.run_on_rank_0(no_cluster)
            counts.append(torch.get_num_threads())
            distributed.run_on_rank_0(int)  # the other rank still waits in the call that failed
        else:
            distributed.run_on_rank_0(int)
        return counts

    assert run_on_ranks(work, tmp_path) == [[6, 2, 2], [6, 2]]


def no_cluster() -> None:
    raise RuntimeError("no cluster")


def test_run_on_rank_0__may_be_nested(tmp_path: Path) -> None:
    def work(rank: int) -> int:
        return distributed.run_on_rank_0(lambda: 1 + distributed.run_on_rank_0(lambda: 1))

    assert run_on_ranks(work, tmp_path) == [2, 2]


def test_lost_connection__is_detected_and_raised_without_a_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "DETECTION_SECONDS", 0.5)

    def work(rank: int) -> None:
        if rank == 1:
            os._exit(7)
        try:
            distributed.all_gather(rank)
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
def test_global_batch__must_give_whole_clusters_to_each_process(
    batch: int, instances: int, accumulate: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg, _ = load_tiny(BASELINE, SOLVER__ACCUMULATE=accumulate)
    names = ("CALR.INTRA.IMS_PER_BATCH", "CALR.INTRA.NUM_INSTANCE")
    replicas.check_global_batch(cfg, batch, instances, *names)
    monkeypatch.setattr(distributed, "_group", distributed._ProcessGroup(0, 2, 1, None))
    if fits:
        replicas.check_global_batch(cfg, batch, instances, *names)
        return
    with pytest.raises(
        ValueError,
        match=r"CALR.INTRA.IMS_PER_BATCH is the global batch size:"
        rf" .* with 2 processes.* got {batch}",
    ):
        replicas.check_global_batch(cfg, batch, instances, *names)


@pytest.mark.parametrize(("num", "batch", "ranks"), [(10, 3, 2), (3, 4, 2), (64, 8, 3)])
def test_indices_per_rank__are_whole_batches_in_turn(num: int, batch: int, ranks: int) -> None:
    rows = indices_per_rank(num, batch, ranks)
    assert sorted(np.concatenate(rows).tolist()) == list(range(num))
    for rank, own in enumerate(rows):
        assert {i // batch % ranks for i in own.tolist()} <= {rank}


def test_gpus__must_suffice_and_may_not_be_selected_by_number() -> None:
    with pytest.raises(
        ValueError,
        match=r"MODEL.DEVICE must be 'cuda' with several processes.*"
        r"got 'cuda:1'",
    ):
        distributed._select_gpu("cuda:1", 0, 2)
    with pytest.raises(ValueError, match=r"99 processes need 99 GPUs on this machine, got"):
        distributed._select_gpu("cuda", 0, 99)
