"""One operator of torch with several implementations behind it.

    lean(x, ...)  ->  checks  ->  choice of an implementation  ->  forward, later backward

An `Operation` owns a custom operator `leanfield::<name>` with fake, autograd, autocast and device
kernels, so that torch.compile, opcheck and autocast work. Called eagerly it takes a shorter way to
the same implementations: a custom operator costs 25 us more a call, as much as a small convolution.
Where plain torch is chosen, torch's own autograd runs, to any order.

An implementation is asked first (`why_not`) and never replaced in silence: with "auto" the next one
serves and the reason is kept (`choice.record`); asked for by name it is an error before any launch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels import choice
from kernels.arguments import (
    autocast,
    cast,
    check_tensors,
    count,
    hashable,
    is_traced,
    signature,
)
from kernels.backends import require
from kernels.implementation import Arguments, Gradients, Implementation, KernelError, Plan
from kernels.layout import described, is_last, same_layout, strides

__all__ = ["Gradients", "Implementation", "KernelError", "Operation", "defined_by"]

PLANS = 4096
"""Calls of different shape that are remembered; beyond it all are planned anew."""


class Operation:
    """A torch operator: what it computes, what it takes, and who computes it.

    composed(*arguments): the definition in plain torch, always the last implementation, "torch".
    tensors: their names in order, with "?" those that may be None. numbers: the other arguments as
    a torch schema has them. check(*arguments) raises KernelError for a call without a meaning.
    shape(*arguments): of the result. added: a tensor that is merely added to the result.
    exact: float32 under autocast, where a lower precision makes no sense.
    """

    def __init__(
        self,
        name: str,
        composed: Callable[..., Tensor],
        tensors: Sequence[str],
        numbers: Sequence[str],
        check: Callable[..., None],
        shape: Callable[..., Sequence[int]],
        implementations: Sequence[Implementation] = (),
        added: str = "",
        exact: bool = False,
    ) -> None:
        self.name, self.composed, self.check, self.shape = name, composed, check, shape
        self.tensors = [tensor.rstrip("?") for tensor in tensors]
        self.added = self.tensors.index(added) if added else -1
        self.exact = exact
        ways = (*implementations, Implementation("torch", composed))
        self.implementations = {way.name: way for way in ways}
        self._plans: dict[Any, Plan] = {}
        typed = [f"Tensor{'?' * (t[-1] == '?')} {t.rstrip('?')}" for t in tensors]
        self._declare(", ".join([*typed, *numbers, "str backend"]))

    def __call__(self, *arguments: Any, backend: str = "auto", out: Tensor | None = None) -> Tensor:
        """The result, in `out` where given, which takes no part in a gradient.

        Raises KernelError, TypeError and MissingComponentError before anything is computed.
        """
        if self.exact and (kind := autocast(arguments[0])):
            arguments = cast(arguments, self.exact)
            with torch.autocast(kind, enabled=False):
                return self(*arguments, backend=backend, out=out)
        arguments = cast(arguments, self.exact)
        if backend == "auto":
            backend = choice.backend()
        if is_traced(arguments[0]):
            self._valid(arguments)
            y: Tensor = self.operator(*arguments, backend)
            return y if out is None else out.copy_(y)
        plan = self.plan(arguments, backend)
        if out is not None:
            return self._into(out, plan, arguments)
        if plan.forward.backward is not None and torch.is_grad_enabled():
            given = arguments[: len(self.tensors)]
            if any(t is not None and t.requires_grad for t in given):
                return _Applied.apply(*arguments, self, plan)  # type: ignore[no-untyped-call]
        return plan.forward.forward(*arguments)

    def _into(self, out: Tensor, plan: Plan, arguments: Arguments) -> Tensor:
        x, size = arguments[0], tuple(self.shape(*arguments))
        if tuple(out.shape) != size or out.dtype != x.dtype or out.device != x.device:
            raise KernelError(
                f"{self.name}: out is {described(out)}; valid is {size} of {x.dtype} on {x.device}"
            )
        given = [t for t in arguments[: len(self.tensors)] if t is not None]
        if torch.is_grad_enabled() and any(t.requires_grad for t in (*given, out)):
            raise KernelError(f"{self.name}: out= takes no part in gradients; use torch.no_grad()")
        storage = out.untyped_storage().data_ptr()
        if out.numel() and any(t.untyped_storage().data_ptr() == storage for t in given):
            raise KernelError(f"{self.name}: out shares memory with an input; give it its own")
        if plan.forward.writes and same_layout(size, out.stride(), strides(size, is_last(x))):
            return plan.forward.forward(*arguments, into=out)
        return out.copy_(plan.forward.forward(*arguments))

    # ---- who serves --------------------------------------------------------------------------

    def plan(self, arguments: Arguments, backend: str) -> Plan:
        """Checked, and with an implementation chosen; an equal call is not looked at twice."""
        key = (backend, choice.version(), torch.get_num_threads(), signature(arguments))
        if (found := self._plans.get(key)) is None:
            self._valid(arguments)
            if len(self._plans) >= PLANS:
                self._plans.clear()
            able = self.able(arguments, backend)
            found = self._plans[key] = Plan(self.name, able, arguments)
            choice.serve(self.name, found.forward.name)
        return found

    def able(self, arguments: Arguments, backend: str = "auto") -> list[Implementation]:
        """Those that can serve a call, the likely best first.

        Raises KernelError where the one asked for cannot, MissingComponentError where the device's
        own could but for something that is not installed.
        """
        device = arguments[0].device
        if backend != "auto" and backend not in self.implementations:
            raise KernelError(
                f"{self.name}: unknown back end {backend!r}; valid are auto, "
                f"{', '.join(self.implementations)}"
            )
        found = []
        for way in self.implementations.values():
            reason = way.refusal(device, arguments)
            if reason is None and backend in ("auto", way.name):
                if way.component:
                    require(way.component)
                found.append(way)
            elif reason is not None and backend == way.name:
                others = (
                    other.name
                    for other in self.implementations.values()
                    if other.refusal(device, arguments) is None
                )
                raise KernelError(f"{self.name}: {reason}; valid here: {', '.join(others)}")
            elif reason is not None and device.type in way.devices:
                choice.pass_over(self.name, way.name, reason)
        return found

    def _valid(self, arguments: Arguments) -> None:
        check_tensors(self.name, self.tensors, arguments)
        self.check(*arguments)

    # ---- the operator of torch ---------------------------------------------------------------

    def _declare(self, signature: str) -> None:
        """leanfield::<name> and leanfield::<name>_backward."""
        name, library = f"leanfield::{self.name}", torch.library
        forward = library.custom_op(
            name, self._forward, mutates_args=(), schema=f"({signature}) -> Tensor"
        )
        backward = library.custom_op(
            f"{name}_backward",
            self._backward,
            mutates_args=(),
            schema=f"(Tensor dy, {signature}, bool[] needs) -> Tensor[]",
        )
        for device in ("cpu", "cuda"):
            forward.register_kernel(device)(self._forward)
            backward.register_kernel(device)(self._backward)
        forward.register_fake(self._like)
        backward.register_fake(self._gradients_like)
        forward.register_autograd(self._derive, setup_context=self._remember)
        self.operator = getattr(torch.ops.leanfield, self.name).default
        self.operator_backward = getattr(torch.ops.leanfield, f"{self.name}_backward").default
        self._library = library.Library("leanfield", "FRAGMENT")  # type: ignore[no-untyped-call]
        for key in ("AutocastCPU", "AutocastCUDA"):
            self._library.impl(self.name, self._under_autocast, key)  # type: ignore[no-untyped-call]
        count(getattr(torch.ops.leanfield, self.name), self.composed)

    def _forward(self, *arguments: Any) -> Tensor:
        *given, backend = map(hashable, arguments)
        y = self.plan(tuple(given), backend).forward.forward(*given)
        wanted = strides(y.shape, is_last(given[0]))
        return y if same_layout(y.shape, y.stride(), wanted) else _laid(y, wanted)

    def _like(self, *arguments: Any) -> Tensor:
        """What the result looks like: channels last exactly where x is."""
        x = arguments[0]
        size = tuple(self.shape(*map(hashable, arguments[:-1])))
        return x.new_empty_strided(size, strides(size, is_last(x)))

    def _backward(self, dy: Tensor, *rest: Any) -> list[Tensor]:
        *given, backend, needs = map(hashable, rest)
        found = self.plan(tuple(given), backend).gradients(dy, needs, tuple(given))
        gradients = []
        for gradient, tensor in zip(found, given, strict=False):
            if gradient is None:
                gradients.append(dy.new_empty(0))
                continue
            wanted = torch.empty_like(tensor, device="meta").stride()
            fits = same_layout(tensor.shape, gradient.stride(), wanted)
            gradients.append(gradient if fits else _laid(gradient, wanted))
        return gradients

    def _gradients_like(self, dy: Tensor, *rest: Any) -> list[Tensor]:
        return [
            torch.empty_like(tensor) if need else dy.new_empty(0)
            for tensor, need in zip(rest, rest[-1], strict=False)
        ]

    def _remember(self, ctx: Any, inputs: Arguments, output: Tensor) -> None:
        """For the backward pass: the inputs but the added one, which no gradient needs."""
        count = len(self.tensors)
        given = (None if i == self.added else t for i, t in enumerate(inputs[:count]))
        ctx.save_for_backward(*given)
        ctx.rest = inputs[count:]

    def _derive(self, ctx: Any, dy: Tensor) -> Arguments:
        """The gradients of all inputs by leanfield::<name>_backward."""
        return self.derive(
            ctx, dy, lambda needs: self.operator_backward(dy, *ctx.saved_tensors, *ctx.rest, needs)
        )

    def derive(self, ctx: Any, dy: Tensor, solve: Callable[[list[bool]], Gradients]) -> Arguments:
        """The gradients of all inputs, None where none is asked for."""
        count = len(self.tensors)
        asked = ctx.needs_input_grad[:count]
        needs = [need and i != self.added for i, need in enumerate(asked)]
        found = solve(needs) if any(needs) else [None] * count
        gradients = [g if need else None for g, need in zip(found, needs, strict=True)]
        if self.added >= 0 and asked[self.added]:
            gradients[self.added] = dy
        return (*gradients, *(None for _ in ctx.rest))

    def _under_autocast(self, *arguments: Any) -> Tensor:
        keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
        keys = keys | torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCUDA)
        given = cast(arguments, self.exact)
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return self.operator(*given)


class _Applied(torch.autograd.Function):
    """The short way: forward and backward of a plan without a dispatcher between them."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *arguments, operation, plan = inputs
        operation._remember(ctx, inputs, None)
        return plan.forward.forward(*arguments)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        *numbers, operation, plan = ctx.rest
        given = (*ctx.saved_tensors, *numbers)
        return operation.derive(ctx, dy, lambda needs: plan.gradients(dy, needs, given))


def defined_by(definition: Callable[..., Tensor]) -> Callable[[Any], Any]:
    """Note at a public function which plain one defines it: exports carry that one's source."""

    def note(function: Any) -> Any:
        function.definition = definition
        return function

    return note


def _laid(y: Tensor, wanted: Sequence[int]) -> Tensor:
    return y.new_empty_strided(y.shape, wanted).copy_(y)
