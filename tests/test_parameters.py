"""Parameters: all mistakes are reported at once, with the nearest right names, before anything heavy loads."""

from __future__ import annotations

import math
import types
from typing import get_args

import pytest

from avrepro.conditions import Condition
from avrepro.manifests import sources
from avrepro.parameters import CHAPTERS, OnCorpus, ParameterError, check, check_notebook, nearest, parse_value

CHAPTER = "lightweight_fusion"
PAPERS = {CHAPTER: "li2017", "unsynchronized_mil": "parekh2018", "attention_fusion": "fayek2020"}
USUAL = {"profile": "demo", "seed": 0, "device": "auto"}
ON_CORPUS = USUAL | {"corpus": "demo", "clips": "", "labels": "", "strict": False, "checkpoint": "", "dry": False}
OWN = {
    "data": {},
    "lightweight_fusion": {"key_frames": 4},
    "unsynchronized_mil": {"system": "two_stream"},
    "attention_fusion": {"system": "all", "generations": 2, "teacher_weight": 0.3},
    "side_by_side": {},
}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_defaults_and_given_values(chapter: str) -> None:
    usual = (ON_CORPUS if chapter in PAPERS else USUAL) | OWN[chapter]
    assert check(chapter, {}).model_dump() == usual
    given = {"profile": "ci", "seed": 3, "device": "cpu"}
    assert check(chapter, given).model_dump() == usual | given
    for name, value in usual.items():  # what the defaults say can be said on a command line
        assert parse_value(chapter, name, str(value)) == value
    with pytest.raises(ValueError, match="frozen"):
        check(chapter, {}).seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("chapter", PAPERS)
def test_each_corpus_takes_its_own_places(chapter: str) -> None:
    for given in (
        {"corpus": "demo-null", "dry": True},
        {"corpus": "folder", "clips": "-a b", "labels": "ü.csv", "checkpoint": "c.pt"},
        {"corpus": "paired", "clips": "a", "labels": "m.csv", "strict": True},
        {"corpus": "dcase2017", "clips": "a", "labels": "lists", "profile": "paper"},
    ):
        found = check(chapter, given)
        assert isinstance(found, OnCorpus) and found.model_dump().items() >= given.items()
        here = {name: value for name, value in given.items() if name != "checkpoint"}
        assert found.condition == Condition(**here)  # type: ignore[arg-type]


def test_parameters_that_are_settings_of_systems_are_options_where_they_differ() -> None:
    given = {"generations": 3, "teacher_weight": 0.3, "system": "mlp", "corpus": "audioset"}
    assert check("attention_fusion", given).condition == Condition("audioset", options=(("generations", 3),))  # type: ignore[attr-defined]
    condition = check(CHAPTER, {"key_frames": 40, "seed": 2}).condition  # type: ignore[attr-defined]
    assert condition == Condition(seed=2, options=(("key_frames", 40),))


def test_names_of_systems_and_sources_are_known() -> None:
    from avrepro.systems import SYSTEMS

    for chapter, paper in PAPERS.items():
        field = CHAPTERS[chapter].model_fields.get("system")
        names = set(get_args(field.annotation)) - {"all"} if field else set()
        assert {f"{paper}/{name}" for name in names} <= set(SYSTEMS)
    assert set().union(*(model.sources for model in CHAPTERS.values())) <= set(sources())


MIL, FUSION = "unsynchronized_mil", "attention_fusion"


