"""A range coder: symbols become nearly as few bits as their probabilities allow, and come back exactly.

Encoder and decoder hold the same interval of integers [low, low + span). Every symbol narrows it to the part that is
the symbol's share of the probability; likely symbols narrow it little. At the end any number inside the interval
tells the whole story. Leading bytes that can no longer change are written as soon as they are known.

Source: Martin, Range encoding: an algorithm for removing redundancy from a digitised message, 1979.
"""

from bisect import bisect_right
from collections.abc import Sequence

SHARE_BITS = 20  # shares of a table add up to 2 ** 20
SPAN_BITS = 40
TOP, BOTTOM = 1 << SPAN_BITS, 1 << (SPAN_BITS - 8)  # BOTTOM >= 2 ** SHARE_BITS, so no share becomes empty

Table = Sequence[int]  # cumulative shares: symbol s owns [table[s], table[s + 1]), from 0 to 2 ** SHARE_BITS


def encode(symbols: Sequence[int], tables: Sequence[Table]) -> bytes:
    """Bytes for `symbols`, each with its own table.

    Raises:
        ValueError: if a symbol has no share in its table.
    """
    low, span, out = 0, TOP - 1, bytearray()
    for symbol, table in zip(symbols, tables, strict=True):
        if not 0 <= symbol < len(table) - 1 or table[symbol] == table[symbol + 1]:
            raise ValueError(f"symbol {symbol} has no share in a table of {len(table) - 1}; it cannot be coded")
        part = span >> SHARE_BITS
        low += part * table[symbol]
        span = part * (table[symbol + 1] - table[symbol])
        if low >= TOP:
            low -= TOP
            _carry(out)
        while span < BOTTOM:
            out.append(low >> (SPAN_BITS - 8))
            low = (low << 8) & (TOP - 1)
            span <<= 8
    return bytes(_finish(out, low, span))


def decode(data: bytes, tables: Sequence[Table]) -> list[int]:
    """The symbols that :func:`encode` was given, from its bytes and the same tables; after the end come zeros."""
    first = SPAN_BITS // 8
    offset = int.from_bytes(data[:first].ljust(first, b"\0"), "big")  # of the code inside the interval
    span, position, symbols = TOP - 1, first, []
    for table in tables:
        part = span >> SHARE_BITS
        symbol = bisect_right(table, offset // part) - 1
        if symbol >= len(table) - 1:
            raise ValueError("these bytes are damaged: they were not made by this coder with these tables")
        symbols.append(symbol)
        offset -= part * table[symbol]
        span = part * (table[symbol + 1] - table[symbol])
        while span < BOTTOM:
            offset = (offset << 8) | (data[position] if position < len(data) else 0)
            position += 1
            span <<= 8
    return symbols


def _carry(out: bytearray) -> None:
    """Add one to the number that has been written: 0x12ff becomes 0x1300."""
    place = len(out) - 1
    while out[place] == 255:
        out[place] = 0
        place -= 1
    out[place] += 1


def _finish(out: bytearray, low: int, span: int) -> bytearray:
    """Append the shortest number inside [low, low + span); the decoder reads zeros after it."""
    for size in range(SPAN_BITS // 8 + 1):
        unit = 1 << (SPAN_BITS - 8 * size)
        number = -(-low // unit) * unit  # low, rounded up to `size` bytes
        if number < low + span:
            if number >= TOP:
                number -= TOP
                _carry(out)
            out += number.to_bytes(SPAN_BITS // 8, "big")[:size]
            break
    while out and out[-1] == 0:
        out.pop()
    return out
