"""The network: which losses it has, what new labels change, and independence of file order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.projects.SphereCluster.settings import BUC, CONFIGS, bank, batch, network, people
from unreid.clustering.partition import centroids
from unreid.losses import cluster_nce, hard_triplet
from unreid.structures import PseudoLabels

LABELS = np.array([0, 0, 1, 1, 2, 2, -1, 2])
SOFT = {"SPHERECLUSTER__SOFTMAX__ENABLED": True, "MERGE_RATE": 0.125, "PASSES": 4}
REPELLED = {"SPHERECLUSTER__REPELLED__ENABLED": True}


def features(channels: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(8, channels)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, {"loss_triplet"}),
        (SOFT, {"loss_triplet", "loss_softmax"}),
        (REPELLED, {"loss_triplet", "loss_repelled"}),
        (
            {**SOFT, **REPELLED, "SPHERECLUSTER__TRIPLET__ENABLED": False},
            {"loss_softmax", "loss_repelled"},
        ),
    ],
)
def test_losses__are_those_that_are_on(settings: dict[str, object], names: set[str]) -> None:
    model = network(**settings).train()
    model.on_new_labels(PseudoLabels(LABELS), bank(features(1280)), 0)
    losses = model(batch([0, 0, 1, 1])).losses
    assert set(losses) == names
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_triplet__is_that_of_the_sphere_features() -> None:
    model = network(SPHERECLUSTER__TRIPLET__MARGIN=0.7).train()
    model.on_new_labels(PseudoLabels(LABELS), bank(features(1280)), 0)
    given = batch([0, 0, 1, 1])
    losses, (rows, _) = model(given)
    loss = losses["loss_triplet"]
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(loss, hard_triplet(rows, given["targets"], 0.7))


def test_repelled_loss__is_the_cross_entropy_against_the_table() -> None:
    model = network(BUC, DROPOUT=0.0).train()
    model.on_new_labels(PseudoLabels(LABELS), bank(features(1280)), 0)
    model.update_memory(model(batch([0, 1, 2, 2])).memory_update)
    given = batch([2, 1, 0, 0], seed=1)
    losses, (rows, _) = model(given)
    loss = losses["loss_repelled"]
    logits = rows @ model.memory.centroids.t() / 0.1
    torch.testing.assert_close(loss, cluster_nce(logits, given["targets"]))
    assert loss.item() != pytest.approx(np.log(3), abs=1e-3)


def test_new_labels__empty_the_table_whatever_was_in_it() -> None:
    model = network(BUC).train()
    for labels in (np.arange(8), LABELS):
        pseudo = PseudoLabels(labels)
        model.on_new_labels(pseudo, bank(features(1280)), 0)
        assert model.memory.centroids.shape == (pseudo.num_clusters, 2048)
        assert not model.memory.centroids.any()
        model.update_memory(model(batch([0, 1, 1, 0])).memory_update)
        assert model.memory.centroids[:2].abs().sum() > 0


def test_new_labels__set_prefix_and_table_from_todays_features_alone() -> None:
    model = network(**SOFT, **REPELLED, SPHERECLUSTER__REPELLED__START="centroids")
    classes, parameter = model.heads.classes, model.heads.classes.weight
    for labels, seed in ((np.array([0, 1, 2, 3, -1, 0, 1, 2]), 1), (LABELS, 2)):
        today = features(1280, seed)
        model.on_new_labels(PseudoLabels(labels), bank(today), 0)
        means = torch.from_numpy(centroids(today, labels))
        torch.testing.assert_close(classes.weight[: len(means)].detach(), means)
        assert not classes.weight[len(means) :].any()
        torch.testing.assert_close(model.memory.centroids, means)
    assert classes.weight is parameter
    assert model.label_parameters() == [parameter]


def test_label_parameters__are_none_without_classes() -> None:
    assert network().label_parameters() == []


def test_table__is_left_alone_where_it_is_off() -> None:
    model = network().train()
    model.on_new_labels(PseudoLabels(LABELS), bank(features(1280)), 0)
    model.update_memory(model(batch([0, 0, 1, 1])).memory_update)
    assert model.memory.num_clusters == 0


def test_memory_loss__is_infonce_against_the_centroids_and_moves_them_after_the_step() -> None:
    off = {"SPHERECLUSTER__TRIPLET__ENABLED": False, "UNSUP__MEMORY__TEMPERATURE": 0.2}
    model = network(SPHERECLUSTER__MEMORY__ENABLED=True, **off).train()
    today = features(1280)
    model.on_new_labels(PseudoLabels(LABELS), bank(today), 0)
    means = torch.from_numpy(centroids(today, LABELS))
    torch.testing.assert_close(model.cluster_memory.centroids, means)
    given = batch([0, 1, 2, 2])
    losses, update = model(given)
    assert set(losses) == {"loss_memory"}
    torch.testing.assert_close(
        losses["loss_memory"], cluster_nce(update[0] @ means.t() / 0.2, given["targets"])
    )
    model.update_memory(update)
    assert (model.cluster_memory.centroids != means).any(dim=1).all()
    assert model.memory.num_clusters == 0
    assert network().cluster_memory is None


def test_file_order__changes_no_loss() -> None:
    """The same images with labels numbered by another file order have the same losses and table."""
    found = []
    order = np.array([2, 0, 1])  # Cluster c of the sorted files is order[c] of the shuffled ones.
    for names in (np.arange(3), order):
        model = network(BUC, DROPOUT=0.0).train()
        labels = np.where(LABELS >= 0, names[LABELS], -1)
        model.on_new_labels(PseudoLabels(labels), bank(features(1280)), 0)
        losses = []
        for step, targets in enumerate(([0, 1, 2, 2], [1, 1, 0, 2], [2, 0, 0, 1])):
            output = model(batch(names[targets].tolist(), seed=step))
            loss = output.losses["loss_repelled"]
            loss.backward()
            model.update_memory(output.memory_update)
            losses.append(loss.item())
        found.append((losses, model.memory.centroids[torch.from_numpy(names)]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1])


def test_evaluation__needs_no_training_set_and_takes_a_checkpoint_of_any_size() -> None:
    settings = {**SOFT, **REPELLED}
    trained, evaluated = network(**settings), network(images=0, **settings)
    trained.on_new_labels(PseudoLabels(LABELS), bank(features(1280)), 0)
    evaluated.load_state_dict(trained.state_dict())
    given = batch([0, 0])
    assert torch.equal(trained.eval()(given), evaluated.eval()(given))


def test_raw_features__come_out_with_their_lengths() -> None:
    raw = network(SPHERE=False, TEST__METRIC="euclidean").eval()
    on = network().eval()
    lengths = raw(batch([0, 1])).norm(dim=1)
    assert (lengths - 1).abs().min() > 1e-3
    torch.testing.assert_close(raw(batch([0, 1])) / lengths[:, None], on(batch([0, 1])))


def test_shipped_configs__have_the_losses_of_their_papers() -> None:
    for name, expected in (
        ("market", (0.5, False, True)),
        ("predecessors/hct", (0.5, False, False)),
        ("predecessors/buc", (None, True, False)),
        ("predecessors/dbc", (None, True, False)),
        ("predecessors/ecluster", (None, True, False)),
    ):
        model = network(CONFIGS / f"{name}.yml")
        assert (model.margin, model.repelled, model.heads.classes is not None) == expected


def test_people__are_pulled_together_by_each_loss() -> None:
    """Training a linear map with any of the losses makes each person's features more compact."""
    from unreid.clustering.silhouette import sphere_silhouette
    from unreid.losses import sphere_softmax

    given = torch.from_numpy(people(6, 8, spread=1.2))
    labels = torch.arange(6).repeat_interleave(8)
    for name in ("triplet", "softmax"):
        torch.manual_seed(0)
        linear, classes = torch.nn.Linear(16, 16), torch.nn.Parameter(torch.randn(6, 16))
        steps = torch.optim.Adam([*linear.parameters(), classes], lr=0.01)
        scores = []
        for _ in range(40):
            rows = torch.nn.functional.normalize(linear(given))
            scores.append(sphere_silhouette(rows.detach().numpy(), labels.numpy()))
            loss = (
                hard_triplet(rows, labels)
                if name == "triplet"
                else sphere_softmax(rows, classes, labels)
            )
            steps.zero_grad()
            loss.backward()
            steps.step()
        assert scores[-1] > scores[0] + 0.1