@pytest.mark.parametrize(
    ("chapter", "given", "expected"),
    [
        (CHAPTER, {"sed": 1}, ["unknown name 'sed'", "did you mean 'seed'?"]),
        (CHAPTER, {"keyframes": 4}, ["'keyframes'", "did you mean 'key_frames'?"]),
        (CHAPTER, {"zzz": 1}, ["'zzz'", "known are", "profile", "seed", "key_frames"]),
        (CHAPTER, {"seed": "1"}, ["seed = '1'", "integer"]),
        (CHAPTER, {"seed": 1.0}, ["seed = 1.0", "integer"]),
        (CHAPTER, {"seed": True}, ["seed = True", "integer"]),
        (CHAPTER, {"seed": None}, ["seed = None", "integer"]),
        (CHAPTER, {"seed": math.nan}, ["seed = nan", "integer"]),
        (CHAPTER, {"seed": -1}, ["seed = -1", "greater than or equal to 0"]),
        (CHAPTER, {"seed": 2**31}, ["seed = 2147483648", "less than 2147483648"]),
        (CHAPTER, {"key_frames": 0}, ["key_frames = 0", "greater than or equal to 1"]),
        (CHAPTER, {"key_frames": 41}, ["key_frames = 41", "less than or equal to 40"]),
        (CHAPTER, {"profile": "big"}, ["profile = 'big'", "'ci'", "'demo'", "'paper'"]),
        (CHAPTER, {"device": "gpu"}, ["device = 'gpu'", "'cuda'"]),
        (CHAPTER, {"corpus": "Demo"}, ["corpus = 'Demo'", "'demo-null'"]),
        (CHAPTER, {"clips": 3, "corpus": "folder"}, ["clips = 3", "string"]),
        (CHAPTER, {"dry": 1}, ["dry = 1", "boolean"]),
        (CHAPTER, {"corpus": "folder", "clips": "a"}, ["needs both clips=DIR and labels=FILE.csv"]),
        (CHAPTER, {"clips": "a", "labels": "b"}, ["corpus='demo' renders its own clips and labels"]),
        (CHAPTER, {"checkpoint": "c.pt"}, ['checkpoint belongs to corpus="folder"']),
        (CHAPTER, {"strict": True}, ['strict belongs to corpus="paired"']),
        (MIL, {"system": "twostream"}, ["system = 'twostream'", "'two_stream'", "'audio_only'", "'wsddn'"]),
        (MIL, {"systems": "wsddn"}, ["unknown name 'systems'", "did you mean 'system'?"]),
        (MIL, {"key_frames": 4}, ["unknown name 'key_frames'"]),  # another chapter's
        (FUSION, {"generations": 0}, ["generations = 0"]),
        (FUSION, {"teacher_weight": 1.5}, ["teacher_weight = 1.5"]),
        (FUSION, {"system": "attention_both"}, ["system = 'attention_both'"]),
        ("data", {"profile": "paper"}, ["profile = 'paper'"]),
        ("side_by_side", {"corpus": "demo"}, ["unknown name 'corpus'"]),
    ],
)
def test_mistakes_are_named(chapter: str, given: dict, expected: list[str]) -> None:
    with pytest.raises(ParameterError) as caught:
        check(chapter, given)
    message = str(caught.value)
    assert message.startswith(f"parameters of {chapter}:\n  - ") and all(part in message for part in expected)


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(ParameterError) as caught:
        check(CHAPTER, {"sed": 1, "profile": "big", "key_frames": 99})
    lines = str(caught.value).splitlines()
    assert len(lines) == 4 and all(line.startswith("  - ") for line in lines[1:])


def test_unknown_chapter() -> None:
    for name, expected in {
        "lightweight-fusion": "did you mean 'lightweight_fusion'",
        "unsynchronised_mil": "did you mean 'unsynchronized_mil'",
        "q": "known are data, lightweight_fusion, unsynchronized_mil",
    }.items():
        with pytest.raises(ParameterError, match=expected):
            check(name, {})
    assert nearest("q", ["a", "b"]) == "; known are a, b"


def test_text_of_the_command_line() -> None:
    assert parse_value(CHAPTER, "seed", "3") == 3
    assert parse_value(CHAPTER, "seed", "three") == "three"  # check() says what was expected
    assert parse_value(CHAPTER, "profile", "3") == "3"
    assert parse_value(CHAPTER, "clips", "a=b") == "a=b"
    assert parse_value(CHAPTER, "dry", "true") is True and parse_value(CHAPTER, "dry", "yes") == "yes"
    assert parse_value(CHAPTER, "unknown", "3") == "3"
    assert parse_value("no chapter", "seed", "3") == "3"


def test_a_notebook_sees_what_papermill_injected() -> None:
    """IPython's own names, modules and functions are no parameters; a mistyped name is, in a real shell too."""
    from IPython.core.interactiveshell import InteractiveShell

    namespace = {
        "__name__": "__main__", "__builtins__": {}, "_": "", "__": "", "_i": "x", "_ih": [""], "_oh": {},
        "_dh": ["/"], "In": [""], "Out": {}, "exit": object(), "quit": object(), "get_ipython": lambda: None,
        "open": open, "math": math, "types": types, "ParameterError": ParameterError,
        "check_notebook": check_notebook, "profile": "ci", "seed": 5,
    }  # fmt: skip
    shell = InteractiveShell()
    cells = ("import math", "profile = 'ci'", "seed = 5", "1 + 1", "from avrepro.parameters import check_notebook")
    for cell in cells:
        shell.run_cell(cell, store_history=True).raise_error()
    for names in (namespace, dict(shell.user_ns)):
        found = check_notebook(CHAPTER, names)
        assert (found.profile, found.seed) == ("ci", 5)
        with pytest.raises(ParameterError, match=r"unknown name 'keyframes'; did you mean 'key_frames'\?"):
            check_notebook(CHAPTER, names | {"keyframes": 4})
        with pytest.raises(ParameterError, match="seed = '5'"):
            check_notebook(CHAPTER, names | {"seed": "5"})
