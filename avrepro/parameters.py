"""Typed, strict parameters of each chapter: a wrong one ends a run before anything heavy is loaded."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from avrepro.conditions import Condition


class ParameterError(ValueError):
    """Parameters that a chapter cannot run with: what was wrong, and the nearest right name."""


class Parameters(BaseModel):
    """What every chapter takes."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    sources: ClassVar[tuple[str, ...]] = ()  # what of the data manifests is shown or used where it is at hand

    profile: Literal["ci", "demo", "paper"] = "demo"  # the size of the run
    seed: int = Field(default=0, ge=0, lt=2**31)
    device: Literal["auto", "cpu", "cuda"] = "auto"


class OnCorpus(Parameters):
    """What a chapter takes that trains and scores on a corpus of the reader's choice."""

    options: ClassVar[tuple[str, ...]] = ()  # parameters that are settings of the systems

    corpus: Literal["demo", "demo-null", "folder", "paired", "dcase2017"] = "demo"
    clips: str = ""  # folder of clips (folder, dcase2017) or of sounds and photographs (paired)
    labels: str = ""  # labels.csv (folder), manifest (paired), folder of the official lists (dcase2017)
    strict: bool = False  # only items whose label comes from a person or a data set, for corpus="paired"
    checkpoint: str = ""  # of a system, scores clips without training on them; default: trained on the demo world
    dry: bool = False  # eight clips and two training steps, to see that a profile runs; its numbers are never shown

    @model_validator(mode="after")
    def corpus_is_complete(self) -> Self:
        given = {name for name in ("clips", "labels") if getattr(self, name)}
        if self.corpus == "folder" and given != {"clips", "labels"}:
            raise ValueError('corpus="folder" needs both clips=DIR and labels=FILE.csv')
        if self.corpus.startswith("demo") and given:
            raise ValueError(f"corpus={self.corpus!r} renders its own clips and labels")
        if self.corpus != "folder" and self.checkpoint:
            raise ValueError('checkpoint belongs to corpus="folder"')
        if self.corpus != "paired" and self.strict:
            raise ValueError('strict belongs to corpus="paired"')
        return self

    @property
    def condition(self) -> Condition:
        """What the chapter's systems are trained and tested on."""
        names = ("corpus", "profile", "seed", "device", "clips", "labels", "strict", "dry")
        usual = type(self).model_fields
        options = tuple(
            (name, getattr(self, name)) for name in self.options if getattr(self, name) != usual[name].default
        )
        return Condition(**{name: getattr(self, name) for name in names}, options=options)


class LightweightFusion(OnCorpus):
    """Parameters of the chapter on Li et al. (2017)."""

    options = ("key_frames",)

    key_frames: int = Field(default=4, ge=1, le=40)


class UnsynchronizedMIL(OnCorpus):
    """Parameters of the chapter on Parekh et al. (2018)."""

    sources = ("structured_edges", "vggish")  # what is used in place of stand-ins

    # whose localisation the figures show, and which scores own clips
    system: Literal[
        "two_stream", "audio_only", "video_only", "wsddn", "one_stream", "cvssp_fusion", "cvssp_gated_crnn"
    ] = "two_stream"


class AttentionFusion(OnCorpus):
    """Parameters of the chapter on Fayek and Kumar (2020)."""

    sources = ("resnet152",)  # what profile paper sees by
    options = ("generations", "teacher_weight")

    corpus: Literal["demo", "demo-null", "folder", "paired", "dcase2017", "audioset"] = "demo"  # type: ignore[assignment]
    # all of Tables 2 and 4; or the two models, their attention fusion, and one row of Tables 2 to 4
    system: Literal[
        "all", "audio", "visual", "average", "regression", "mlp", "attention", "attention_self", "attention_cross",
        "attention_without_na_nv", "attention_without_nav", "resnet_audio", "r2plus1d_visual", "gblend",
    ] = "all"  # fmt: skip
    generations: int = Field(default=2, ge=1, le=10)  # of the audio model; each is the next one's teacher
    teacher_weight: float = Field(default=0.3, ge=0, le=1)  # of the teacher's scores, beside the labels


class Data(Parameters):
    """Parameters of the chapter on the data; it shows the demo world of its profile."""

    sources = (
        "ast_per_class", "audioset", "dcase2017_task4", "esc10", "imagenet_samples", "paired", "published_predictions",
        "yamnet",
    )  # fmt: skip

    profile: Literal["ci", "demo"] = "demo"


class SideBySide(Parameters):
    """Parameters of the chapter that puts all systems and claims side by side."""

    profile: Literal["ci", "demo"] = "demo"


CHAPTERS: dict[str, type[Parameters]] = {
    "data": Data,
    "lightweight_fusion": LightweightFusion,
    "unsynchronized_mil": UnsynchronizedMIL,
    "attention_fusion": AttentionFusion,
    "side_by_side": SideBySide,
}


def check(chapter: str, given: Mapping[str, Any]) -> Parameters:
    """Validate a chapter's parameters by name.

    :raises ParameterError: names every mistake: unknown names with the nearest right one, wrong types, values out of
        range.
    """
    if chapter not in CHAPTERS:
        raise ParameterError(f"unknown chapter {chapter!r}{nearest(chapter, list(CHAPTERS))}")
    try:
        return CHAPTERS[chapter](**given)
    except ValidationError as error:
        known = list(CHAPTERS[chapter].model_fields)
        raise ParameterError(f"parameters of {chapter}:\n{mistakes(error, known)}") from None


def check_notebook(chapter: str, namespace: Mapping[str, Any]) -> Any:
    """Validate the parameters of the notebook that calls this, right after its ``parameters`` cell.

    Every plain variable defined so far is a parameter; papermill defines those that it was given, known or not, so a
    mistyped name is seen here.

    :param namespace: the notebook's ``globals()``.
    :raises ParameterError: see :func:`check`.
    """
    shell = {"In", "Out", "exit", "quit", "get_ipython", "open"}  # IPython's own
    no_parameters = (types.ModuleType, types.FunctionType, type)
    given = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_") and name not in shell and not isinstance(value, no_parameters)
    }
    return check(chapter, given)


def parse_value(chapter: str, name: str, text: str) -> Any:
    """A command line's text as the type that the parameter has; what cannot be read so stays text for :func:`check`."""
    field = CHAPTERS[chapter].model_fields.get(name) if chapter in CHAPTERS else None
    if field is not None and field.annotation in (int, float):
        try:
            return field.annotation(text)
        except ValueError:
            return text
    if field is not None and field.annotation is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    return text


def nearest(name: str, known: list[str]) -> str:
    """``"; did you mean 'seed'?"``, or the list of all where nothing is near."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def mistakes(error: ValidationError, known: list[str]) -> str:
    """All that a model found wrong, a line each: the name, what was found, and what was expected.

    :param known: names that there are.
    """
    lines = []
    for problem in error.errors():
        name, message = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown name {name!r}{nearest(str(problem['loc'][-1]), known)}")
        elif problem["type"] in ("missing", "value_error"):
            lines.append(f"{name}: {message}" if name else message)
        else:
            lines.append(f"{name} = {problem['input']!r}: {message}")
    return "\n".join(f"  - {line}" for line in lines)
