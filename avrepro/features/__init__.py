"""What is computed of a clip before any model is trained."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avrepro.features.key_frames import select_key_frames, solve_ds3
    from avrepro.features.logmel import LogMel
    from avrepro.features.photographs import events_seen

__all__ = ["LogMel", "events_seen", "select_key_frames", "solve_ds3"]

# Found when first asked for: whoever wants only words or a cache must not pay for torch.
_HOMES = {
    "LogMel": "logmel", "events_seen": "photographs", "select_key_frames": "key_frames", "solve_ds3": "key_frames",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
