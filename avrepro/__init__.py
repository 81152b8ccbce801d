"""Reproductions of three papers on weakly labelled audio-visual sound recognition.

The way through: corpus -> features -> model -> scores -> evaluation -> result -> book.
Importing this package is cheap: nothing heavy (torch, timm) loads before it is used.
"""

import os

# OpenMP's threads wait by sleeping, not by spinning: a processor shared with decoding threads or other programs
# then costs little, where spinning made networks ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Networks on a CPU ask for and give back large blocks all the time. glibc would return each to the system and have it
# filled with zeros anew, a quarter of the time of small pictures; told so, it keeps them. Read when a process starts:
# it holds for the chapters' kernels and the rendering processes.
for _name, _megabytes in (("MMAP_THRESHOLD", 32), ("TRIM_THRESHOLD", 512), ("TOP_PAD", 64)):
    os.environ.setdefault(f"MALLOC_{_name}_", str(_megabytes * 2**20))

__version__ = "0.1.0"
