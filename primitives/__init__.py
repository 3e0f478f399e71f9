"""What a program says and what it means.

Read in this order: `dna` (a program as frozen data), `text` and `jsonform` (its two written forms),
`seeds` (the programs that a search starts from), `types` (what a hidden state is), `table` (the one
table of primitives), `liveness` and `graph` (a program checked, inlined and hashed), `plan` (how
routed calls are run), `cost` (what it costs), `rewrite` and `emit` (its keras.ops source),
`kernels`, `routing` and `balancing` (the helpers that this source calls) and `layer` (that source
as a function). Only the last four import Keras.
"""

from primitives.dna import DNA, Instruction, Subroutine
from primitives.errors import ProgramError
from primitives.graph import Graph, IllTyped, build
from primitives.text import parse, render

__all__ = [
    "DNA", "Graph", "IllTyped", "Instruction", "ProgramError", "Subroutine",
    "build", "parse", "render",
]  # fmt: skip
