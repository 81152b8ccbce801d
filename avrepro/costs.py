"""What a system costs: parameters, multiply-accumulates and seconds.

Costs are of the whole way from a clip's file to its scores: decoding, key frames, boxes, frozen networks and the
systems that it uses, not only of its own network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from timeit import repeat

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from avrepro.corpora.base import CorpusError
from avrepro.protocol import Fitted, scores
from avrepro.systems import Data

REPEATS = 3  # timed calls; the fastest counts, since other programs only make a call slower


def costs_of(fitted: Fitted, data: Data) -> dict[str, float]:
    """Costs of a trained system, by metric: of its trainings, and of scoring the first test clip by itself.

    :raises CorpusError: there is no test clip.
    """
    clip = replace(data.corpus, clips=data.corpus.split("test").clips[:1])
    if not clip.clips:
        raise CorpusError(f"{clip.name}: costs are those of scoring a test clip, and there is none")

    def infer() -> None:
        scores(fitted, Data(clip, data.condition, data.device, fresh=True))

    return {
        "parameters": fitted.parameters,
        "training_seconds": fitted.seconds,  # features being at hand
        "macs": multiply_accumulates(infer),  # loads the networks, too
        "inference_seconds": min(repeat(infer, number=1, repeat=REPEATS)),
    }


def multiply_accumulates(function: Callable[..., object], *inputs: object) -> int:
    """Multiply-accumulates of one call of ``function``, without gradients.

    Half the FLOPs of torch's counter, which knows matrix products and convolutions, without their biases. Attention and
    GRUs are counted as the matrix products they are made of. Not counted: LSTMs, products with a vector, elementwise
    operations (activations, norms, gates), pooling, softmax, Fourier transforms, and whatever is not torch.
    """
    counter = FlopCounterMode(display=False)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # Fused kernels hide their products from the counter: attention's, and cuDNN's of GRUs.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
            function(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return counter.get_total_flops() // 2
