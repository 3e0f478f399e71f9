"""A Ray on this machine that belongs to this process: its folder, its servers, its end."""

from __future__ import annotations

import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import ray
from ray._private import worker as ray_worker

OBJECT_STORE_BYTES = 80 * 2**20
"""Near Ray's minimum: jobs and outcomes are small, tokens are shared through files."""

SERVERS = {"raylet": "raylet", "gcs_server": "GCS server"}
"""Ray's processes that nothing works without, with the names that its documentation uses."""


@dataclass(frozen=True, slots=True)
class Session:
    """A Ray that this process started."""

    folder: Path

    def lost(self) -> str | None:
        """The name of a server that has died, if one has."""
        dead = (kind for kind, _ in ray_worker._global_node.dead_processes())
        return next((SERVERS[kind] for kind in dead if kind in SERVERS), None)

    def end(self) -> None:
        """Ends Ray and removes the folder."""
        ray.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)


def start(cpus: int, gpus: int) -> Session:
    """Starts Ray with a folder of its own: parallel campaigns do not meet, and the logs go with it.
    Under /tmp, because the paths of its sockets must be short."""
    folder = Path(tempfile.mkdtemp(prefix="primevo-", dir="/tmp"))
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(folder),
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Session(folder)
