"""Parameters: all mistakes are reported at once, with the nearest right names, before anything heavy loads."""

from __future__ import annotations

from typing import get_args

import pytest

from avrepro.conditions import Condition
from avrepro.manifests import sources
from avrepro.parameters import CHAPTERS, OnCorpus, ParameterError, check, check_notebook, parse_value
from avrepro.systems import SYSTEMS

CHAPTER, MIL, FUSION = "lightweight_fusion", "unsynchronized_mil", "attention_fusion"
PAPERS = {CHAPTER: "li2017", MIL: "parekh2018", FUSION: "fayek2020"}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_texts_of_the_command_line_are_read_as_their_parameters_or_left_to_be_refused(chapter: str) -> None:
    usual = check(chapter, {}).model_dump()
    assert {name: parse_value(chapter, name, str(value)) for name, value in usual.items()} == usual
    for name, text in (("seed", "three"), ("dry", "yes"), ("unknown", "3"), ("profile", "3")):
        assert parse_value(chapter, name, text) == text


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
    for chapter, paper in PAPERS.items():
        field = CHAPTERS[chapter].model_fields.get("system")
        names = set(get_args(field.annotation)) - {"all"} if field else set()
        assert {f"{paper}/{name}" for name in names} <= set(SYSTEMS)
    assert set().union(*(model.sources for model in CHAPTERS.values())) <= set(sources())


@pytest.mark.parametrize(
    ("chapter", "given", "expected"),
    [
        (CHAPTER, {"sed": 1}, ["unknown name 'sed'", "did you mean 'seed'?"]),
        (CHAPTER, {"seed": "1"}, ["seed = '1'", "integer"]),
        (CHAPTER, {"seed": -1}, ["seed = -1", "greater than or equal to 0"]),
        (CHAPTER, {"key_frames": 41}, ["key_frames = 41", "less than or equal to 40"]),
        (CHAPTER, {"profile": "big"}, ["profile = 'big'", "'ci'", "'demo'", "'paper'"]),
        (CHAPTER, {"corpus": "Demo"}, ["corpus = 'Demo'", "'demo-null'"]),
        (CHAPTER, {"corpus": "folder", "clips": "a"}, ["needs both clips=DIR and labels=FILE.csv"]),
        (CHAPTER, {"clips": "a", "labels": "b"}, ["corpus='demo' renders its own clips and labels"]),
        (CHAPTER, {"checkpoint": "c.pt"}, ['checkpoint belongs to corpus="folder"']),
        (CHAPTER, {"strict": True}, ['strict belongs to corpus="paired"']),
        (CHAPTER, {"sed": 1, "profile": "big", "key_frames": 99}, ["'sed'", "'big'", "\n  - key_frames = 99"]),
        ("side_by_side", {"corpus": "demo"}, ["unknown name 'corpus'"]),
        ("unsynchronised_mil", {}, ["unknown chapter 'unsynchronised_mil'; did you mean 'unsynchronized_mil'?"]),
        ("q", {}, ["known are data, lightweight_fusion, unsync"]),
    ],
)
def test_mistakes_are_named(chapter: str, given: dict, expected: list[str]) -> None:
    with pytest.raises(ParameterError) as caught:
        check(chapter, given)
    message = str(caught.value)
    assert chapter in message and all(part in message for part in expected)


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
