"""One file a paper: networks, losses, equations. Pretrained networks are in :mod:`avrepro.backbones`."""

from avrepro.backbones.yamnet import YAMNet

__all__ = ["YAMNet"]
