"""Reproductions of three papers on weakly labelled audio-visual sound recognition.

The way through: corpus -> features -> model -> scores -> evaluation -> result -> book.
Importing this package is cheap: nothing heavy (torch, timm) loads before it is used.
"""

__version__ = "0.1.0"
