"""Recipes: what makes a number stale and what does not, and that versions are raised when outputs change."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fingerprints

from avrepro import backbones, checkout, protocol
from avrepro.conditions import Condition
from avrepro.recipes import Recipe
from avrepro.systems import SYSTEMS

CONDITION = Condition(profile="ci")
KEYS = """
import json
from avrepro.conditions import Condition
from avrepro.protocol import checkpoint_path
from avrepro.systems import SYSTEMS
print(json.dumps({name: checkpoint_path(name, Condition(profile="ci")).name for name in SYSTEMS}))
"""


def test_a_key_is_of_all_that_is_in_a_recipe() -> None:
    part = Recipe("part", 1, {"a": 1})
    whole = Recipe("whole", 3, {"x": [1, 2], "y": None}, (part,), "abc")
    assert whole.key == Recipe("whole", 3, {"y": None, "x": [1, 2]}, (Recipe("part", 1, {"a": 1}),), "abc").key
    changes = {"name": "hole", "version": 4, "settings": {"x": [1, 2]}, "parts": (Recipe("part", 2),), "data": "abd"}
    others = [replace(whole, **{name: value}) for name, value in changes.items()]
    assert len({one.key for one in (whole, *others)}) == 6
    assert whole.versions == {"part": 1, "whole": 3}


def test_comments_names_and_places_of_functions_make_nothing_stale(tmp_path: Path) -> None:
    """A copy of the package with a comment in every file and a renamed function finds the same checkpoints."""
    shutil.copytree(checkout.PACKAGE, tmp_path / "avrepro", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(checkout.ROOT / "data_manifests", tmp_path / "data_manifests")
    for path in (tmp_path / "avrepro").rglob("*.py"):
        path.write_text(path.read_text() + "\n# A better comment.\n")
    training = tmp_path / "avrepro" / "training.py"
    training.write_text(training.read_text().replace("_take(", "_batch_of("))
    found = []
    for folder in (checkout.ROOT, tmp_path):
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        command = [sys.executable, "-P", "-c", KEYS]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=300)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert found[0] == found[1] and len(set(found[0].values())) == len(SYSTEMS)


def keys() -> dict[str, str]:
    return {name: protocol.recipe_of(name, CONDITION).key for name in SYSTEMS}


def using(name: str) -> set[str]:
    """A system and all that build on it."""
    return {name} | {other for one in SYSTEMS.values() if name in one.uses for other in using(one.name)}


def test_a_raised_version_makes_what_depends_on_it_stale_and_nothing_else(monkeypatch) -> None:
    before = keys()
    changed_class = type(SYSTEMS["fayek2020/visual"])
    monkeypatch.setattr(changed_class, "version", changed_class.version + 1)
    after = keys()
    changed = {one for one in SYSTEMS if before[one] != after[one]}
    alike = {one for one in SYSTEMS if type(SYSTEMS[one]) is changed_class}
    assert changed == set().union(*(using(one) for one in alike)) and changed != set(SYSTEMS)


def test_a_raised_backbone_makes_what_uses_it_stale(monkeypatch) -> None:
    before = keys()
    version, sources = backbones.NETWORKS["yamnet"]
    monkeypatch.setitem(backbones.NETWORKS, "yamnet", (version + 1, sources))
    backbones.recipe.cache_clear()
    try:
        changed = {name for name, key in keys().items() if key != before[name]}
    finally:
        backbones.recipe.cache_clear()
    assert {"parekh2018/two_stream", "parekh2018/audio_only", "beyond/bottleneck"} <= changed
    assert not changed & {"parekh2018/video_only", "li2017/fused", "fayek2020/attention"}


def test_outputs_change_only_with_a_version() -> None:
    """Every recipe on its tiny input, against the committed numbers; a failure names the recipes."""
    committed = json.loads(fingerprints.FILE.read_text())
    assert fingerprints.differing(fingerprints.compute(), committed) == []


def test_a_changed_constant_is_noticed(monkeypatch) -> None:
    """The floor of a front end, changed: its recipe is named, and no other feature's."""
    from avrepro.features.logmel import LogMel
    from avrepro.systems import li2017

    front_end = LogMel.li2017()
    front_end.floor *= 10
    monkeypatch.setattr(LogMel, "li2017", classmethod(lambda cls: front_end))
    feature = li2017.ROWS[0].features(CONDITION)["log_mel"]
    committed = json.loads(fingerprints.FILE.read_text())
    name = next(name for name in committed if name.startswith("log-mel/li2017"))
    found = committed | {name: fingerprints.of_feature(feature)}
    assert fingerprints.differing(found, committed) == [
        f"{name}: other numbers under version 1: raise the version of this recipe"
    ]
