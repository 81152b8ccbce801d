"""What is installed is what is declared and locked, and the notebooks are kept as a reader wants to find them."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from avrepro.parameters import CHAPTERS

ROOT = Path(__file__).resolve().parents[1]
PINNED = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def locked() -> dict[str, list[tuple[str, int]]]:
    """Distribution -> (version, number of hashes) of each of its entries in the lock."""
    entries: dict[str, list[tuple[str, int]]] = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", (ROOT / "requirements.lock").read_text(encoding="utf-8")):
        if match := PINNED.match(block):
            hashes = len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", block))
            entries.setdefault(canonicalize_name(match[1]), []).append((match[2], hashes))
    return entries


def dependencies(project: dict[str, Any], *extras: str) -> list[Requirement]:
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    return [Requirement(text) for text in texts]


def test_every_dependency_is_locked_with_hashes(project: dict[str, Any], locked: dict) -> None:
    for wanted in dependencies(project, "dev"):
        found = locked.get(canonicalize_name(wanted.name))
        assert found, f"{wanted.name}: not in requirements.lock; run make lock"
        for version, _ in found:
            assert wanted.specifier.contains(version), f"{wanted}: locked is {version}"
    bare = [name for name, found in locked.items() for _, hashes in found if hashes == 0]
    assert not bare, f"locked without a hash: {bare}"


def test_conda_users_get_the_locked_versions(project: dict[str, Any], locked: dict) -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    lines = next(part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    assert lines[-1] == "-e ."
    pins = dict(line.split("==") for line in lines[:-1])
    direct = [canonicalize_name(wanted.name) for wanted in dependencies(project)]
    assert {name: [pins.get(name)] for name in direct} == {name: [one for one, _ in locked[name]] for name in direct}
    assert set(pins) == set(direct), "the pip section names the direct dependencies of pyproject.toml"


def test_what_the_package_imports_is_declared(project: dict[str, Any]) -> None:
    declared = {canonicalize_name(wanted.name) for wanted in dependencies(project, "clips")}
    providers = importlib.metadata.packages_distributions()
    undeclared = {}
    for path in sorted((ROOT / "avrepro").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for module in {name.split(".")[0] for name in names} - {"avrepro", *sys.stdlib_module_names}:
                if not {canonicalize_name(name) for name in providers.get(module, [])} & declared:
                    undeclared[f"{path.relative_to(ROOT)}: {module}"] = providers.get(module, "not installed")
    assert not undeclared


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_notebooks_are_committed_clean_and_check_their_parameters(chapter: str) -> None:
    notebook = nbformat.read(ROOT / "book" / f"{chapter}.ipynb", as_version=4)
    nbformat.validate(notebook)
    for number, cell in enumerate(notebook.cells):
        assert not cell.get("outputs"), f"cell {number} has outputs; clear them before committing"
        assert cell.get("execution_count") is None, f"cell {number} has an execution count"
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    (tagged,) = (number for number, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", []))
    assert "check_notebook(" in cells[tagged + 1].source, "check_notebook belongs right after the parameters"
    given = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cells[tagged].source).body}  # type: ignore[attr-defined]
    assert given == {name: field.default for name, field in CHAPTERS[chapter].model_fields.items()}
    assert cells[tagged].metadata["nbmake"] == {"mock": {"profile": "ci"}}, "under test, the smallest profile"
