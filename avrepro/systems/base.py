"""What a system is: one row of one table of one paper, fitted on training clips, giving scores to any clips."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from avrepro.conditions import Condition
from avrepro.corpora.base import Corpus
from avrepro.features.store import ClipArrays, Feature, extract
from avrepro.files import atomic
from avrepro.recipes import Recipe
from avrepro.training import Optimisation, Rows, Validation, fit

CLIP_SECONDS = 10.0  # longer clips are cut, shorter ones are taken as they are
Network = TypeVar("Network", bound=nn.Module)


class CheckpointError(ValueError):
    """A file that is no checkpoint of a system, or one of clips described in another way."""


class Data:
    """The clips of a condition and, when they are asked for, their features.

    :param impaired: "", "silent" (no clip has sound), "black" (none has pictures) or "delay N s" (pictures come so many
        seconds late, and those of the clip's end first).
    :param fresh: features are computed when they are asked for, without the cache; to time them.
    """

    def __init__(
        self, corpus: Corpus, condition: Condition, device: torch.device, impaired: str = "", fresh: bool = False
    ) -> None:
        self.corpus, self.condition, self.device = corpus, condition, device
        self.impaired, self.fresh = impaired, fresh
        self._extracted: dict[str, ClipArrays] = {}

    @cached_property
    def targets(self) -> np.ndarray:
        """Weak labels, bool [clips, classes]."""
        return self.corpus.targets()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.corpus.classes

    @property
    def delay(self) -> int:
        """Seconds by which pictures come late."""
        return int(self.impaired.split()[1]) if self.impaired.startswith("delay") else 0

    def rows(self, split: str) -> np.ndarray:
        """Rows of the clips of a split, int [clips]."""
        return np.array([row for row, clip in enumerate(self.corpus.clips) if clip.split == split], dtype=int)

    def arrays(self, feature: Feature) -> ClipArrays:
        """A feature of every clip, in their order; the feature of nothing where a clip lacks its stream."""
        if self.impaired == {"audio": "silent", "video": "black"}[feature.stream]:
            count = len(self.corpus.clips)
            return ClipArrays((feature.nothing(),) * count, np.zeros(count, dtype=bool))
        if self.fresh:
            arrays = tuple(feature.of(clip) for clip in self.corpus.clips)
            return ClipArrays(arrays, np.ones(len(arrays), dtype=bool))
        if feature.recipe.key not in self._extracted:
            self._extracted[feature.recipe.key] = extract(feature, self.corpus)
        return self._extracted[feature.recipe.key]

    def select(self, rows: np.ndarray) -> Data:
        """Some of the clips, int [clips], with features of their own."""
        corpus = replace(self.corpus, clips=tuple(self.corpus.clips[row] for row in rows))
        return Data(corpus, self.condition, self.device, self.impaired, self.fresh)

    def with_impairment(self, impaired: str) -> Data:
        """The same clips, impaired."""
        return self._like(self.condition, impaired)

    def under(self, condition: Condition) -> Data:
        """The same clips, described as another profile or other options ask for."""
        return self if condition == self.condition else self._like(condition, self.impaired)

    def _like(self, condition: Condition, impaired: str) -> Data:
        data = Data(self.corpus, condition, self.device, impaired, self.fresh)
        data._extracted = self._extracted  # features that were extracted are shared
        return data


@dataclass(frozen=True)
class Examples:
    """Clips to train on, or to be judged by."""

    rows: np.ndarray  # int [clips], among those of the condition
    inputs: tuple[Rows, ...]
    labels: Any  # weak labels, bool [clips, classes], or targets 0..1

    def prepare(self, model: Any, most: int = 256) -> Any:
        """Let a model take what it does not train by gradient from evenly spaced clips, and from all labels."""
        few = np.linspace(0, len(self.labels) - 1, min(len(self.labels), most)).astype(int)
        inputs = (torch.from_numpy(one[few]).float() for one in self.inputs)
        model.prepare(*inputs, torch.from_numpy(self.labels).float())
        return model


@dataclass
class Checkpoint:
    """What training leaves of a system, and what it was trained on: the one format in which systems are saved."""

    state: dict[str, Tensor] = field(default_factory=dict)  # weights, by the names that the system gives them
    numbers: dict[str, Any] = field(default_factory=dict)  # plain values, such as weights of classes
    history: list[dict[str, float]] = field(default_factory=list)  # a row an epoch
    seconds: float = 0.0  # of its own training, and of those out of fold that it needed
    parameters: int = 0  # numbers that were trained
    # Filled in by the protocol:
    system: str = ""
    key: str = ""
    profile: str = ""
    options: list[list[Any]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    parts: dict[str, str] = field(default_factory=dict)  # system -> file name of its checkpoint

    def save(self, path: Path) -> None:
        with atomic(path) as temporary:
            torch.save({name: getattr(self, name) for name in self.__dataclass_fields__}, temporary)

    def load_into(self, network: Network) -> Network:
        """A network with the trained weights, in evaluation mode."""
        network.load_state_dict(self.state)
        return network.eval()

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """:raises CheckpointError: names the file, what was expected and what was found."""
        try:
            return cls(**torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # torch.load raises anything from EOFError to IndexError for other files
            raise CheckpointError(
                f"{path}: expected a checkpoint of a system, found something else ({type(error).__name__}: "
                f"{str(error)[:200]}). Train one with `avrepro run`."
            ) from error


class System(ABC):
    """One row of one table of one paper.

    A system that fuses others names them in ``uses``: they are fitted under the same condition, and their scores are
    handed to it by name, float32 [clips, classes].
    """

    version: ClassVar[int] = 1  # raised when the same settings give other scores
    profiles: ClassVar[Mapping[str, Any]]  # sizes of a run, a dataclass each, by the name of the profile
    modalities: tuple[str, ...] = ("audio", "video")
    uses: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()  # settings of the profile that its scores depend on
    probabilities = True  # whether scores are probabilities
    threshold_rule = "class"  # class: tuned for each class; single: one for all, tuned; half: 0.5 for all
    seeded = True  # whether training depends on the seed
    held_out_only = False  # whether nobody reads its scores of training clips, so that these are left out (NaN)
    minutes = 0.0  # of its training on the demo world, profile demo, on one core

    def __init__(self, name: str, title: str, place: str) -> None:
        self.name = name  # paper/row
        self.title = title  # in tables
        self.place = place  # where the paper has it, such as "Table 1 (a)"

    def settings(self, condition: Condition) -> Any:
        """The profile's settings, with the condition's options and, in a dry run, cut short."""
        profile = self.profiles[condition.profile]
        known = {name: value for name, value in condition.options if name in profile.__dataclass_fields__}
        profile = replace(profile, **known)
        return dry(profile) if condition.dry else profile

    def folds(self, condition: Condition) -> int:
        """Folds of the training clips, so that their scores of ``uses`` are of systems not trained on them; 0: none."""
        return 0

    def recipe(self, condition: Condition, parts: tuple[Recipe, ...] = ()) -> Recipe:
        """What its scores depend on besides the clips: settings, features, and ``parts``, recipes of ``uses``."""
        settings = self.settings(condition)
        used = {name: _plain(getattr(settings, name)) for name in self.fields} | {"folds": self.folds(condition)}
        features = tuple(feature.recipe for feature in self.features(condition).values())
        return Recipe(f"system/{self.name}", self.version, used, (*features, *parts))

    def features(self, condition: Condition) -> dict[str, Feature]:
        """Features that it reads, by the names it has for them. Nothing is loaded before they are computed."""
        return {}

    def arrays(self, data: Data) -> list[ClipArrays]:
        """Its features of all clips."""
        return [data.arrays(feature) for feature in self.features(data.condition).values()]

    def examples(self, data: Data, split: str) -> Examples:
        """The clips of a split that have the streams of all its features."""
        arrays, rows = self.arrays(data), data.rows(split)
        rows = rows[np.all([one.present[rows] for one in arrays], axis=0)]
        return Examples(rows, tuple(one.select(rows) for one in arrays), data.targets[rows])

    def feature_keys(self, condition: Condition) -> dict[str, str]:
        return {name: feature.recipe.key for name, feature in self.features(condition).items()}

    def check_features(self, checkpoint: Checkpoint, condition: Condition) -> None:
        """:raises CheckpointError: the system was trained on other features than those of the condition."""
        here, trained = self.feature_keys(condition), checkpoint.numbers["features"]
        if other := [name for name in here if here[name] != trained.get(name)]:
            raise CheckpointError(
                f"{self.name}: trained on other features ({', '.join(other)}) than those of this run; use the profile, "
                "the weight files and the edge detector that it was trained with, or train it again"
            )

    def train(
        self,
        data: Data,
        build: Callable[[], nn.Module],
        loss: Callable[..., Tensor],
        examples: Examples,
        optimisation: Optimisation,
        seed: int,
        state_path: Path,
        judge: Callable[[nn.Module], Validation] | None = None,
    ) -> Checkpoint:
        """Build a network and train it on examples, until the epoch that ``judge`` finds best or, without, the last.

        :param loss: of the network, a batch of each input, and the batch's labels.
        :raises ValueError: fewer than two clips, of which no batch can be normalised.
        """
        if len(examples.labels) < 2:
            raise ValueError(f"{self.name}: expected at least 2 training clips, found {len(examples.labels)}")
        torch.manual_seed(seed)
        model = build()
        inputs = (*examples.inputs, examples.labels)
        fitted = fit(model, loss, inputs, optimisation, seed, data.device, self.name, judge, state_path)
        numbers = {"features": self.feature_keys(data.condition), "best_epoch": fitted.best_epoch}
        if hasattr(model, "config"):
            numbers["config"] = asdict(model.config)  # type: ignore[call-overload]
        count = sum(one.numel() for one in model.parameters())
        return Checkpoint(model.cpu().state_dict(), numbers, fitted.history, fitted.seconds, count)

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        """Train on the clips of split ``train``; those of ``validation`` choose what is to be chosen.

        :param given: scores of ``uses``; with :meth:`folds`, those of training clips are out of fold.
        :param state_path: where a training may save its state after each epoch.
        :returns: nothing learnt, unless a system overrides this.
        """
        return Checkpoint()

    @abstractmethod
    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        """Scores of all clips, higher meaning likelier, float32 [clips, classes]."""


def dry(profile: Any) -> Any:
    """A profile whose trainings are an epoch of two batches each."""
    changed = {}
    for name in profile.__dataclass_fields__:
        value = getattr(profile, name)
        if hasattr(value, "epochs"):
            changed[name] = replace(value, epochs=1, steps=min(value.steps, 2))
    return replace(profile, **changed)


@contextmanager
def partial_paths(state_path: Path, parts: Iterable[object]) -> Iterator[list[Path]]:
    """Where the trainings of several parts save their states, which are removed once all parts are trained."""
    paths = [state_path.with_suffix(f".{part}.partial") for part in parts]
    yield paths
    for path in paths:
        path.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
