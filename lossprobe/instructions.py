"""Instructions for compiled loops that numba has no function for, as the code of LLVM that they become."""

from __future__ import annotations

from typing import Any

from lossprobe.compiler import intrinsic, llvmlite, numba, unpack_tuple

# Whether vectors have 512 bits; else 256 or fewer.
WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))


def _float32_of_bits(_: Any, bits: Any) -> Any:  # noqa: ARG001 - numba passes the types
    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], llvmlite.ir.FloatType())

    return numba.float32(numba.int32), generate


def _bits_of_float32(_: Any, value: Any) -> Any:  # noqa: ARG001 - numba passes the types
    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], llvmlite.ir.IntType(32))

    return numba.int32(numba.float32), generate


# In a compiled function: the float32 that has the bits of an int32, and the other way round. They stay in a register. A
# view of a numpy array would go through memory, which takes twice the time.
float32_of_bits: Any = intrinsic(_float32_of_bits)
bits_of_float32: Any = intrinsic(_bits_of_float32)


def _product_sum(_: Any, x: Any, y: Any, more: Any) -> Any:  # noqa: ARG001 - numba passes the types
    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        number = llvmlite.ir.FloatType()
        three = llvmlite.ir.FunctionType(number, [number] * 3)
        return builder.call(builder.module.declare_intrinsic("llvm.fmuladd", [number], three), values)

    return numba.float32(numba.float32, numba.float32, numba.float32), generate


# In a compiled function: x · y + more of three float32, rounded once where the processor has an instruction for that.
# LLVM computes the product apart where two sums need it, however they are written.
product_sum: Any = intrinsic(_product_sum)


def _word_at(_: Any, data: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_word(context, builder, signature, values), align=1)

    return numba.int64(data, at), generate


def _put_word(_: Any, out: Any, at: Any, word: Any) -> Any:  # noqa: ARG001 - numba passes the types
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[2], _word(context, builder, signature, values), align=1)
        return context.get_dummy_value()

    return numba.void(out, at, numba.int64), generate


def _word(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, values[0])
    return builder.bitcast(builder.gep(array.data, [values[1]]), llvmlite.ir.IntType(64).as_pointer())


# In a compiled function: `word_at(data, at)` returns the eight bytes of a contiguous uint8 array from a place on as an
# int64, and `put_word(out, at, word)` writes them. numpy has no array whose words begin at every byte.
word_at: Any = intrinsic(_word_at)
put_word: Any = intrinsic(_put_word)


PAIRS = 8  # as many float64 as the widest vectors hold


def _put_pairs(_: Any, pairs: Any, numbers: Any, at: Any) -> Any:  # noqa: ARG001 - numba passes the types
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        ir = llvmlite.ir
        out, array = (context.make_array(signature.args[at])(context, builder, values[at]) for at in range(2))
        singles, doubles = ir.VectorType(ir.FloatType(), PAIRS), ir.VectorType(ir.DoubleType(), PAIRS)
        several = builder.bitcast(builder.gep(array.data, [values[2]]), singles.as_pointer())
        second, ones = builder.fpext(builder.load(several, align=4), doubles), ir.Constant(doubles, [1.0] * PAIRS)
        order = [index for number in range(PAIRS) for index in (number, PAIRS + number)]
        mask = ir.Constant(ir.VectorType(ir.IntType(32), 2 * PAIRS), order)
        place = _pair_at(builder, out, values[2], ir.VectorType(ir.DoubleType(), 2 * PAIRS))
        builder.store(builder.shuffle_vector(ones, second, mask), place, align=8)
        return context.get_dummy_value()

    return numba.void(pairs, numbers, numba.int64), generate


def _add_pair(_: Any, totals: Any, more: Any, at: Any, which: Any) -> Any:  # noqa: ARG001 - numba passes the types
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pair = llvmlite.ir.VectorType(llvmlite.ir.DoubleType(), 2)
        arrays = (context.make_array(signature.args[at])(context, builder, values[at]) for at in range(2))
        total, added = (_pair_at(builder, array, values[2 + at], pair) for at, array in enumerate(arrays))
        builder.store(builder.fadd(builder.load(total, align=8), builder.load(added, align=8)), total, align=8)
        return context.get_dummy_value()

    return numba.void(totals, more, numba.int64, numba.int64), generate


def _pair_at(builder: Any, array: Any, number: Any, vector: Any) -> Any:
    """Return where a pair of a contiguous float64 array [N, 2] is, as the begin of a vector."""
    first = builder.mul(number, llvmlite.ir.IntType(64)(2))
    return builder.bitcast(builder.gep(array.data, [first]), vector.as_pointer())


