"""Jobs that share what is compiled for them: those of one program and one budget."""

from __future__ import annotations

from collections import OrderedDict

from primitives.errors import ProgramError
from primitives.graph.build import IllTyped
from primitives.language.text import parse
from workers.pool.crew import Ticket
from workers.spec.fit import task_graph
from workers.spec.outcome import Compiled, Job
from workers.spec.task import Task

KEPT = 16
"""How many compiled programs are kept for jobs to come, such as the final runs of a program with
other seeds; each takes some megabytes."""

Program = tuple[str, str, float, str]
"""The canonical hash, and the budget, on which it depends what is worth compiling; the job's task
as JSON, empty where it is that of all."""


class Twins:
    """Who waits for whose compilation, and the last ones that were made."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._first: dict[Program, Ticket] = {}
        self._waiting: dict[Program, list[Ticket]] = {}
        self._kept: OrderedDict[Program, Compiled] = OrderedDict()

    def must_compile(self, ticket: Ticket) -> bool:
        """Whether the job is to be compiled. Else it is compiled already, or is kept here until
        `made` or `failed` is told of the one that it waits for."""
        program = self._program(ticket.job)
        if program is None:
            return True
        if program in self._kept:
            self._kept.move_to_end(program)
            ticket.compiled = self._kept[program]
            return False
        if self._first.setdefault(program, ticket) is ticket:
            return True
        self._waiting.setdefault(program, []).append(ticket)
        return False

    def made(self, ticket: Ticket, compiled: Compiled) -> list[Ticket]:
        """The job is compiled; returns it and those that waited for it."""
        tickets = [ticket]
        if program := self._program(ticket.job):
            self._first.pop(program, None)
            tickets += self._waiting.pop(program, [])
            self._kept[program] = compiled
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        for each in tickets:
            each.compiled = compiled
        return tickets

    def failed(self, ticket: Ticket) -> list[Ticket]:
        """The job could not be compiled; returns those that waited, to be tried on their own."""
        program = self._program(ticket.job)
        if program is None:
            return []
        self._first.pop(program, None)
        return self._waiting.pop(program, [])

    def _program(self, job: Job) -> Program | None:
        """None for a job that is no program, which a worker is to say."""
        return _program(job, job.task or self._task)


def _program(job: Job, task: Task) -> Program | None:
    try:
        graph = task_graph(parse(job.dna), task)
    except ProgramError:
        return None
    if isinstance(graph, IllTyped):
        return None
    own = job.task.model_dump_json() if job.task else ""
    return graph.hash, job.budget.unit, job.budget.amount, own
