"""Inputs made of other inputs: bytes turned over, cut, repeated, spliced with another, and words
put in that mean something somewhere."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

WORDS = (
    b'"""', b"'", b"\\", b"\n", b"\r", b"\0", b"\x85", "\u2028".encode(), "\u202e".encode(),
    b"\xff", b"\xed\xa0\x80", b"{}", b"[", b"]" * 50, b"[" * 400, b"{" * 400, b"((((", b"# ", b": ",
    b"- ", b"&a ", b"*a", b"<<: *a", b"!!python/object/apply:os.system ['true']", b"!!binary x",
    b"null", b"true", b"-1", b"0", b"1e999", b"-1e-400", b"nan", b"inf", b"9" * 400, b"1" * 5000,
    b"0x7f", b"1_0", b"d0", b"c0=", b"n0=8", b"branch=routed", b"branch=16", b"sqrt(d0)",
    b"rsqrt(d1)*3/d2", b"every middle", b"main(x, y):\n", b"ADD(x, x)", b"CONV 1X1", b"TOP_K",
    b"REMEMBER(x)", b"branch=shared", b"TASK() constant=n0", b"STEPS()", b"__import__",
    b"<script>", b"../..", b"~root", b"/dev/zero", b"${x}", b"%s%n", b"A" * 3000,
)  # fmt: skip


def mutated(seed: bytes, others: Sequence[bytes], rng: Random) -> bytes:
    """One to six changes of `seed`."""
    made = bytearray(seed)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        _change(made, others, rng)
    return bytes(made[:200_000])


def _change(made: bytearray, others: Sequence[bytes], rng: Random) -> None:
    at, kind = rng.randrange(len(made) + 1), rng.randrange(8)
    end = min(len(made), at + rng.choice((1, 1, 2, 8, 40, 400)))
    if kind == 0 and made:
        made[at % len(made)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del made[at:end]
    elif kind == 2:
        made[at:at] = made[at:end] * rng.choice((1, 2, 20))
    elif kind == 3:
        made[at:end] = rng.choice(WORDS)
    elif kind == 4:
        made[at:at] = rng.choice(WORDS)
    elif kind == 5:
        other = rng.choice(others)
        start = rng.randrange(len(other) + 1)
        made[at:end] = other[start : start + rng.choice((4, 20, 200))]
    elif kind == 6:
        made[at:end] = rng.randbytes(end - at)
    else:
        _swap_lines(made, rng)


def _swap_lines(made: bytearray, rng: Random) -> None:
    lines = bytes(made).splitlines(keepends=True)
    if len(lines) > 1:
        a, b = rng.sample(range(len(lines)), 2)
        lines[a], lines[b] = lines[b], lines[a]
        made[:] = b"".join(lines)
