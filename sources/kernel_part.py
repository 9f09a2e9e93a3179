"""Compiled functions that only kernels call."""

from collections.abc import Callable
from typing import Any

from transforms.kernel import kernel


def kernel_part(function: Callable[..., Any]) -> Any:
    """Compiles a function for kernels alone: without the two entry points for Python and C that each kernel has.

    They are a third of the time that a kernel of ten lines takes to compile. Python must not call the result.
    """
    dispatcher = kernel(function)
    dispatcher.targetoptions.update(no_cpython_wrapper=True, no_cfunc_wrapper=True)
    return dispatcher
