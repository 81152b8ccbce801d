"""What a system costs: multiply-accumulates, memory, and energy where the machine tells."""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

POWERCAP = Path("/sys/class/powercap")
STATUS = Path("/proc/self/status")
READ_EVERY = 60.0  # s; a counter of 262 kJ, Intel's usual range, wraps around in no less than minutes


def multiply_accumulates(function: Callable[..., object], *inputs: object) -> int:
    """Multiply-accumulates of one call of ``function``, without gradients; divide by its clips for those of one clip.

    Half the FLOPs of torch's counter, which knows matrix products and convolutions, without their biases. Attention and
    GRUs are counted, as the matrix products they are made of. Not counted: LSTMs, products with a vector (dot,
    mv, and matmul that comes to these), all that works by element (activations, norms, gates, weighted sums written as
    products and sums), pooling, softmax, Fourier transforms, and whatever is not torch.
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
    """The most memory this process has held since it started, MiB, without what is on a GPU.

    It never falls: to compare systems, measure each in a process of its own.
    """
    # Linux's own record, where there is one: getrusage also has what the parent held as it started this process.
    if STATUS.exists():
        peak = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1024**2 if sys.platform == "darwin" else 1024)  # macOS tells bytes, others KiB


class Energy:
    """``with Energy() as energy: ...``: what processors and memory took meanwhile, by Intel's counters (RAPL).

    It is the whole machine's, other programs' too, without disks and fans. A GPU's energy is not read; where this
    process has used one, there is no number.

    :ivar joules: None where it could not be read; then ``reason`` says why.
    :ivar reason: "" where it could be read.
    """

    joules: float | None
    reason: str

    def __init__(self, folder: Path = POWERCAP) -> None:
        """:param folder: of the Linux powercap framework: intel-rapl:*/{name, energy_uj, max_energy_range_uj}."""
        self._folder = folder
        self.joules, self.reason = None, "nothing was measured yet"
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Energy:
        self.joules, self.reason, self._taken, self._reader = None, "", 0, None
        try:
            self._last = {zone: _reading(zone)[0] for zone in _zones(self._folder)}
        except (OSError, ValueError) as error:
            self.reason = f"the energy counter cannot be read: {error}"
            return self
        if not self._last:
            self.reason = f"no energy counter of processor or memory in {self._folder}"
            return self
        # A long training is read in between, so that no wrap-around of a counter is missed.
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._keep_reading, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is None:
            return
        self._ended.set()
        self._reader.join()
        self._read()
        if torch.cuda.is_initialized():
            self.reason = "a GPU was used, and its energy is not read"
        self.joules = None if self.reason else self._taken / 1e6

    def _keep_reading(self) -> None:
        while not self._ended.wait(READ_EVERY):
            self._read()

    def _read(self) -> None:
        try:
            for zone, last in self._last.items():
                now, span = _reading(zone)
                self._taken += now - last if now >= last else now - last + span
                self._last[zone] = now
        except (OSError, ValueError) as error:
            self.reason = f"the energy counter cannot be read: {error}"


def _zones(folder: Path) -> list[Path]:
    """Packages and memory: cores are part of their package, and "psys" holds the packages once more."""
    return [
        zone
        for zone in sorted(folder.glob("intel-rapl:*"))
        if (zone / "name").read_text().strip().startswith(("package", "dram"))
    ]


def _reading(zone: Path) -> tuple[int, int]:
    """What the counter says and at how much it wraps around, µJ."""
    return int((zone / "energy_uj").read_text()), int((zone / "max_energy_range_uj").read_text())
