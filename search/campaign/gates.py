"""What a child must get past before it is trained, cheapest question first.

A gate answers with a value: it passes the child on, it rejects it (the parent is mutated again), or
it names an earlier candidate whose outcome the child takes over. GATES is the chain; a plug-in's
gate that is registered there comes last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from math import inf

from primitives.graph.build import Graph, IllTyped
from primitives.language.dna import DNA
from primitives.lowering.cost import Cost
from primitives.registry import Registry
from search.campaign.history import State
from search.config.schema import LimitsSpec
from workers.spec import fit
from workers.spec.footprint import MB, footprint
from workers.spec.task import Task


@dataclass(frozen=True, slots=True)
class Passed:
    """On to the next gate."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Not worth training; `reason` is one of few, so that they can be counted."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reuse:
    """The same function as candidate `original`, whose outcome is known."""

    original: int


Verdict = Passed | Rejected | Reuse
PASSED = Passed()


class Parent:
    """The program that children are mutated from, with what they are compared by."""

    def __init__(self, dna: DNA, hash: str, behaviour: str | None = None) -> None:
        self.dna, self.hash, self.behaviour = dna, hash, behaviour

    @cached_property
    def reached(self) -> set[int]:
        """The subroutines that MAIN calls, directly or not. Calls go to later ones only."""
        reached = {0}
        for index, subroutine in enumerate(self.dna.subroutines):
            if index in reached:
                reached.update(row.op for row in subroutine.instructions if isinstance(row.op, int))
        return reached


class Child:
    """A program at the gates. Its graph under the task's objective is built once, when the first
    gate asks for it."""

    def __init__(self, dna: DNA, parent: Parent, task: Task) -> None:
        self.dna, self.parent, self.task = dna, parent, task

    @cached_property
    def built(self) -> Graph | IllTyped:
        return fit.task_graph(self.dna, self.task)

    @property
    def graph(self) -> Graph:
        """The graph of a child that passed the types gate."""
        assert isinstance(self.built, Graph)
        return self.built

    @cached_property
    def behaviour(self) -> str | None:
        """What it does, as a digest; None where that cannot be told."""
        return fit.behaviour(self.graph, self.task)

    @cached_property
    def cost(self) -> Cost:
        """What it costs at the task's sizes."""
        return task_cost(self.graph, self.task)


