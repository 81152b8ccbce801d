"""One file a chapter: what its notebook calls, from the corpus to the results."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from avrepro.parameters import ParameterError

MODULES = {
    "data": "data",
    "lightweight_fusion": "li2017",
    "unsynchronized_mil": "parekh2018",
    "attention_fusion": "fayek2020",
}


def load_inputs(chapter: str, parameters: Any) -> Any:
    """Corpus and frozen features of a chapter, by its name; heavy modules load only now.

    :raises ParameterError: the chapter shows what others have measured, and has none.
    """
    if chapter not in MODULES:
        raise ParameterError(f"{chapter} has no features of its own; chapters that have some: {', '.join(MODULES)}")
    return import_module(f"avrepro.experiments.{MODULES[chapter]}").load_inputs(parameters)
