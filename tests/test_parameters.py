"""Parameters: each kind of mistake is told at once, with the nearest right name, before anything heavy loads."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import types

import pytest

from avrepro.manifests import sources
from avrepro.parameters import (
    CHAPTERS,
    LightweightFusion,
    OnCorpus,
    ParameterError,
    UnsynchronizedMIL,
    check,
    check_notebook,
    nearest,
    parse_value,
)

CHAPTER = "lightweight_fusion"
ON_CORPUS = [chapter for chapter, model in CHAPTERS.items() if issubclass(model, OnCorpus)]


def test_defaults_and_given_values() -> None:
    assert check(CHAPTER, {}) == LightweightFusion()
    found = check(CHAPTER, {"profile": "ci", "seed": 3, "key_frames": 40, "device": "cpu"})
    assert found.model_dump() == {
        "profile": "ci", "seed": 3, "device": "cpu", "corpus": "demo",
        "clips": "", "labels": "", "strict": False, "checkpoint": "", "key_frames": 40, "dry": False,
    }  # fmt: skip
    folder = check(CHAPTER, {"corpus": "folder", "clips": "-a b", "labels": "ü.csv", "checkpoint": "x.pt"})
    assert isinstance(folder, LightweightFusion) and folder.clips == "-a b"


def test_defaults_of_unsynchronized_mil() -> None:
    assert check("unsynchronized_mil", {}) == UnsynchronizedMIL()
    found = check("unsynchronized_mil", {"system": "one_stream", "seed": 3})
    assert found.model_dump() == {
        "profile": "demo", "seed": 3, "device": "auto", "corpus": "demo",
        "clips": "", "labels": "", "strict": False, "checkpoint": "", "dry": False, "system": "one_stream",
    }  # fmt: skip
    for system in ("two_stream", "audio_only", "video_only", "wsddn"):
        assert check("unsynchronized_mil", {"system": system}) == UnsynchronizedMIL(system=system)


def test_defaults_of_attention_fusion() -> None:
    found = check("attention_fusion", {"system": "gblend", "generations": 3, "corpus": "audioset"})
    assert found.model_dump() == {
        "profile": "demo", "seed": 0, "device": "auto", "corpus": "audioset", "clips": "", "labels": "",
        "strict": False, "checkpoint": "", "dry": False, "system": "gblend", "generations": 3, "teacher_weight": 0.3,
    }  # fmt: skip
    assert check("attention_fusion", {}).system == "all"
    for given in ({"generations": 0}, {"teacher_weight": 1.5}, {"system": "attention_both"}):
        with pytest.raises(ParameterError, match=next(iter(given))):
            check("attention_fusion", given)


def test_the_papers_weights_are_sources() -> None:
    """What a chapter uses where it is at hand is a source that can be fetched by this name."""
    assert set(UnsynchronizedMIL.sources) == {"structured_edges", "vggish"}
    for model in CHAPTERS.values():
        assert set(model.sources) <= set(sources())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"system": "twostream"}, ["system = 'twostream'", "'two_stream'", "'audio_only'", "'wsddn'"]),
        ({"system": "synchronous"}, ["system = 'synchronous'", "'one_stream'"]),  # not one of the paper's
        ({"system": 2}, ["system = 2", "'video_only'"]),
        ({"systems": "wsddn"}, ["unknown name 'systems'", "did you mean 'system'?"]),
        ({"key_frames": 4}, ["unknown name 'key_frames'"]),  # another chapter's
    ],
)
def test_mistakes_in_unsynchronized_mil(given: dict, expected: list[str]) -> None:
    with pytest.raises(ParameterError) as caught:
        check("unsynchronized_mil", given)
    message = str(caught.value)
    assert message.startswith("parameters of unsynchronized_mil:\n  - ")
    assert all(part in message for part in expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"sed": 1}, ["unknown name 'sed'", "did you mean 'seed'?"]),
        ({"keyframes": 4}, ["'keyframes'", "did you mean 'key_frames'?"]),
        ({"zzz": 1}, ["'zzz'", "known are", "profile", "seed", "key_frames"]),
        ({"seed": "1"}, ["seed = '1'", "integer"]),
        ({"seed": 1.0}, ["seed = 1.0", "integer"]),
        ({"seed": True}, ["seed = True", "integer"]),
        ({"seed": None}, ["seed = None", "integer"]),
        ({"seed": math.nan}, ["seed = nan", "integer"]),
        ({"seed": -1}, ["seed = -1", "greater than or equal to 0"]),
        ({"seed": 2**31}, ["seed = 2147483648", "less than 2147483648"]),
        ({"key_frames": 0}, ["key_frames = 0", "greater than or equal to 1"]),
        ({"key_frames": 41}, ["key_frames = 41", "less than or equal to 40"]),
        ({"profile": "big"}, ["profile = 'big'", "'ci'", "'demo'", "'paper'"]),
        ({"profile": 3}, ["profile = 3", "'demo'"]),
        ({"device": "gpu"}, ["device = 'gpu'", "'cuda'"]),
        ({"corpus": "Demo"}, ["corpus = 'Demo'", "'demo-null'"]),
        ({"clips": 3, "corpus": "folder"}, ["clips = 3", "string"]),
        ({"dry": 1}, ["dry = 1", "boolean"]),
    ],
)
def test_each_mistake_is_told(given: dict, expected: list[str]) -> None:
    with pytest.raises(ParameterError) as caught:
        check(CHAPTER, given)
    message = str(caught.value)
    assert message.startswith(f"parameters of {CHAPTER}:\n  - ")
    for part in expected:
        assert part in message


@pytest.mark.parametrize("chapter", ON_CORPUS)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"corpus": "folder"}, ["clips=DIR", "labels=FILE.csv"]),
        ({"corpus": "folder", "clips": "a"}, ["needs both", "labels=FILE.csv"]),
        ({"corpus": "folder", "labels": "a.csv"}, ["needs both", "clips=DIR"]),
        ({"clips": "a"}, ["corpus='demo' renders its own clips and labels"]),
        ({"labels": "a.csv", "corpus": "demo-null"}, ["corpus='demo-null' renders its own clips and labels"]),
        ({"checkpoint": "a.pt"}, ['checkpoint belongs to corpus="folder"']),
        ({"strict": True, "corpus": "dcase2017"}, ['strict belongs to corpus="paired"']),
        ({"corpus": "paired", "checkpoint": "a.pt"}, ['checkpoint belongs to corpus="folder"']),
        ({"strict": True}, ['strict belongs to corpus="paired"']),
    ],
)
def test_a_corpus_takes_what_is_its_own_and_no_more(chapter: str, given: dict, expected: list[str]) -> None:
    with pytest.raises(ParameterError) as caught:
        check(chapter, given)
    assert all(part in str(caught.value) for part in expected)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ParameterError) as caught:
        check(CHAPTER, {"sed": 1, "profile": "big", "key_frames": 99})
    lines = str(caught.value).splitlines()
    assert len(lines) == 4 and all(line.startswith("  - ") for line in lines[1:])


@pytest.mark.parametrize("chapter", ON_CORPUS)
def test_each_corpus_takes_its_own_places(chapter: str) -> None:
    for given in (
        {"corpus": "demo-null"},
        {"corpus": "folder", "clips": "a", "labels": "b.csv", "checkpoint": "c.pt"},
        {"corpus": "paired"},
        {"corpus": "paired", "clips": "a", "labels": "m.csv", "strict": True},
        {"corpus": "dcase2017", "clips": "a", "labels": "lists"},
    ):
        assert check(chapter, given).model_dump().items() >= given.items()


def test_the_chapter_on_the_data_has_no_profile_of_a_paper() -> None:
    with pytest.raises(ParameterError, match="profile = 'paper'"):
        check("data", {"profile": "paper"})


def test_unknown_chapter() -> None:
    with pytest.raises(ParameterError, match="did you mean 'lightweight_fusion'"):
        check("lightweight-fusion", {})
    with pytest.raises(ParameterError, match="did you mean 'unsynchronized_mil'"):
        check("unsynchronised_mil", {})
    with pytest.raises(ParameterError, match="known are data, lightweight_fusion, unsynchronized_mil"):
        check("q", {})
    assert nearest("q", ["a", "b"]) == "; known are a, b"


@pytest.mark.parametrize("given", [{"sed": 1}, {"seed": "1"}, {"seed": -1}, {"corpus": "folder"}])
def test_a_mistake_ends_a_fresh_process_at_once(given: dict) -> None:
    """Imports included, in processor time, which other work on the machine does not stretch (much)."""
    code = (
        "import json, sys, time\n"
        "from avrepro.parameters import ParameterError, check\n"
        "try:\n"
        f"    check({CHAPTER!r}, json.loads({json.dumps(given)!r}))\n"
        "except ParameterError:\n"
        "    heavy = [name for name in ('torch', 'numpy', 'pandas', 'timm', 'papermill') if name in sys.modules]\n"
        "    print(json.dumps([heavy, time.process_time()]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    heavy, seconds = json.loads(done.stdout)
    assert heavy == []
    assert seconds < 1.5


def test_a_notebook_sees_what_papermill_injected() -> None:
    """The namespace of a notebook's kernel after its parameters cell: IPython's own names are no parameters."""
    namespace = {
        "__name__": "__main__", "__builtins__": {}, "_": "", "__": "", "_i": "x", "_ih": [""], "_oh": {},
        "_dh": ["/"], "In": [""], "Out": {}, "exit": object(), "quit": object(), "get_ipython": lambda: None,
        "open": open, "math": math, "types": types, "ParameterError": ParameterError,
        "check_notebook": check_notebook, "profile": "ci", "seed": 5,
    }  # fmt: skip
    found = check_notebook(CHAPTER, namespace)
    assert (found.profile, found.seed) == ("ci", 5)
    with pytest.raises(ParameterError, match=r"unknown name 'keyframes'; did you mean 'key_frames'\?"):
        check_notebook(CHAPTER, {**namespace, "keyframes": 4})
    with pytest.raises(ParameterError, match="seed = '5'"):
        check_notebook(CHAPTER, {**namespace, "seed": "5"})


def test_a_real_kernel_namespace() -> None:
    """IPython itself, as a kernel runs it: a right name passes, a mistyped one is seen."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    cells = ("import math", "profile = 'ci'", "seed = 7", "1 + 1", "from avrepro.parameters import check_notebook")
    for cell in cells:
        shell.run_cell(cell, store_history=True).raise_error()
    shell.run_cell(f"found = check_notebook({CHAPTER!r}, globals())", store_history=True).raise_error()
    assert shell.user_ns["found"].seed == 7
    shell.run_cell("del found; sede = 1", store_history=True).raise_error()
    with pytest.raises(ParameterError, match=r"'sede'; did you mean 'seed'\?"):
        shell.run_cell(f"check_notebook({CHAPTER!r}, globals())").raise_error()


def test_text_of_the_command_line() -> None:
    assert parse_value(CHAPTER, "seed", "3") == 3
    assert parse_value(CHAPTER, "seed", "three") == "three"  # check() then says what was expected
    assert parse_value(CHAPTER, "profile", "3") == "3"
    assert parse_value(CHAPTER, "clips", "a=b") == "a=b"
    assert parse_value(CHAPTER, "dry", "true") is True and parse_value(CHAPTER, "dry", "yes") == "yes"
    assert parse_value(CHAPTER, "unknown", "3") == "3"
    assert parse_value("no chapter", "seed", "3") == "3"
    for chapter, model in CHAPTERS.items():  # what the defaults say can be said on a command line
        for name, value in model().model_dump().items():
            assert parse_value(chapter, name, str(value)) == value


def test_parameters_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        check(CHAPTER, {}).seed = 1  # type: ignore[misc]


def test_side_by_side_has_no_corpus_of_its_own() -> None:
    assert check("side_by_side", {}).model_dump() == {"profile": "demo", "seed": 0, "device": "auto"}
    for given in ({"profile": "paper"}, {"corpus": "demo"}):
        with pytest.raises(ParameterError):
            check("side_by_side", given)
