"""One file a paper, and the pretrained networks, a file each."""

from avrepro.models.yamnet import YAMNet

__all__ = ["YAMNet"]
