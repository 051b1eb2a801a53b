"""What generated vector code is written with: loops, float vectors, masked reads and writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir

I64 = ir.IntType(64)
I32 = ir.IntType(32)
I8 = ir.IntType(8)
F32 = ir.FloatType()
FLOAT = 4
"""Bytes of a float; all addresses are counted in bytes."""


def number(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


ONE = number(1)


class Emitter(ir.IRBuilder):  # type: ignore[misc]
    """An IRBuilder for one function on 64-bit numbers and vectors of `lanes` floats.

    Addresses are numbers of bytes, so that their arithmetic is plain.
    """

    def __init__(self, module: ir.Module, name: str, arguments: int, lanes: int) -> None:
        kind = ir.FunctionType(ir.VoidType(), [I64] * arguments)
        self.own = ir.Function(module, kind, name)
        super().__init__(self.own.append_basic_block("entry"))
        self.lanes = lanes
        self.vector = ir.VectorType(F32, lanes)
        self.mask_type = ir.VectorType(ir.IntType(1), lanes)

    # ---- loops -------------------------------------------------------------------------------

    @contextmanager
    def loop(self, start: ir.Value, stop: ir.Value, step: int = 1) -> Iterator[ir.Value]:
        """for i in range(start, stop, step)."""
        with self.carrying(start, stop, [], number(step)) as (index, _, _):
            yield index

    @contextmanager
    def striding(self, start: ir.Value, stop: ir.Value, step: ir.Value) -> Iterator[ir.Value]:
        """A loop whose step is known when it runs."""
        with self.carrying(start, stop, [], step) as (index, _, _):
            yield index

    @contextmanager
    def carrying(
        self, start: ir.Value, stop: ir.Value, values: list[ir.Value], step: ir.Value = ONE
    ) -> Iterator[tuple[ir.Value, list[ir.Value], list[ir.Value]]]:
        """A loop that carries values in registers: (index, values now, values for the next turn).

        The body fills the third with one entry a value; behind the loop it holds the last ones.
        """
        before = self.block
        head = self.append_basic_block("head")
        body = self.append_basic_block("body")
        done = self.append_basic_block("done")
        self.branch(head)
        self.position_at_end(head)
        index = self.phi(I64)
        index.add_incoming(start, before)
        carried = [self.phi(value.type) for value in values]
        for phi, value in zip(carried, values, strict=True):
            phi.add_incoming(value, before)
        self.cbranch(self.icmp_signed("<", index, stop), body, done)
        self.position_at_end(body)
        following: list[ir.Value] = []
        yield index, carried, following
        index.add_incoming(self.add(index, step), self.block)
        for phi, value in zip(carried, following, strict=True):
            phi.add_incoming(value, self.block)
        self.branch(head)
        self.position_at_end(done)
        following[:] = carried

    # ---- numbers -----------------------------------------------------------------------------

    def least(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.select(self.icmp_signed("<", a, b), a, b)

    def most(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.select(self.icmp_signed(">", a, b), a, b)

    def within(self, value: ir.Value, size: ir.Value) -> ir.Value:
        """0 <= value < size."""
        return self.icmp_unsigned("<", value, size)

    # ---- memory ------------------------------------------------------------------------------

    def number_at(self, address: ir.Value, index: int = 0) -> ir.Value:
        """The index-th 64-bit number behind an address."""
        where = self.add(address, number(8 * index))
        return self.load(self.inttoptr(where, I64.as_pointer()))

    def next_ticket(self, address: ir.Value) -> ir.Value:
        """Take the number at an address and leave one more, whoever else does so."""
        where = self.inttoptr(address, I64.as_pointer())
        return self.atomic_rmw("add", where, number(1), "monotonic")

    def mask(self, count: ir.Value) -> ir.Value:
        """The first `count` lanes."""
        lane = ir.Constant(ir.VectorType(I64, self.lanes), list(range(self.lanes)))
        return self.icmp_signed("<", lane, self.splat(count, I64))

    def splat(self, value: ir.Value, kind: ir.Type = F32) -> ir.Value:
        vector = ir.VectorType(kind, self.lanes)
        one = self.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(I32, 0))
        zeros = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)

    def broadcast(self, address: ir.Value) -> ir.Value:
        """One float from memory in every lane."""
        return self.splat(self.load(self.inttoptr(address, F32.as_pointer()), align=FLOAT))

    def read(self, address: ir.Value, mask: ir.Value | None = None) -> ir.Value:
        """A vector from memory; lanes outside the mask are 0 and not touched."""
        where = self.inttoptr(address, self.vector.as_pointer())
        if mask is None:
            return self.load(where, align=FLOAT)
        kind = ir.FunctionType(self.vector, [where.type, I32, self.mask_type, self.vector])
        read = self._intrinsic(f"llvm.masked.load.v{self.lanes}f32.p0", kind)
        zero = ir.Constant(self.vector, None)
        return self.call(read, [where, ir.Constant(I32, FLOAT), mask, zero])

    def write(self, value: ir.Value, address: ir.Value, mask: ir.Value | None = None) -> None:
        where = self.inttoptr(address, self.vector.as_pointer())
        if mask is None:
            self.store(value, where, align=FLOAT)
            return
        kind = ir.FunctionType(ir.VoidType(), [self.vector, where.type, I32, self.mask_type])
        write = self._intrinsic(f"llvm.masked.store.v{self.lanes}f32.p0", kind)
        self.call(write, [value, where, ir.Constant(I32, FLOAT), mask])

    def prefetch(self, address: ir.Value, write: bool) -> None:
        """Ask for the cache line at an address, which need not exist."""
        where = self.inttoptr(address, I8.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [where.type, I32, I32, I32])
        flags = [ir.Constant(I32, flag) for flag in (int(write), 3, 1)]
        self.call(self._intrinsic("llvm.prefetch.p0", kind), [where, *flags])

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a b + c, rounded once."""
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        return self.call(self._intrinsic(f"llvm.fma.v{self.lanes}f32", kind), [a, b, c])

    def _intrinsic(self, name: str, kind: ir.FunctionType) -> ir.Function:
        known = self.module.globals
        return known[name] if name in known else ir.Function(self.module, kind, name)
