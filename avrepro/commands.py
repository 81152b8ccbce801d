"""How a command of the command line is declared: its help always ends with an example."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from typing import Any


def at_least_one(text: str) -> int:
    """A number of jobs or repetitions, for ``type`` of an argument."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


def add_command(
    commands: Any, name: str, text: str, example: str, function: Callable[[argparse.Namespace], None] | None = None
) -> argparse.ArgumentParser:
    """Add a command to what ``add_subparsers`` gave; ``function`` runs it, None where it has commands below it."""
    width = max(80, shutil.get_terminal_size().columns - 2)
    added: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=f"Example:\n  {example}",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=width),
    )
    if function is not None:
        added.set_defaults(command=function)
    return added
