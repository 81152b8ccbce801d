"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The folder of real recordings and published files, or a skip that says how to get it."""
    folder = os.environ.get("AVREPRO_MIRROR")
    if not folder:
        pytest.skip("AVREPRO_MIRROR is not set: checks against real recordings and published files are left out")
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        pytest.fail(f"AVREPRO_MIRROR names {path}, which is not a folder")
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread of torch: models as small as those of tests only lose by more, and much where the cores are busy."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One browser for all tests: a second one cannot be started beside it in this thread."""
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed: no page is opened (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def shown() -> Iterator[Callable[..., list[Any]]]:
    """Call a function and get what it displays."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()

    def call(function: Callable, *arguments: Any) -> list[Any]:
        with capture_output() as captured:
            function(*arguments)
        return captured.outputs

    yield call
    InteractiveShell.clear_instance()
