"""What several test modules share: a cache of their own, one Ray, one PostgreSQL server, and a task
small enough to train in a second."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.postgresql import Server, serving

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session", autouse=True)
def token_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the tests, and the processes they start, out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIMEVO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def ray_session(token_cache: None) -> Iterator[None]:
    """A Ray with 4 logical CPUs that every Pool of this process joins, since each start costs
    seconds."""
    from workers.pool.local import OBJECT_STORE_BYTES, ray

    ray.init(
        address="local",
        num_cpus=4,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server of this process. Where none is installed the test is skipped, or fails
    where PRIMEVO_TEST_POSTGRESQL is `required`, as it is in .ci/run."""
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def _postgresql_database(postgresql: Server) -> str:
    return postgresql.new_database()


@pytest.fixture
def postgresql_url(_postgresql_database: str) -> str:
    """The URL of a PostgreSQL database without a campaign."""
    from search.storage.models import Base
    from search.storage.store import Store

    tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
    with Store.open(_postgresql_database) as store, store._engine.begin() as connection:
        connection.exec_driver_sql(f"TRUNCATE {tables} RESTART IDENTITY")
    return _postgresql_database


@pytest.fixture(scope="session")
def tiny_task() -> Any:
    """One layer of 16 channels on the installed corpus: a step takes milliseconds."""
    from workers.spec.task import DataSpec, ModelSpec, OptimizerSpec, Task, TrainingSpec

    return Task(
        data=DataSpec(max_documents=40),
        model=ModelSpec(d_model=16, layers=1, sequence_length=16),
        optimizer=OptimizerSpec(warmup_steps=10),
        training=TrainingSpec(batch_size=4, eval_batches=2),
    )
