"""Balanced batches: the guarantees of their description, on the paper's own class counts and on small corpora."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avrepro.features.bags import Bags
from avrepro.sampling import BalancedBatches
from avrepro.training import Optimisation, fit


def corpus(seed: int = 0, clips: int = 300) -> np.ndarray:
    """Weak labels of 6 classes, from half of the clips to about one in a hundred; some clips have none."""
    rng = np.random.default_rng(seed)
    labels = rng.random((clips, 6)) < [0.5, 0.3, 0.1, 0.05, 0.02, 0.01]
    labels[:3, 5] = True
    return labels


def literal_tickets(clips: int) -> int:
    """The referenced system's list, as its steps."""
    if clips < 1000:
        return 1
    if clips < 2000:
        return 2
    if clips < 3000:
        return 3
    if clips < 4000:
        return 4
    return 5


@pytest.mark.parametrize("clips", [1, 175, 999, 1000, 1999, 2000, 3999, 4000, 24_000])
def test_tickets_are_the_referenced_systems(clips: int) -> None:
    labels = np.zeros((clips, 2), dtype=bool)
    labels[:, 0] = True
    assert BalancedBatches(labels, 4, 0).tickets.tolist() == [literal_tickets(clips), 0, 0]


@pytest.mark.parametrize("batch", [1, 7, 24])
def test_every_class_is_drawn_as_often_as_its_tickets_say(batch: int) -> None:
    """Between t floor(n / T) and t ceil(n / T) of the first n draws, for every n; each clip has its class's label."""
    labels = np.zeros((6400, 4), dtype=bool)
    for k, (start, stop) in enumerate(((0, 4100), (4000, 6000), (5900, 5950), (5940, 5943))):
        labels[start:stop, k] = True
    sampler = BalancedBatches(labels, batch, 5)
    tickets = sampler.tickets
    assert tickets.tolist() == [5, 3, 1, 1, 1]  # the last: 400 clips without a label
    total, drawn = int(tickets.sum()), np.zeros(5, dtype=int)
    draws = [draw for number in range(-(-150 // batch)) for draw in sampler._draws(number)]
    for n, (k, turn) in enumerate(draws, start=1):
        assert turn == drawn[k]
        drawn[k] += 1
        assert (drawn >= tickets * (n // total)).all() and (drawn <= tickets * -(-n // total)).all()
    classes = np.array([k for k, _ in draws])
    for start in range(len(classes) - 2 * total + 2):
        assert set(classes[start : start + 2 * total - 1]) == {0, 1, 2, 3, 4}
    rows = np.concatenate([sampler[number] for number in range(-(-150 // batch))])
    assert all(sampler.labels[row, k] for row, k in zip(rows, classes, strict=True))


def test_small_classes_come_as_often_as_large_ones() -> None:
    """300 clips, all classes below 1000: each is drawn for equally often, give or take one an epoch's end."""
    labels = corpus()
    counts = BalancedBatches(labels, 24, 1).counts(50)
    assert counts.available.tolist() == [*labels.sum(axis=0), (~labels.any(axis=1)).sum()]
    assert counts.available[0] > 20 * counts.available[5]
    assert counts.drawn_for.sum() == 50 * 24 and np.ptp(counts.drawn_for) <= 1
    assert (counts.seen >= counts.drawn_for).all()
    in_order = np.bincount(np.arange(50 * 24) % 300)  # what plain epochs would hold of the rarest class
    assert counts.seen[5] > 4 * (in_order * labels[:, 5]).sum()


@pytest.mark.parametrize(("clips", "batch", "batches"), [(40, 8, 9), (40, 8, 0), (40, 7, 100), (2500, 50, 41)])
def test_counts_are_those_of_the_batches(clips: int, batch: int, batches: int) -> None:
    labels = corpus(3, clips)
    sampler = BalancedBatches(labels, batch, 2)
    assert (sampler.tickets.max() > 1) == (clips > 1000)
    rows = np.array([row for number in range(batches) for row in sampler[number]], dtype=int)
    drawn_for = np.zeros(7, dtype=int)
    for number in range(batches):
        for k, _ in sampler._draws(number):
            drawn_for[k] += 1
    counts = sampler.counts(batches)
    assert counts.drawn_for.tolist() == drawn_for.tolist()
    assert counts.seen[:6].tolist() == labels[rows].sum(axis=0).tolist()
    assert counts.seen[6] == (~labels[rows].any(axis=1)).sum() == counts.drawn_for[6]


def test_each_clip_of_a_class_is_drawn_before_any_is_drawn_again() -> None:
    labels = np.eye(3, dtype=bool)[np.repeat([0, 1, 2], (50, 7, 1))]  # one label each: the class tells who drew it
    sampler = BalancedBatches(labels, 10, 4)
    rows = np.concatenate([sampler[number] for number in range(60)])
    shuffles = []
    for k, size in enumerate((50, 7, 1)):
        own = [row for row in rows if labels[row, k]]
        assert len(own) == 200
        for start in range(0, 200 - size + 1, size):
            assert sorted(own[start : start + size]) == np.flatnonzero(labels[:, k]).tolist()
        shuffles.append({tuple(own[start : start + size]) for start in range(0, 200 - size + 1, size)})
    assert len(shuffles[0]) == 4 and len(shuffles[1]) > 20  # each time in another order


def test_every_clip_is_seen() -> None:
    labels = corpus()
    assert not labels.any(axis=1).all()
    sampler = BalancedBatches(labels, 24, 0)
    largest = int(sampler.labels.sum(axis=0).max())
    batches = -(-largest * int(sampler.tickets.sum()) // 24)  # so many that the largest class is through
    assert set(np.concatenate([sampler[number] for number in range(batches)])) == set(range(300))


def test_the_seed_decides_every_batch() -> None:
    labels = corpus()
    one, two = BalancedBatches(labels, 24, 7), BalancedBatches(labels, 24, 7)
    forwards = [one[number] for number in range(40)]
    backwards = [two[number] for number in reversed(range(40))][::-1]  # whichever were asked for before
    np.testing.assert_array_equal(forwards, backwards)
    assert all(rows.shape == (24,) and rows.dtype == np.int64 for rows in forwards)
    assert not np.array_equal(forwards, [BalancedBatches(labels, 24, 8)[number] for number in range(40)])
    assert not np.array_equal(forwards[0], forwards[1])


def test_a_batch_smaller_and_one_larger_than_a_round() -> None:
    labels = corpus()
    whole = np.concatenate([BalancedBatches(labels, 1, 3)[number] for number in range(60)])
    for batch in (3, 60):
        sampler = BalancedBatches(labels, batch, 3)
        np.testing.assert_array_equal(np.concatenate([sampler[number] for number in range(60 // batch)]), whole)


@pytest.mark.parametrize(("labels", "batch"), [(np.zeros((0, 3), bool), 4), (np.ones(3, bool), 4), (corpus(), 0)])
def test_what_cannot_be_sampled_is_refused(labels: np.ndarray, batch: int) -> None:
    with pytest.raises(ValueError, match="clips >= 1"):
        BalancedBatches(labels, batch, 0)


# --- training by steps ------------------------------------------------------------------------------------


class Recorder(torch.nn.Module):
    """Keeps what it is trained on: the numbers of the clips and their labels, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.steps: list[tuple[np.ndarray, np.ndarray]] = []

    def loss(self, clips: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.steps.append((clips.int().numpy(), labels.bool().numpy()))
        return self.weight**2


def test_training_by_steps_sees_each_batch_once() -> None:
    """In each epoch other batches: 2 epochs of 25 steps are the first 50 batches."""
    labels = corpus()
    model = Recorder()
    fit(
        model,
        lambda network, clips, y: network.loss(clips, y),
        (np.arange(300.0), labels),
        Optimisation("sgd", 0.1, batch=24, epochs=2, steps=25),
        0,
        torch.device("cpu"),
        "recorder",
        batches=BalancedBatches(labels, 24, 7),
    )
    another = BalancedBatches(labels, 24, 7)  # in order, one after the other
    drawn = [clips.tolist() for clips, _ in model.steps]
    for epoch in range(2):
        expected = [another[n].tolist() for n in range(25 * epoch, 25 * (epoch + 1))]
        found = drawn[25 * epoch : 25 * (epoch + 1)]
        assert sorted(found) == sorted(expected) and found != expected
    for clips, seen in model.steps:
        np.testing.assert_array_equal(seen, labels[clips])


def test_bags_and_their_mask_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(size, 2)) for size in rng.integers(0, 6, 40)]
    bags, batches = Bags.of(arrays), BalancedBatches(corpus(clips=40), 6, 0)
    for n in range(10):
        features, mask = bags[batches[n]], bags.mask[batches[n]]
        assert mask.shape == features.shape[:2] == (6, max(1, *(len(arrays[row]) for row in batches[n])))
        for row, bag, real in zip(batches[n], features, mask, strict=True):
            np.testing.assert_array_equal(bag[real], arrays[row])
