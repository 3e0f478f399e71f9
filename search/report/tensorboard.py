"""Runs as TensorBoard's event files: a folder and a file for each.

A file is made of the run's record alone, byte for byte, and gets its name when it is whole. So a
second export writes nothing that is there, and one that was interrupted goes on.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from search.errors import PrimevoError
from search.report.runs import Setting, TrackedRun

FILE = "events.out.tfevents.0.primevo"
"""TensorBoard reads the files whose names have `tfevents` in them."""


def write(runs: Iterable[TrackedRun], folder: Path) -> tuple[int, int]:
    """Writes each run's file into a folder of its own below `folder`. Returns how many runs there
    are, and how many files were written; the others were there already."""
    seen = written = 0
    try:
        for run in runs:
            seen += 1
            written += _put(folder / run.name / FILE, content(run))
    except OSError as error:
        raise PrimevoError(f"--to {folder}: cannot be written ({error.strerror})") from None
    return seen, written


def _put(file: Path, data: bytes) -> bool:
    """Whether the file had to be written."""
    if file.exists() and file.read_bytes() == data:
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(".draft")
    draft.write_bytes(data)
    os.replace(draft, file)
    return True


def content(run: TrackedRun) -> bytes:
    """The run's events: its settings as hyperparameters, the validation loss by step, and every
    metric at the last step. Wall times run as the seconds of training did."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in _events(run):
        writer.write(event.SerializeToString(deterministic=True))
    return buffer.getvalue()


def _events(run: TrackedRun) -> Iterable[Any]:
    from tensorboard.compat.proto.event_pb2 import Event

    started = run.finished_at - run.seconds
    yield Event(wall_time=started, file_version="brain.Event:2")
    yield Event(wall_time=started, summary=_started(run, started))
    for point in run.points:
        if point.val_loss is not None:
            at = started + (point.train_seconds or 0.0)
            yield Event(wall_time=at, step=point.steps, summary=_scalar("val_loss", point.val_loss))
    last = run.points[-1].steps if run.points else 0
    for name, value in run.scores.items():
        if not (name == "val_loss" and run.points):
            yield Event(wall_time=run.finished_at, step=last, summary=_scalar(name, value))
    yield Event(wall_time=run.finished_at, summary=_ended(run))


def _scalar(name: str, value: float) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=name, simple_value=value)])


def _started(run: TrackedRun, at: float) -> Any:
    """What the HParams tab reads at the start of a run."""
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    info = plugin_data_pb2.SessionStartInfo(start_time_secs=at, group_name=run.key)
    for name, value in run.settings.items():
        _set(info.hparams[name], value)
    data = plugin_data_pb2.HParamsPluginData(session_start_info=info)
    return _plugin(metadata.SESSION_START_INFO_TAG, data)


def _ended(run: TrackedRun) -> Any:
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_SUCCESS if run.completed else api_pb2.STATUS_FAILURE
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=run.finished_at)
    data = plugin_data_pb2.HParamsPluginData(session_end_info=info)
    return _plugin(metadata.SESSION_END_INFO_TAG, data)


def _set(value: Any, setting: Setting) -> None:
    if isinstance(setting, str):
        value.string_value = setting
    else:
        value.number_value = setting


def _plugin(tag: str, data: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata

    described = metadata.create_summary_metadata(data)
    filled = type(data).FromString(described.plugin_data.content)  # with the plugin's version
    described.plugin_data.content = filled.SerializeToString(deterministic=True)
    value = Summary.Value(tag=tag, metadata=described, tensor=metadata.NULL_TENSOR)
    return Summary(value=[value])
