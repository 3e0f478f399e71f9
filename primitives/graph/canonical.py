"""The canonical order and the hash of a graph: they say what is computed, and nothing of how the
program was written."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

MAX_NODES = 1 << 14
"""Nodes of a graph: twice as many as inlining makes."""

MASK64 = (1 << 64) - 1
_RANKS = tuple(struct.pack("<H", rank) for rank in range(MAX_NODES))


class Tag(NamedTuple):
    """All that a node is apart from its inputs.

    Attributes:
        op, value, context, count: as in `build.Node`.
        commutative: whether its inputs may be exchanged.
        text: the node as bytes to hash, which tell their own length.
        number: the same as a number to order commutative inputs by.
    """

    op: str
    value: float
    context: tuple[int, ...]
    count: int  # type: ignore[assignment]  # nobody counts a tag's fields
    commutative: bool
    text: bytes
    number: int


@lru_cache(maxsize=1 << 16)
def tag(
    op: str, value: float, context: tuple[int, ...], count: int = 0, commutative: bool = False
) -> Tag:
    code = zlib.crc32(op.encode())
    if count or min(context, default=0) < 0:
        sizes = struct.pack(f"<{2 + len(context)}i", -1 - len(context), count, *context)
    else:
        sizes = bytes((len(context), *context))
    text = struct.pack("<Id", code, value) + sizes
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return Tag(op, value, context, count, commutative, text, int.from_bytes(digest, "little"))


def canonical(
    output: int, inputs: Sequence[tuple[int, ...]], tags: Sequence[Tag], every: int
) -> tuple[list[int], str]:
    """The nodes that `output` depends on, inputs before readers, and their hash.

    The order is that of a walk from the output, and so says nothing of how the program was written,
    except where commutative inputs have equal structures: equal programs may then, if rarely,
    differ in hash. Different ones never share one.
    """
    ranks = [-1] * len(inputs)
    order: list[int] = []
    parts: list[bytes] = []
    pending = [output]
    while pending:
        node = pending.pop()
        if node < 0:  # its inputs have their ranks
            node = ~node
            ranks[node] = len(order)
            order.append(node)
            parts.append(tags[node].text)
            for child in inputs[node]:
                parts.append(_RANKS[ranks[child]])
        elif ranks[node] == -1:
            ranks[node] = -2
            pending.append(~node)
            children = inputs[node]
            if len(children) == 2 and ranks[children[1]] == -1:
                pending.append(children[1])
            if children and ranks[children[0]] == -1:
                pending.append(children[0])
    if every != 1:
        parts.append(b"every" + bytes((every,)))
    return order, hashlib.blake2b(b"".join(parts), digest_size=16).hexdigest()
