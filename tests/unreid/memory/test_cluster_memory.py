"""The cluster memory against a loop over samples, and its behaviour in a training step."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from unreid.memory import ClusterMemory


def unit(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=generator), dim=1)


def filled(seed: int = 0, clusters: int = 5, features: int = 8, **options: object) -> ClusterMemory:
    memory = ClusterMemory(features, **options)  # type: ignore[arg-type]
    memory.reset(unit(torch.Generator().manual_seed(seed), clusters, features))
    return memory


def slow_plain(
    centroids: torch.Tensor, features: torch.Tensor, targets: torch.Tensor, momentum: float
) -> torch.Tensor:
    """Return phi_y <- normalise(m phi_y + (1 - m) q), one sample after the other."""
    phi = centroids.clone()
    for q, y in zip(features, targets.tolist()):
        phi[y] = momentum * phi[y] + (1 - momentum) * q
        phi[y] = phi[y] / phi[y].norm()
    return phi


def slow_hard(
    centroids: torch.Tensor, features: torch.Tensor, targets: torch.Tensor, momentum: float
) -> torch.Tensor:
    """Return the update with one sample per cluster, the one least similar to the old phi_y."""
    phi = centroids.clone()
    for y in sorted(set(targets.tolist())):
        own = [q for q, t in zip(features, targets.tolist()) if t == y]
        hardest = min(own, key=lambda q: float(q @ centroids[y]))
        phi[y] = momentum * phi[y] + (1 - momentum) * hardest
        phi[y] = phi[y] / phi[y].norm()
    return phi


SLOW = {"plain": slow_plain, "hard": slow_hard}


@pytest.mark.parametrize("rule", ["plain", "hard"])
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 40),
    clusters=st.integers(1, 12),
    momentum=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
)
def test_update__equals_the_loop_over_samples(
    rule: str, seed: int, batch: int, clusters: int, momentum: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    memory = filled(seed, clusters, momentum=momentum, update=rule)
    features = unit(generator, batch, 8)
    targets = torch.randint(0, clusters, (batch,), generator=generator)
    expected = SLOW[rule](memory.centroids, features, targets, momentum)
    memory.update(features, targets)
    torch.testing.assert_close(memory.centroids, expected, rtol=0, atol=2e-6)


def test_update_plain__depends_on_the_order_of_the_samples() -> None:
    generator = torch.Generator().manual_seed(1)
    features, targets = unit(generator, 2, 8), torch.tensor([3, 3])
    one, other = filled(), filled()
    one.update(features, targets)
    other.update(features.flip(0), targets)
    assert (one.centroids[3] - other.centroids[3]).abs().max() > 0.05


def test_update_hard__takes_the_first_of_several_equally_hard() -> None:
    memory = ClusterMemory(3, momentum=0.5, update="hard")
    memory.reset(torch.tensor([[1.0, 0.0, 0.0]]))
    features = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    memory.update(features, torch.tensor([0, 0]))
    torch.testing.assert_close(memory.centroids, torch.tensor([[0.5**0.5, 0.5**0.5, 0.0]]))


@pytest.mark.parametrize("rule", ["plain", "hard"])
def test_update__leaves_clusters_outside_the_batch_alone(rule: str) -> None:
    memory = filled(update=rule)
    before = memory.centroids.clone()
    memory.update(unit(torch.Generator().manual_seed(1), 4, 8), torch.tensor([1, 1, 3, 1]))
    untouched = [0, 2, 4]
    assert torch.equal(memory.centroids[untouched], before[untouched])
    assert not torch.equal(memory.centroids[1], before[1])


@pytest.mark.parametrize("rule", ["plain", "hard"])
def test_update__keeps_unit_rows_even_when_old_and_new_cancel(rule: str) -> None:
    memory = filled(momentum=0.5, update=rule)
    memory.update(-memory.centroids[2:3], torch.tensor([2]))
    torch.testing.assert_close(memory.centroids.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("rule", ["plain", "hard"])
def test_update__of_an_empty_batch_changes_nothing(rule: str) -> None:
    memory = filled(update=rule)
    before = memory.centroids.clone()
    memory.update(torch.zeros(0, 8), torch.zeros(0, dtype=torch.long))
    assert torch.equal(memory.centroids, before)


def test_update__between_forward_and_backward_does_not_change_the_gradient() -> None:
    generator = torch.Generator().manual_seed(2)
    start, targets = unit(generator, 6, 8), torch.tensor([0, 1, 1, 2, 4, 4])
    gradients = []
    for early in (False, True):
        memory, features = filled(), start.clone().requires_grad_()
        loss = torch.logsumexp(memory(features, targets), 1).sum()
        if early:
            memory.update(features, targets)
        loss.backward()
        gradients.append(features.grad)
    assert torch.equal(gradients[0], gradients[1])


def test_update__leaves_no_graph_behind_and_its_input_as_it_was() -> None:
    memory = filled()
    features = unit(torch.Generator().manual_seed(3), 3, 8).requires_grad_()
    before = features.detach().clone()
    memory.update(features, torch.tensor([0, 0, 1]))
    assert not memory.centroids.requires_grad and memory.centroids.grad_fn is None
    assert torch.equal(features.detach(), before)


def test_forward__is_cosine_over_temperature_and_never_updates() -> None:
    memory = filled(temperature=0.07)
    before = memory.centroids.clone()
    features = unit(torch.Generator().manual_seed(4), 3, 8)
    logits = memory(features, torch.tensor([0, 1, 2]))
    for i in range(3):
        for k in range(5):
            expected = float(features[i].double() @ before[k].double()) / 0.07
            assert float(logits[i, k]) == pytest.approx(expected, abs=1e-4)
    assert torch.equal(memory.centroids, before)


def test_forward__gradient_is_that_of_the_formula_and_reaches_features_alone() -> None:
    memory = filled(temperature=0.5)
    features = unit(torch.Generator().manual_seed(5), 2, 8).requires_grad_()
    memory(features, torch.tensor([0, 1]))[:, 3].sum().backward()
    torch.testing.assert_close(features.grad, (memory.centroids[3] / 0.5).expand(2, 8))
    assert not list(memory.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_forward__of_half_features_is_computed_in_float32_under_autocast(
    dtype: torch.dtype,
) -> None:
    memory = filled()
    features = unit(torch.Generator().manual_seed(6), 4, 8).to(dtype)
    targets = torch.tensor([0, 1, 2, 3])
    exact = features.double() @ memory.centroids.double().t() / 0.05
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = memory(features, targets)
        memory.update(features, targets)
    assert logits.dtype == torch.float32 and memory.centroids.dtype == torch.float32
    torch.testing.assert_close(logits.double(), exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("saved", [1, 5, 9])
def test_state_dict__of_another_number_of_clusters_loads(saved: int) -> None:
    source, into = filled(1, saved), filled(0, 5)
    into.load_state_dict(source.state_dict())
    assert torch.equal(into.centroids, source.centroids)


def test_state_dict__of_an_empty_memory_loads_and_a_full_one_loads_into_it() -> None:
    full, empty = filled(), ClusterMemory(8)
    empty.load_state_dict(full.state_dict())
    assert empty.num_clusters == 5
    full.load_state_dict(ClusterMemory(8).state_dict())
    assert full.num_clusters == 0


def test_state_dict__loads_inside_a_model_and_is_a_copy() -> None:
    source, into = torch.nn.Sequential(filled(1, 3)), torch.nn.Sequential(filled(0, 5))
    into.load_state_dict(source.state_dict())
    into[0].update(unit(torch.Generator().manual_seed(1), 2, 8), torch.tensor([0, 1]))
    assert torch.equal(source[0].centroids, filled(1, 3).centroids)


def test_state_dict__of_another_number_of_features_is_refused() -> None:
    with pytest.raises(RuntimeError, match="size mismatch for centroids"):
        filled().load_state_dict(filled(features=16).state_dict())


def test_reset__copies_takes_any_size_and_brings_float64_to_float32() -> None:
    memory = filled()
    centroids = unit(torch.Generator().manual_seed(7), 9, 8).double()
    memory.reset(centroids)
    before = memory.centroids.clone()
    centroids.zero_()
    assert memory.num_clusters == 9 and memory.centroids.dtype == torch.float32
    assert torch.equal(memory.centroids, before)
    assert "num_clusters=9" in repr(memory)


@pytest.mark.parametrize(
    ("centroids", "words"),
    [
        (torch.tensor([[1.0, 0.0], [2.0, 0.0]]), "row 1 has length 2"),
        (torch.tensor([[float("nan"), 0.0]]), "row 0 holds NaN"),
        (torch.eye(3), r"shape \(C, 2\), got \(3, 3\)"),
        (torch.zeros(0, 2), "N, D >= 1"),
    ],
)
def test_reset__refuses_what_is_no_unit_row(centroids: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ClusterMemory(2).reset(centroids)


@pytest.mark.parametrize("verb", ["forward", "update"])
def test_batch__that_cannot_be_right_is_refused(verb: str) -> None:
    memory = filled()
    act = getattr(memory, verb)
    features = unit(torch.Generator().manual_seed(8), 2, 8)
    with pytest.raises(ValueError, match=r"targets must be in 0\.\.4, got 5"):
        act(features, torch.tensor([0, 5]))
    with pytest.raises(ValueError, match=r"targets must be in 0\.\.4, got -1"):
        act(features, torch.tensor([-1, 2]))
    with pytest.raises(ValueError, match=r"targets must have shape \(2,\)"):
        act(features, torch.tensor([0]))
    with pytest.raises(ValueError, match=r"features must have shape \(B, 8\)"):
        act(features[:, :4], torch.tensor([0, 1]))
    with pytest.raises(RuntimeError, match="reset"):
        getattr(ClusterMemory(8), verb)(features, torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 0.0}, "temperature must be a number > 0"),
        ({"momentum": 1.1}, "momentum must be a number >= 0 and <= 1"),
        ({"update": "hrad"}, "did you mean 'hard'"),
        ({"num_features": 0}, "num_features must be an integer >= 1"),
    ],
)
def test_arguments__out_of_range_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ClusterMemory(**{"num_features": 8, **options})  # type: ignore[arg-type]


ROOT = Path(__file__).resolve().parents[3]

RANK = """
import sys
import torch
from torch import distributed
from unreid.memory import ClusterMemory

rank, rule, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
memory = ClusterMemory(8, update=rule)
given = torch.load(f"{folder}/given.pt")
memory.reset(given["centroids"])
memory.update(*given["batches"][rank])
torch.save(memory.centroids, f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""


@pytest.mark.parametrize("rule", ["plain", "hard"])
def test_update__on_two_ranks_equals_one_process_with_the_joined_batch(
    rule: str, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(9)
    memory = filled(update=rule)
    # Both ranks have samples of clusters 1 and 4, and their batches differ in length.
    batches = [
        (unit(generator, 3, 8), torch.tensor([1, 4, 1])),
        (unit(generator, 5, 8), torch.tensor([4, 0, 1, 4, 1])),
    ]
    given = {"centroids": memory.centroids, "batches": batches}
    torch.save(given, tmp_path / "given.pt")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), rule, str(tmp_path)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    memory.update(*(torch.cat(parts) for parts in zip(*batches)))
    for rank in range(2):
        assert torch.equal(torch.load(tmp_path / f"{rank}.pt"), memory.centroids)
