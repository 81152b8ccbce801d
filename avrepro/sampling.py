"""Training batches in which rare classes are not rare (Parekh et al. 2018, section 4, after Xu et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

STEP, MOST = 1000, 5  # clips for one more ticket, and the most tickets of a class: the referenced system's


class BalancedBatches:
    """An endless sequence of batches in which every class is drawn for about equally often.

    Each class has 1 ticket, and one more for every 1000 clips up to 5. Rounds of all tickets, shuffled, are put
    one behind the other; batches cut this sequence into equal parts. A ticket draws the next clip of its class from
    the class's own clips in random order, shuffled anew when they are used up. What this guarantees:

    - among the first n draws, class k with t_k of all T tickets has between t_k floor(n / T) and t_k ceil(n / T);
    - of a class's clips, none is drawn for it a second time before all are drawn once, and so on;
    - every batch is full, and batch number i is the same whichever batches were asked for before.

    Clips with several labels are drawn for each of them, so one clip may be twice in a batch. Ours: clips without
    any label count as one more class, or they would never be seen; the paper's corpus has none of them. The
    referenced system cuts a batch short where a class's clips end, here it goes on with the next shuffle.

    :param weak_labels: bool [clips, classes] of the training clips. A class without clips has no tickets.
    :param batch: clips in a batch. :param seed: decides every batch.
    """

    def __init__(self, weak_labels: np.ndarray, batch: int, seed: int) -> None:
        weak_labels = np.asarray(weak_labels, dtype=bool)
        labels = np.column_stack([weak_labels, ~weak_labels.any(axis=1)])  # (clips, classes + 1)
        self.batch, self.seed = batch, seed
        self.rows = [np.flatnonzero(column) for column in labels.T]  # clips of each class
        available = labels.sum(axis=0)
        self.tickets = np.where(available > 0, np.minimum(1 + available // STEP, MOST), 0)  # int [classes + 1]
        self._shuffled: dict[tuple[int, int], np.ndarray] = {}  # (class, which shuffle) -> rows in a random order

    def __getitem__(self, number: int) -> np.ndarray:
        """Rows of the clips of batch ``number`` (0, 1, 2, ... without end), int64 [batch]."""
        rows = []
        for k, earlier in self.draws(number):
            shuffle, place = divmod(earlier, len(self.rows[k]))
            if (k, shuffle) not in self._shuffled:
                rng = np.random.default_rng([self.seed, 1, k, shuffle])
                self._shuffled[k, shuffle] = rng.permutation(self.rows[k])
            rows.append(self._shuffled[k, shuffle][place])
        return np.array(rows, dtype=np.int64)

    def draws(self, number: int) -> Iterator[tuple[int, int]]:
        """Class and how many draws were made for it before, of each draw of a batch; the last class has no label."""
        start, stop = number * self.batch, (number + 1) * self.batch
        tickets = np.repeat(np.arange(len(self.tickets)), self.tickets)
        for turn in range(start // len(tickets), -(-stop // len(tickets))):
            earlier = turn * self.tickets  # draws for each class in all earlier rounds
            shuffled = np.random.default_rng([self.seed, 0, turn]).permutation(tickets)
            for place, k in enumerate(shuffled, turn * len(tickets)):
                if start <= place < stop:
                    yield int(k), int(earlier[k])
                earlier[k] += 1
