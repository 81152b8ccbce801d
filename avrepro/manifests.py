"""Where the data manifests lie."""

from __future__ import annotations

from pathlib import Path


def manifest_path(name: str) -> Path:
    """The file ``name`` in the checkout's ``data_manifests`` folder, for example ``demo_world.yaml``.

    Raises FileNotFoundError if it is not there.
    """
    path = Path(__file__).resolve().parents[1] / "data_manifests" / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; install avrepro from its checkout with pip install -e .")
    return path
