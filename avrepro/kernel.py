"""The kernel that a chapter runs in: this very interpreter, whatever kernels the machine has besides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

# Without these the debugger, which nobody uses here, writes warnings about modules that it cannot see.
PYTHON_ARGUMENTS, ENVIRONMENT = ["-Xfrozen_modules=off"], {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def kernel_manager(environment: Mapping[str, str], stderr: IO[bytes]) -> type[AsyncKernelManager]:
    """A kernel manager for papermill, which knows one kernel, whatever its name.

    :param environment: variables of the kernel besides those of this process.
    :param stderr: where the kernel writes what is not the notebook's own output: why it did not start or died.
    """

    class ThisInterpreter(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            known = get_kernel_dict(python_arguments=PYTHON_ARGUMENTS)
            return KernelSpec(**known, env=ENVIRONMENT | dict(environment))

        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            await super().start_kernel(stderr=stderr, **options)

    return ThisInterpreter


def last_line(stderr: IO[bytes]) -> str:
    """The last line that a kernel wrote besides warnings, which may say why it died; empty where there is none."""
    stderr.seek(0)
    lines = [line.strip() for line in stderr.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line and "] WARNING |" not in line), "")
