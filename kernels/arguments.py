"""The arguments of a call, whatever operation it is: valid, cast, watched, known again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from kernels.implementation import Arguments, KernelError

CASTABLE = (torch.float32, torch.float16, torch.bfloat16)


def check_tensors(operation: str, names: Sequence[str], arguments: Arguments) -> None:
    """Raises TypeError or KernelError unless the tensors are floating-point numbers of one type on
    one device; None stands for one that is left out."""
    first = arguments[0]
    for name, tensor in zip(names, arguments, strict=False):
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{operation}: {name} is {tensor!r}; valid is a tensor")
        if not tensor.is_floating_point():
            raise TypeError(
                f"{operation}: {name} is of {tensor.dtype}; valid are floating-point numbers: "
                "float32, bfloat16, float16 and float64"
            )
        if tensor.dtype != first.dtype:
            raise TypeError(
                f"{operation}: {name} is of {tensor.dtype} and {names[0]} of {first.dtype}; "
                "valid is one type for all"
            )
        if tensor.device != first.device:
            raise KernelError(
                f"{operation}: {name} is on {tensor.device} and {names[0]} on {first.device}; "
                "valid is one device for all"
            )


def autocast(x: Any) -> str:
    """The type of device if autocast is on there, nothing if not."""
    kind = x.device.type if isinstance(x, Tensor) else ""
    return kind if kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind) else ""


def cast(arguments: Arguments, exact: bool) -> Arguments:
    """Under autocast: all in its precision, or in float32 where the operation is exact."""
    if not (kind := autocast(arguments[0])):
        return arguments
    wanted = torch.float32 if exact else torch.get_autocast_dtype(kind)
    return tuple(
        a.to(wanted) if isinstance(a, Tensor) and a.dtype in CASTABLE else a for a in arguments
    )


def is_traced(x: Any) -> bool:
    """Whether somebody watches the calls, so that they have to be operators of torch."""
    return isinstance(x, Tensor) and (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or x.is_meta
        or type(x) not in (Tensor, torch.nn.Parameter)
    )


def hashable(value: Any) -> Any:
    """A list of numbers, as a torch schema gives it, as a tuple."""
    return tuple(value) if isinstance(value, list) else value


def signature(arguments: Iterable[Any]) -> tuple[Any, ...]:
    """What a plan depends on: shapes, strides, types and devices, and the numbers themselves."""
    return tuple(
        (a.shape, a.stride(), a.dtype, a.device) if isinstance(a, Tensor) else a for a in arguments
    )


def count(operator: Any, composed: Callable[..., Tensor]) -> None:
    """Let torch's flop counter see a call (*arguments, backend) of the operator as `composed`."""
    from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

    def formula(*arguments: Any, out_val: Any = None, **_: Any) -> int:
        *given, _backend = arguments
        like = [
            torch.empty_like(a, device="meta") if isinstance(a, Tensor) else hashable(a)
            for a in given
        ]
        with FlopCounterMode(display=False) as counter:
            composed(*like)
        return int(counter.get_total_flops())

    register_flop_formula(operator, get_raw=True)(formula)
