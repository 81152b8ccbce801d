"""What is computed of a clip before any model is trained."""

from avrepro.features.key_frames import select_key_frames, solve_ds3
from avrepro.features.logmel import LogMel
from avrepro.features.objects import events_seen

__all__ = ["LogMel", "events_seen", "select_key_frames", "solve_ds3"]
