"""Reproductions of three papers on weakly labelled audio-visual sound recognition.

The way through: corpus -> features -> model -> scores -> evaluation -> result -> book.
Importing this package is cheap: nothing heavy (torch, timm) loads before it is used.
"""

import os

# OpenMP's threads wait by sleeping, not by spinning: a processor shared with decoding threads or other programs
# then costs little, where spinning made networks ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
