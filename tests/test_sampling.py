"""Balanced batches: the guarantees of their description, and training by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avrepro.sampling import BalancedBatches
from avrepro.training import Optimisation, fit


def corpus(clips: int = 300) -> np.ndarray:
    """Weak labels of 6 classes, from half of the clips to about one in a hundred; some clips have none."""
    labels = np.random.default_rng(0).random((clips, 6)) < [0.5, 0.3, 0.1, 0.05, 0.02, 0.01]
    labels[:3, 5] = True
    return labels


@pytest.mark.parametrize(
    ("clips", "tickets"), [(1, 1), (999, 1), (1000, 2), (1999, 2), (2000, 3), (3999, 4), (4000, 5), (24_000, 5)]
)
def test_tickets_are_the_referenced_systems(clips: int, tickets: int) -> None:
    labels = np.zeros((clips, 2), dtype=bool)
    labels[:, 0] = True
    assert BalancedBatches(labels, 4, 0).tickets.tolist() == [tickets, 0, 0]


@pytest.mark.parametrize("batch", [1, 7, 24])
def test_every_class_is_drawn_as_often_as_its_tickets_say(batch: int) -> None:
    """Between t floor(n / T) and t ceil(n / T) of the first n draws, for every n; each clip has its class's label."""
    labels = np.zeros((6400, 4), dtype=bool)
    for k, (start, stop) in enumerate(((0, 4100), (4000, 6000), (5900, 5950), (5940, 5943))):
        labels[start:stop, k] = True
    sampler = BalancedBatches(labels, batch, 5)
    assert sampler.tickets.tolist() == [5, 3, 1, 1, 1]  # the last: 400 clips without a label
    numbers = range(-(-150 // batch))
    draws = [draw for number in numbers for draw in sampler.draws(number)]
    rows = np.concatenate([sampler[number] for number in numbers])
    drawn = np.zeros(5, dtype=int)
    for n, ((k, earlier), row) in enumerate(zip(draws, rows, strict=True), start=1):
        assert earlier == drawn[k]
        drawn[k] += 1
        assert (drawn >= sampler.tickets * (n // 11)).all() and (drawn <= sampler.tickets * -(-n // 11)).all()
        assert labels[row, k] if k < 4 else not labels[row].any()


def test_each_clip_of_a_class_is_drawn_before_any_is_drawn_again() -> None:
    labels = np.eye(3, dtype=bool)[np.repeat([0, 1, 2], (50, 7, 1))]  # one label each: the class tells who drew it
    sampler = BalancedBatches(labels, 10, 4)
    rows = np.concatenate([sampler[number] for number in range(60)])
    for k, (size, orders) in enumerate(((50, 4), (7, 20), (1, 1))):
        own = [row for row in rows if labels[row, k]]
        assert len(own) == 200
        shuffles = [tuple(own[start : start + size]) for start in range(0, 200 - size + 1, size)]
        assert {tuple(sorted(one)) for one in shuffles} == {tuple(np.flatnonzero(labels[:, k]))}
        assert len(set(shuffles)) >= orders  # each time in another order


def test_the_seed_decides_every_batch() -> None:
    """Whichever batches were asked for before, and into whatever batches the sequence is cut."""
    labels = corpus()
    one, two = BalancedBatches(labels, 24, 7), BalancedBatches(labels, 24, 7)
    forwards = [one[number] for number in range(40)]
    backwards = [two[number] for number in reversed(range(40))][::-1]
    np.testing.assert_array_equal(forwards, backwards)
    assert all(rows.shape == (24,) and rows.dtype == np.int64 for rows in forwards)
    assert not np.array_equal(forwards, [BalancedBatches(labels, 24, 8)[number] for number in range(40)])
    smaller = BalancedBatches(labels, 3, 7)
    np.testing.assert_array_equal(np.concatenate([smaller[number] for number in range(8)]), forwards[0])


def test_training_by_steps_sees_each_batch_once() -> None:
    """In each epoch other batches: 2 epochs of 25 steps are the first 50 batches."""
    labels, drawn = corpus(), []

    def loss(model: nn.Module, clips: Tensor, weak_labels: Tensor) -> Tensor:
        np.testing.assert_array_equal(weak_labels.bool().numpy(), labels[clips.int().numpy()])
        drawn.append(clips.int().tolist())
        return model(clips[:, None]).sum() * 0

    settings = Optimisation("sgd", 0.1, batch=24, epochs=2, steps=25)
    fit(nn.Linear(1, 1), loss, (np.arange(300.0), labels), settings, 7, torch.device("cpu"), "recorder")
    batches = BalancedBatches(labels, 24, 7)
    for epoch in range(2):
        expected = [batches[n].tolist() for n in range(25 * epoch, 25 * (epoch + 1))]  # one after the other
        found = drawn[25 * epoch : 25 * (epoch + 1)]
        assert sorted(found) == sorted(expected) and found != expected
