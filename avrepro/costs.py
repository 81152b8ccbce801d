"""What a system costs: parameters, multiply-accumulates, seconds, memory, and energy where the machine reports it.

Costs are of the whole way from a clip's file to its scores: decoding, key frames, boxes, frozen networks and the
systems that it uses, not only of its own network.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from avrepro.corpora.base import CorpusError
from avrepro.protocol import Fitted, scores
from avrepro.results import Run
from avrepro.systems import Data

REPEATS = 3  # timed calls; the fastest counts, since other programs only make a call slower
POWERCAP = Path("/sys/class/powercap")
STATUS = Path("/proc/self/status")


def add_costs(run: Run, name: str, costs: dict[str, float]) -> None:
    """Note the costs of a system, one row each."""
    for metric, value in costs.items():
        run.add(name, metric, value)


def costs_of(fitted: Fitted, data: Data) -> dict[str, float]:
    """Costs of a trained system, by metric.

    - ``parameters``: that were trained, those of the systems that it uses included
    - ``training_seconds``: of all its trainings, features being at hand; as timed when it was trained
    - ``macs``: multiply-accumulates of one clip, see :func:`multiply_accumulates`
    - ``inference_seconds``: of the same clip by itself
    - ``peak_memory_mb``: MiB, of this process up to now; comparable only if each system has a process of its own
    - ``energy_joules``: of scoring that clip, where it can be read

    :param data: the clips; the first test clip is scored. :raises CorpusError: there is none.
    """
    clip = replace(data.corpus, clips=data.corpus.split("test").clips[:1])
    if not clip.clips:
        raise CorpusError(f"{clip.name}: costs are those of scoring a test clip, and there is none")

    def infer() -> None:
        scores(fitted, Data(clip, data.condition, data.device, fresh=True))

    macs = multiply_accumulates(infer)  # loads the networks, too
    seconds = []
    with Energy() as energy:
        for _ in range(REPEATS):
            start = time.perf_counter()
            infer()
            seconds.append(time.perf_counter() - start)
    costs = {
        "parameters": fitted.parameters,
        "training_seconds": fitted.seconds,
        "macs": macs,
        "inference_seconds": min(seconds),
        "peak_memory_mb": peak_memory_mb(),
    }
    return costs if energy.joules is None else costs | {"energy_joules": energy.joules / REPEATS}


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


def peak_memory_mb() -> float:
    """The most memory that this process has held since it started, MiB, without what is on a GPU."""
    # Linux's own record, where there is one: getrusage includes what the parent held when it started this process.
    if STATUS.exists():
        peak = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1024**2 if sys.platform == "darwin" else 1024)  # bytes on macOS, KiB elsewhere


class Energy:
    """``with Energy() as energy: ...``: joules of processor packages and memory meanwhile, by Intel's counters (RAPL).

    They count the whole machine, other programs included. ``joules`` is None where they cannot be read, and where this
    process uses a GPU, whose energy they do not count. A counter wraps around after minutes; seconds can be measured.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        """:param folder: of Linux's powercap framework: intel-rapl:*/{name, energy_uj, max_energy_range_uj}."""
        self._folder = folder
        self.joules: float | None = None

    def __enter__(self) -> Energy:
        self._start = self._read()
        return self

    def __exit__(self, *error: object) -> None:
        end = self._read()
        if self._start and set(self._start) == set(end) and not torch.cuda.is_initialized():
            spent = ((end[zone][0] - start) % span for zone, (start, span) in self._start.items())
            self.joules = sum(spent) / 1e6

    def _read(self) -> dict[str, tuple[int, int]]:
        """Counter and the value at which it wraps around, µJ, by zone; {} where one cannot be read."""
        try:
            return {
                zone.name: (int((zone / "energy_uj").read_text()), int((zone / "max_energy_range_uj").read_text()))
                for zone in self._folder.glob("intel-rapl:*")
                # cores are part of their package, and "psys" holds the packages once more
                if (zone / "name").read_text().startswith(("package", "dram"))
            }
        except (OSError, ValueError):
            return {}
