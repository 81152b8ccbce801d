"""Own clips that the models of Fayek and Kumar (2020) score without being trained on them."""

from __future__ import annotations

import numpy as np

from avrepro.experiments.fayek2020 import Inputs, Systems
from avrepro.models.fayek2020 import FUSIONS
from avrepro.report import show_table
from avrepro.report.fayek2020 import SYSTEMS

SHOWN = 3  # classes of a clip


def own_clips_table(inputs: Inputs, systems: Systems) -> None:
    """Own clips scored by a checkpoint: what is heard, seen and made of both, and whom attention believes."""
    if inputs.trains:
        return
    chosen = inputs.parameters.system
    fusion = chosen if chosen in FUSIONS and chosen in systems.scores else "attention"
    rows = []
    for row, clip in enumerate(inputs.corpus.clips):
        said = [_likeliest(systems.scores[name][row], systems.classes) for name in ("audio", "visual", fusion)]
        first = int(systems.scores[fusion][row].argmax())
        weight = f"{systems.weights[fusion][row, first]:.2f}" if fusion in systems.weights else "no weights"
        rows.append([clip.id, "; ".join(clip.labels), *said, weight])
    show_table(
        ["clip", "its labels", "heard", "seen", SYSTEMS[fusion], "weight of sound for the first of these"],
        rows,
        f"{len(rows)} own clips scored by the checkpoint {systems.models.visual.path.name}: the likeliest classes with "
        "their probabilities, and how far attention believes sound (0 to 1, the rest is for pictures). Nothing was "
        f"trained on them. It knows {len(systems.classes)} classes of its own: labels outside them cannot be found.",
    )
    if inputs.corpus.missing:
        left_out = [[clip.id, clip.reason] for clip in inputs.corpus.missing]
        show_table(["clip", "reason"], left_out, "Clips that could not be used.")


def _likeliest(scores: np.ndarray, classes: tuple[str, ...]) -> str:
    top = np.argsort(-scores, kind="stable")[:SHOWN]
    return "; ".join(f"{classes[k]} ({scores[k]:.2f})" for k in top)
