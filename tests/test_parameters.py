"""Parameters: all mistakes are reported at once, with the nearest right names, before anything heavy loads."""

from __future__ import annotations

import math
from typing import get_args

import pytest

from avrepro.conditions import Condition
from avrepro.manifests import sources
from avrepro.parameters import CHAPTERS, OnCorpus, ParameterError, check, check_notebook, parse_value

CHAPTER, MIL, FUSION = "lightweight_fusion", "unsynchronized_mil", "attention_fusion"
PAPERS = {CHAPTER: "li2017", MIL: "parekh2018", FUSION: "fayek2020"}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_what_the_defaults_say_can_be_said_on_a_command_line(chapter: str) -> None:
    usual = check(chapter, {}).model_dump()
    assert {name: parse_value(chapter, name, str(value)) for name, value in usual.items()} == usual
    given = {"profile": "ci", "seed": 3, "device": "cpu"}
    assert check(chapter, given).model_dump() == usual | given


@pytest.mark.parametrize("chapter", PAPERS)
def test_each_corpus_takes_its_own_places(chapter: str) -> None:
    for given in (
        {"corpus": "demo-null", "dry": True},
        {"corpus": "folder", "clips": "-a b", "labels": "ü.csv"},
        {"corpus": "paired", "clips": "a", "labels": "m.csv", "strict": True},
        {"corpus": "dcase2017", "clips": "a", "labels": "lists", "profile": "paper"},
    ):
        found = check(chapter, given)
        assert isinstance(found, OnCorpus) and found.condition == Condition(**given)  # type: ignore[arg-type]


def test_parameters_that_are_settings_of_systems_are_options_where_they_differ() -> None:
    given = {"generations": 3, "teacher_weight": 0.3, "system": "mlp", "corpus": "audioset"}
    assert check(FUSION, given).condition == Condition("audioset", options=(("generations", 3),))  # type: ignore[attr-defined]
    condition = check(CHAPTER, {"key_frames": 40, "seed": 2}).condition  # type: ignore[attr-defined]
    assert condition == Condition(seed=2, options=(("key_frames", 40),))


def test_names_of_systems_and_sources_are_known() -> None:
    from avrepro.systems import SYSTEMS

    for chapter, paper in PAPERS.items():
        field = CHAPTERS[chapter].model_fields.get("system")
        names = set(get_args(field.annotation)) - {"all"} if field else set()
        assert {f"{paper}/{name}" for name in names} <= set(SYSTEMS)
    assert set().union(*(model.sources for model in CHAPTERS.values())) <= set(sources())


@pytest.mark.parametrize(
    ("chapter", "given", "expected"),
    [
        (CHAPTER, {"sed": 1}, ["unknown name 'sed'", "did you mean 'seed'?"]),
        (CHAPTER, {"zzz": 1}, ["'zzz'", "known are", "profile", "seed", "key_frames"]),
        (CHAPTER, {"seed": "1"}, ["seed = '1'", "integer"]),
        (CHAPTER, {"seed": True}, ["seed = True", "integer"]),
        (CHAPTER, {"seed": math.nan}, ["seed = nan", "integer"]),
        (CHAPTER, {"seed": -1}, ["seed = -1", "greater than or equal to 0"]),
        (CHAPTER, {"seed": 2**31}, ["seed = 2147483648", "less than 2147483648"]),
        (CHAPTER, {"key_frames": 41}, ["key_frames = 41", "less than or equal to 40"]),
        (CHAPTER, {"profile": "big"}, ["profile = 'big'", "'ci'", "'demo'", "'paper'"]),
        (CHAPTER, {"device": "gpu"}, ["device = 'gpu'", "'cuda'"]),
        (CHAPTER, {"corpus": "Demo"}, ["corpus = 'Demo'", "'demo-null'"]),
        (CHAPTER, {"corpus": "folder", "clips": "a"}, ["needs both clips=DIR and labels=FILE.csv"]),
        (CHAPTER, {"clips": "a", "labels": "b"}, ["corpus='demo' renders its own clips and labels"]),
        (CHAPTER, {"checkpoint": "c.pt"}, ['checkpoint belongs to corpus="folder"']),
        (CHAPTER, {"strict": True}, ['strict belongs to corpus="paired"']),
        (CHAPTER, {"sed": 1, "profile": "big", "key_frames": 99}, ["'sed'", "'big'", "\n  - key_frames = 99"]),
        (MIL, {"system": "twostream"}, ["system = 'twostream'", "'two_stream'", "'audio_only'", "'wsddn'"]),
        (MIL, {"key_frames": 4}, ["unknown name 'key_frames'"]),  # another chapter's
        (FUSION, {"teacher_weight": 1.5}, ["teacher_weight = 1.5"]),
        ("data", {"profile": "paper"}, ["profile = 'paper'"]),
        ("side_by_side", {"corpus": "demo"}, ["unknown name 'corpus'"]),
    ],
)
def test_mistakes_are_named(chapter: str, given: dict, expected: list[str]) -> None:
    with pytest.raises(ParameterError) as caught:
        check(chapter, given)
    message = str(caught.value)
    assert message.startswith(f"parameters of {chapter}:\n  - ") and all(part in message for part in expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("unsynchronised_mil", "did you mean 'unsynchronized_mil'"), ("q", "known are data, lightweight_fusion, unsync")],
)
def test_unknown_chapter(name: str, expected: str) -> None:
    with pytest.raises(ParameterError, match=expected):
        check(name, {})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "3", 3),
        ("seed", "three", "three"),
        ("profile", "3", "3"),
        ("dry", "true", True),
        ("dry", "yes", "yes"),
        ("unknown", "3", "3"),
    ],
)
def test_text_of_the_command_line(name: str, text: str, value: object) -> None:
    assert parse_value(CHAPTER, name, text) == value


def test_a_notebook_sees_what_papermill_injected() -> None:
    """IPython's own names, modules and functions are no parameters; a mistyped name is."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    cells = ("import math", "profile = 'ci'", "seed = 5", "1 + 1", "from avrepro.parameters import check_notebook")
    for cell in cells:
        shell.run_cell(cell, store_history=True).raise_error()
    names = dict(shell.user_ns)
    found = check_notebook(CHAPTER, names)
    assert (found.profile, found.seed) == ("ci", 5)
    with pytest.raises(ParameterError, match=r"unknown name 'keyframes'; did you mean 'key_frames'\?"):
        check_notebook(CHAPTER, names | {"keyframes": 4})
