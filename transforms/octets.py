"""Copying stretches of memory inside kernels."""

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def copy_octets(context, target, target_at, source, source_at, count):
    """`target[target_at:target_at + count] = source[source_at:source_at + count]` for flat octet arrays, unchecked.

    A loop over octets is not made one `memcpy` by the compiler, and a slice assignment checks more than it copies.
    """

    def generate(context, builder, signature, arguments):
        target_type, _, source_type, _, _ = signature.args
        target_data = cgutils.create_struct_proxy(target_type)(context, builder, arguments[0]).data
        source_data = cgutils.create_struct_proxy(source_type)(context, builder, arguments[2]).data
        to = builder.gep(target_data, [arguments[1]])
        begin = builder.gep(source_data, [arguments[3]])
        cgutils.raw_memcpy(builder, to, begin, arguments[4], 1)
        return context.get_dummy_value()

    return types.none(target, types.int64, source, types.int64, types.int64), generate
