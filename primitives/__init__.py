"""What a program says and what it means. Folders import downwards only, in this order:

- `ops`: the types of hidden states, and the one table of primitives.
- `language`: a program as frozen data (the DNA), and its text and JSON forms.
- `graph`: a program checked, inlined, brought to canonical form and hashed.
- `programs`: the programs that a search starts from, as data files.
- `kernels`: the functions that lowered programs call. Keras is imported here, and not above.
- `lowering`: a graph as keras.ops source, how its routed calls are dispatched, what it costs.
- `cutting`: what can be cut out of a graph, and the smaller one that is left.
"""

from primitives.errors import ProgramError
from primitives.graph.build import Graph, IllTyped, build
from primitives.language.dna import DNA, Instruction, Subroutine
from primitives.language.text import parse, render

__all__ = [
    "DNA", "Graph", "IllTyped", "Instruction", "ProgramError", "Subroutine",
    "build", "parse", "render",
]  # fmt: skip
