"""The memories of two processes equal those of one process with all images."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from pseudopair.memory import RowMemory
from pseudopair.surrogate import SurrogateClasses
from tests.unreid.engine.ranks import run_on_ranks
from unreid.engine.distributed import all_gather

MAPS = torch.rand(8, 5, 4, 2, generator=torch.Generator().manual_seed(0))


def started(batches: list[list[int]]) -> torch.Tensor:
    """Return the memory rows of the surrogate classes after a label step over these images."""
    torch.manual_seed(0)
    classes = SurrogateClasses(5, num_patches=2, num_features=4).eval()
    found = []
    with torch.no_grad():
        for batch in batches:
            indices = torch.tensor(batch)
            found.append((indices, classes(MAPS[indices], indices)))
    classes.fill(8, [extra for part in all_gather(found) for extra in part])
    return classes.memory.rows


def test_surrogate_rows__of_two_processes_that_saw_half_each_are_those_of_one(
    tmp_path: Path,
) -> None:
    halves = [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    found = run_on_ranks(lambda rank: started(halves[rank]), tmp_path)
    expected = started([[0, 1], [2, 3], [4, 5], [6, 7]])
    assert (expected.abs().sum(2) > 0).all()
    for rows in found:
        torch.testing.assert_close(rows, expected, rtol=1e-3, atol=1e-4)


def moved(indices: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Return the memory rows after one update with a batch."""
    memory = RowMemory(2, 3, momentum=0.2, saved=False)
    draw = torch.Generator().manual_seed(1)
    memory.reset(torch.randn(2, 6, 3, generator=draw))
    memory.update(indices, features)
    return memory.rows


def test_memory__is_moved_by_the_batches_of_both_alike(tmp_path: Path) -> None:
    indices = torch.tensor([4, 1, 4, 0])
    features = F.normalize(torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(2)), dim=2)
    found = run_on_ranks(
        lambda rank: moved(indices[2 * rank : 2 * rank + 2], features[2 * rank : 2 * rank + 2]),
        tmp_path,
    )
    for rows in found:
        torch.testing.assert_close(rows, moved(indices, features), rtol=0, atol=0)