# In a compiled function, with contiguous arrays: `put_pairs(pairs, numbers, at)` writes the pairs (1, number) of
# `PAIRS` float32 from a place on into float64 [N, 2]; `add_pair(totals, more, at, which)` adds the two numbers of
# `more[which]` to those of `totals[at]`, both float64 [N, 2]. numba would write and add each number by itself.
put_pairs: Any = intrinsic(_put_pairs)
add_pair: Any = intrinsic(_add_pair)


# Rows and columns of a tile of products, whose sums fill half of the registers: 16 of 32 of 512 bits or 8 of 16 of 256.
# With more they go through memory: 64 columns took 3 to 7 times as long with 256 bits.
ROWS = 4
COLUMNS = 64 if WIDE else 16


def _products(added: bool) -> Any:
    """Return the instruction that adds a tile of products to what is there, or overwrites it."""

    def tile(_: Any, a: Any, b: Any, out: Any, row: Any, column: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            ir = llvmlite.ir
            left, right, sums = (
                context.make_array(type_)(context, builder, value)
                for type_, value in zip(signature.args[:3], values[:3], strict=True)
            )
            number, vector = ir.IntType(64), ir.VectorType(ir.FloatType(), COLUMNS)
            lines = [builder.add(values[3], number(index)) for index in range(ROWS)]
            places = [_vector_at(builder, sums, line, values[4], vector) for line in lines]
            entries = [_line_at(builder, left, line) for line in lines]
            depth = unpack_tuple(builder, left.shape)[1]  # type: ignore[no-untyped-call]
            initial = [builder.load(place, align=4) if added else ir.Constant(vector, None) for place in places]

            before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)
            builder.position_at_end(loop)
            k, totals = builder.phi(number), [builder.phi(vector) for _ in lines]
            several = builder.load(_vector_at(builder, right, k, values[4], vector), align=4)
            for total, first, entry in zip(totals, initial, entries, strict=True):
                one = builder.load(_stepped(builder, left, entry, k))
                product = builder.fmul(_repeated(builder, one, vector), several, flags=("contract",))
                total.add_incoming(first, before)
                total.add_incoming(builder.fadd(total, product, flags=("contract",)), loop)
            following = builder.add(k, number(1))
            k.add_incoming(number(0), before)
            k.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
            builder.position_at_end(after)
            for total, place in zip(totals, places, strict=True):
                builder.store(total.incomings[1][0], place, align=4)
            return context.get_dummy_value()

        return numba.void(a, b, out, row, column), generate

    return tile


def _vector_at(builder: Any, array: Any, line: Any, column: Any, vector: Any) -> Any:
    """Return where a vector of a contiguous float32 array [N, W] begins."""
    width = unpack_tuple(builder, array.shape)[1]  # type: ignore[no-untyped-call]
    place = builder.gep(array.data, [builder.add(builder.mul(line, width), column)])
    return builder.bitcast(place, vector.as_pointer())


def _line_at(builder: Any, array: Any, line: Any) -> Any:
    """Return where a line of a float32 array of two dimensions begins."""
    step = unpack_tuple(builder, array.strides)[0]  # type: ignore[no-untyped-call]
    return _behind(builder, array.data, builder.mul(line, step))


def _stepped(builder: Any, array: Any, place: Any, count: Any) -> Any:
    """Return what is a number of columns behind a place."""
    step = unpack_tuple(builder, array.strides)[1]  # type: ignore[no-untyped-call]
    return _behind(builder, place, builder.mul(count, step))


def _behind(builder: Any, place: Any, size: Any) -> Any:
    """Return where the float32 is that lies a number of bytes behind a place."""
    start = builder.bitcast(place, llvmlite.ir.IntType(8).as_pointer())
    return builder.bitcast(builder.gep(start, [size]), llvmlite.ir.FloatType().as_pointer())


def _repeated(builder: Any, one: Any, vector: Any) -> Any:
    """Return a vector whose entries are all one number."""
    undefined = llvmlite.ir.Constant(vector, llvmlite.ir.Undefined)
    same = llvmlite.ir.Constant(llvmlite.ir.VectorType(llvmlite.ir.IntType(32), COLUMNS), [0] * COLUMNS)
    placed = builder.insert_element(undefined, one, llvmlite.ir.IntType(32)(0))
    return builder.shuffle_vector(placed, undefined, same)


# In a compiled function: `add_products(a, b, out, row, column)` adds a tile of the matrix product a · b to `out`, of
# `ROWS` rows and `COLUMNS` columns from a place on; `put_products` overwrites what is there. All are float32, b and out
# are contiguous, and a, which may be a transposed view, has at least one column. The sums stay in registers. numba
# would load and store them at each step, and check at each that the arrays do not overlap, which takes 1.6 times as
# long.
add_products: Any = intrinsic(_products(added=True))
put_products: Any = intrinsic(_products(added=False))
