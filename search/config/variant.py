"""A program with other numbers in its banks, as a study varies them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from primitives.errors import ProgramError, unknown
from primitives.language.dna import DNA, MIDDLE, verify
from primitives.language.text import parse
from primitives.programs.seeds import seed_names, seed_text
from search.config.grid import EVERY_GENE, Genes
from search.config.programfile import read_program
from search.config.textfile import read_text
from search.errors import UsageError


def variant(name: str, d_model: int, genes: Genes) -> DNA:
    """A seed program, or the program in a file, with these dims, counts and `every`. Constants that
    are expressions follow the dims, as far as the program is text. A UsageError where it has no
    such number, or may not have the value."""
    banks = {key: int(value) for key, value in genes.items() if key != EVERY_GENE}
    try:
        dna = _with_banks(name, d_model, banks)
    except ProgramError as error:
        raise UsageError(str(error)) from None
    if EVERY_GENE not in genes:
        return dna
    every = genes[EVERY_GENE]
    return replace(dna, every=MIDDLE if every == "middle" else int(every))


def _with_banks(name: str, d_model: int, banks: Mapping[str, int]) -> DNA:
    seed = name in seed_names()
    if not seed and Path(name).suffix == ".json":
        dna = read_program(Path(name), d_model)
        _check(name, dna, banks)
        dims, counts = (_replaced(bank, letter, banks) for bank, letter in _banks(dna))
        return verify(replace(dna, dims=dims, counts=counts))
    text = seed_text(name) if seed else read_text(Path(name), "program")
    source = f"{name}.dna" if seed else name
    _check(name, parse(text, source, d_model), banks)
    return parse(text, source, d_model, banks)


def _check(name: str, dna: DNA, banks: Mapping[str, int]) -> None:
    known = [f"{letter}{place}" for bank, letter in _banks(dna) for place in range(len(bank))]
    for key in banks:
        if key not in known:
            raise ProgramError(unknown(f"number of {Path(name).name}", key, known))


def _banks(dna: DNA) -> tuple[tuple[tuple[int, ...], str], ...]:
    return (dna.dims, "d"), (dna.counts, "n")


def _replaced(bank: tuple[int, ...], letter: str, banks: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(banks.get(f"{letter}{place}", value) for place, value in enumerate(bank))
