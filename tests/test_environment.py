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
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from avrepro.parameters import CHAPTERS

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
EACH_NOTEBOOK = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
PINNED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)\s*(?:;\s*(?P<marker>[^\\]*))?")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def locked() -> dict[str, list[tuple[str, int]]]:
    """Distribution -> (version, number of hashes) of each of its entries in the lock."""
    entries: dict[str, list[tuple[str, int]]] = {}
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        if match := PINNED.match(block):
            hashes = len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", block))
            entries.setdefault(canonicalize_name(match["name"]), []).append((match["version"], hashes))
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


def test_the_pythons_are_3_11_and_3_12(project: dict[str, Any]) -> None:
    allowed = SpecifierSet(project["requires-python"])
    assert [minor for minor in range(8, 16) if allowed.contains(f"3.{minor}.4")] == [11, 12]
    assert allowed.contains(".".join(map(str, sys.version_info[:3])))


def test_conda_users_get_the_locked_versions(project: dict[str, Any], locked: dict) -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == "avrepro"
    parts = environment["dependencies"]
    python = next(part for part in parts if isinstance(part, str) and part.startswith("python"))
    assert SpecifierSet(project["requires-python"]).contains(python.split("=")[-1] + ".0")
    lines = next(part["pip"] for part in parts if isinstance(part, dict))
    assert lines[-1] == "-e ."
    pins = dict(line.split("==") for line in lines[:-1])
    direct = [canonicalize_name(wanted.name) for wanted in dependencies(project)]
    assert sorted(pins) == sorted(direct), "the pip section names the direct dependencies of pyproject.toml"
    assert pins == {name: locked[name][0][0] for name in direct}
    forked = [name for name in direct if len(locked[name]) > 1]
    assert not forked, f"{forked}: locked in several versions, which environment.yml cannot say"


def test_what_the_package_imports_is_declared(project: dict[str, Any]) -> None:
    declared = {canonicalize_name(wanted.name) for wanted in dependencies(project, "clips")}
    providers = importlib.metadata.packages_distributions()
    undeclared = {}
    for path in sorted((ROOT / "avrepro").rglob("*.py")):
        for module in imported_modules(ast.parse(path.read_text(encoding="utf-8"))):
            if module == "avrepro" or module in sys.stdlib_module_names:
                continue
            if not {canonicalize_name(name) for name in providers.get(module, [])} & declared:
                undeclared[f"{path.relative_to(ROOT)}: {module}"] = providers.get(module, "not installed")
    assert not undeclared


def imported_modules(tree: ast.AST) -> set[str]:
    """Top-level names of all absolute imports, those inside functions too."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def test_every_folder_of_modules_is_a_package() -> None:
    """Setuptools finds packages by their __init__.py; a folder without one would be left out of an installation."""
    folders = {path.parent for path in (ROOT / "avrepro").rglob("*.py")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_each_chapter_has_its_notebook() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(CHAPTERS)


@EACH_NOTEBOOK
def test_notebooks_are_committed_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for number, cell in enumerate(notebook.cells):
        assert not cell.get("outputs"), f"cell {number} has outputs; clear them before committing"
        assert cell.get("execution_count") is None, f"cell {number} has an execution count"
        assert "papermill" not in cell.metadata
        for node in ast.walk(ast.parse(cell.source)) if cell.cell_type == "code" else ():
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                assert lines <= 10, f"cell {number}: {node.name} has {lines} lines; put it into avrepro"


@EACH_NOTEBOOK
def test_a_chapter_has_one_cell_of_parameters_and_checks_it(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    (tagged,) = (number for number, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", []))
    assert "check_notebook(" in cells[tagged + 1].source, "check_notebook belongs right after the parameters"
    given = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cells[tagged].source).body}  # type: ignore[attr-defined]
    assert given == {name: field.default for name, field in CHAPTERS[path.stem].model_fields.items()}
    assert cells[tagged].metadata["nbmake"] == {"mock": {"profile": "ci"}}, "under test, the smallest profile"
