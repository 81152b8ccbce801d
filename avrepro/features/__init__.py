"""What is computed of a clip before any model is trained."""

from avrepro.features.key_frames import select_key_frames, solve_ds3
from avrepro.features.logmel import LogMel

__all__ = ["LogMel", "select_key_frames", "solve_ds3"]
