"""Training batches in which rare classes are not rare (Parekh et al. 2018, section 4, after Xu et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEP, MOST = 1000, 5  # clips for one more ticket, and the most tickets of a class: the referenced system's


@dataclass(frozen=True)
class DrawingCounts:
    """What some batches held, int [classes + 1] each; the last place stands for clips without a label."""

    available: np.ndarray  # clips that have the label
    drawn_for: np.ndarray  # draws made for the class
    seen: np.ndarray  # draws of clips that have the label, for whichever class they were drawn


class BalancedBatches:
    """An endless sequence of batches in which every class is drawn for about equally often.

    Each class has 1 ticket, and one more for every 1000 clips up to 5. Rounds of all tickets, shuffled, are put
    one behind the other; batches cut this sequence into equal parts. A ticket draws the next clip of its class from
    the class's own clips in random order, shuffled anew when they are used up. What this guarantees:

    - among the first n draws, class k with t_k of all T tickets has between t_k floor(n / T) and t_k ceil(n / T);
    - any 2 T - 1 draws on end are made for every class at least once;
    - of a class's clips, none is drawn for it a second time before all are drawn once, and so on;
    - every batch is full, and batch number i is the same whichever batches were asked for before.

    Clips with several labels are drawn for each of them, so one clip may be twice in a batch. Ours: clips without
    any label count as one more class, or they would never be seen; the paper's corpus has none of them. The
    referenced system cuts a batch short where a class's clips end, here it goes on with the next shuffle.

    :param weak_labels: bool [clips, classes] of the training clips. A class without clips has no tickets.
    :param batch: clips in a batch. :param seed: decides every batch.
    :raises ValueError: there is no clip, or the batch is not positive.
    """

    def __init__(self, weak_labels: np.ndarray, batch: int, seed: int) -> None:
        weak_labels = np.asarray(weak_labels, dtype=bool)
        if weak_labels.ndim != 2 or not len(weak_labels) or batch < 1:
            raise ValueError(
                f"expected weak_labels [clips >= 1, classes] and batch >= 1, found {weak_labels.shape} and {batch}"
            )
        self.labels = np.column_stack([weak_labels, ~weak_labels.any(axis=1)])  # (clips, classes + 1)
        self.batch, self.seed = batch, seed
        self.rows = [np.flatnonzero(column) for column in self.labels.T]
        available = self.labels.sum(axis=0)
        self.tickets = np.where(available > 0, np.minimum(1 + available // STEP, MOST), 0)  # int [classes + 1]
        self._list = np.repeat(np.arange(len(self.tickets)), self.tickets)
        self._shuffled: dict[tuple[int, int], np.ndarray] = {}  # (class, which shuffle) -> rows; a place a draw
        self._last = (-1, np.empty(0, dtype=np.int64))  # number and rows of the batch asked for last

    def __getitem__(self, number: int) -> np.ndarray:
        """Rows of the clips of batch ``number`` (0, 1, 2, ... without end), int64 [batch]."""
        if self._last[0] != number:
            rows = [
                self._shuffle(k, turn // len(self.rows[k]))[turn % len(self.rows[k])] for k, turn in self._draws(number)
            ]
            self._last = (number, np.array(rows, dtype=np.int64))
        return self._last[1].copy()

    def counts(self, batches: int) -> DrawingCounts:
        """What the first ``batches`` batches hold: how the balance turns out, for a plot."""
        rounds, rest = divmod(batches * self.batch, len(self._list))
        drawn_for = rounds * self.tickets + np.bincount(self._round(rounds)[:rest], minlength=len(self.tickets))
        seen = np.zeros_like(self.tickets)
        for k, own in enumerate(self.rows):
            if len(own):  # all its clips so many times, and the first few of one more shuffle
                times, more = divmod(int(drawn_for[k]), len(own))
                seen += times * self.labels[own].sum(axis=0) + self.labels[self._shuffle(k, times)[:more]].sum(axis=0)
        return DrawingCounts(self.labels.sum(axis=0), drawn_for, seen)

    def _draws(self, number: int) -> list[tuple[int, int]]:
        """(class, how many draws were made for it before) of each draw of a batch."""
        start, stop = number * self.batch, (number + 1) * self.batch
        size, draws = len(self._list), []
        for turn in range(start // size, -(-stop // size)):
            before = turn * self.tickets  # draws for each class in all earlier rounds
            for at, k in enumerate(self._round(turn), turn * size):
                if start <= at < stop:
                    draws.append((int(k), int(before[k])))
                before[k] += 1
        return draws

    def _round(self, turn: int) -> np.ndarray:
        """Classes of all tickets in the order of round ``turn``, int [tickets]."""
        return np.random.default_rng([self.seed, 0, turn]).permutation(self._list)

    def _shuffle(self, k: int, number: int) -> np.ndarray:
        """Rows of all clips of class ``k`` in the order in which they are drawn for the ``number``-th time."""
        if (k, number) not in self._shuffled:
            rng = np.random.default_rng([self.seed, 1, k, number])
            self._shuffled[k, number] = rng.permutation(self.rows[k])
        return self._shuffled[k, number]