@dataclass(frozen=True, slots=True)
class Limits:
    """Static limits in absolute numbers; 0 and infinity where there is none."""

    max_instructions: int
    min_parameters: float = 0.0
    max_parameters: float = inf
    max_flops: float = inf
    max_memory: float = inf  # bytes

    @classmethod
    def relative_to(cls, cost: Cost, spec: LimitsSpec) -> Limits:
        """The configured limits: length and memory as they are, the others times the first seed
        program's cost."""

        def times(factor: float | None, base: int, absent: float) -> float:
            return absent if factor is None else factor * base

        return cls(
            spec.max_instructions,
            times(spec.parameters_min, cost.parameters, 0.0),
            times(spec.parameters_max, cost.parameters, inf),
            times(spec.flops_max, cost.flops_per_token, inf),
            times(spec.memory_mb, MB, inf),
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """What the gates judge by: limits, the task's sizes, and what the campaign has seen."""

    limits: Limits
    task: Task
    state: State


@dataclass(frozen=True, slots=True)
class Gate:
    """A row of GATES. `judge` is given a child that passed the gates before, and must be a pure
    function of its arguments."""

    name: str
    judge: Callable[[Child, Rules], Verdict]


def change(child: Child, rules: Rules) -> Verdict:
    """The child differs from its parent in what its graph is made of: the banks, `every`, and the
    subroutines that MAIN reaches. To compare those is far cheaper than to build the graph."""
    old, new = child.parent.dna, child.dna
    banks = (old.dims, old.counts, old.every) != (new.dims, new.counts, new.every)
    if banks or old.constants is not new.constants:  # 0.0 and -0.0 are equal, and not the same
        return PASSED
    pairs = zip_longest(old.subroutines, new.subroutines)  # one may have more than the other
    for index, (was, now) in enumerate(pairs):
        if was is not now and was != now and index in child.parent.reached:
            return PASSED
    return Rejected(_NEUTRAL)


def types(child: Child, rules: Rules) -> Verdict:
    """The child is well typed, and so causal, unless the task is bidirectional."""
    return Rejected(child.built.kind) if isinstance(child.built, IllTyped) else PASSED


def suits(child: Child, rules: Rules) -> Verdict:
    """The task can have the child: some layer of the model runs it."""
    if fit.refused(child.graph, rules.task):
        return Rejected("no layer would run the program")
    return PASSED


def length(child: Child, rules: Rules) -> Verdict:
    """The child is not too long; dead instructions count."""
    if child.dna.length > rules.limits.max_instructions:
        return Rejected("too many instructions")
    return PASSED


def cost(child: Child, rules: Rules) -> Verdict:
    """The child is neither outside the parameter band nor too slow."""
    bounds, cost = rules.limits, child.cost
    if cost.parameters < bounds.min_parameters:
        return Rejected("too few parameters")
    if cost.parameters > bounds.max_parameters:
        return Rejected("too many parameters")
    if cost.flops_per_token > bounds.max_flops:
        return Rejected("too many FLOPs")
    return PASSED


def memory(child: Child, rules: Rules) -> Verdict:
    """Training the child does not take more memory than a worker has, whatever a compiler finds to
    save. One that passes may still run out of it, which is an outcome like others."""
    estimate = footprint(child.graph, rules.task, fit.vocabulary_of(rules.task), child.cost)
    if estimate.least > rules.limits.max_memory:
        return Rejected("too much memory")
    return PASSED


def seen(child: Child, rules: Rules) -> Verdict:
    """The child computes what no earlier candidate does. One that computes what its parent does is
    mutated again, as in Primer; so is one whose twin is in training and has no outcome to share."""
    if child.graph.hash == child.parent.hash:
        return Rejected(_NEUTRAL)
    original = rules.state.seen.get(child.graph.hash)
    if original is None:
        return PASSED
    if original in rules.state.pending:
        return Rejected("same function as a candidate in training")
    return Reuse(original)


def does(child: Child, rules: Rules) -> Verdict:
    """The child does what no earlier candidate does, on fixed inputs. This is asked late, as it
    takes longer than what comes before."""
    if not rules.state.spec.compares_behaviour or child.behaviour is None:
        return PASSED
    if child.behaviour == child.parent.behaviour:
        return Rejected("same behaviour as the parent")
    original = rules.state.behaviours.get(child.behaviour)
    if original is None:
        return PASSED
    if original in rules.state.pending:
        return Rejected("same behaviour as a candidate in training")
    return Reuse(original)


def trainable(child: Child, rules: Rules) -> Verdict:
    """Nothing speaks for a loss that is not finite within the first steps of training. This is
    asked last, as it takes longest."""
    if not rules.state.spec.divergence:
        return PASSED
    reason = fit.divergence(child.graph, rules.task)
    return PASSED if reason is None else Rejected(f"would diverge: {reason}")


GATES: Registry[Gate] = Registry(
    "gate",
    (
        Gate("change", change),
        Gate("types", types),
        Gate("length", length),
        Gate("seen", seen),
        Gate("suits", suits),
        Gate("cost", cost),
        Gate("memory", memory),
        Gate("behaviour", does),
        Gate("divergence", trainable),
    ),
)
"""In the order in which a child meets them: types makes the graph that the rest asks about, and
looking up its hash is cheaper than adding up its cost."""


def judge(child: Child, rules: Rules) -> Verdict:
    """The first verdict of the chain that is no pass, or a pass."""
    for gate in GATES.values():
        verdict = gate.judge(child, rules)
        if verdict is not PASSED:
            return verdict
    return PASSED


def task_cost(graph: Graph, task: Task) -> Cost:
    """The static cost of a program at the task's sizes."""
    return fit.task_cost(graph, task, fit.vocabulary_of(task))


_NEUTRAL = "same function as the parent"
