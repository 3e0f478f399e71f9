"""Ray's own servers are killed below a pool."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.faults.conftest import Driver

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("server", ["raylet", "gcs_server"])
def test_ray_is_started_again_and_every_job_ends_once(
    drive: Callable[..., Driver], server: str
) -> None:
    driver = drive("sleep 5", "sleep 5", "ok", "ok")
    driver.until("warm")
    driver.kill(server)
    assert driver.ended(4) == dict.fromkeys(range(4), "completed")
    assert driver.process.wait(60) == 0


def test_ray_that_dies_while_workers_start_is_started_again(drive: Callable[..., Driver]) -> None:
    driver = drive("ok")
    driver.until("up")
    driver.kill("raylet")
    driver.until("warm")
    assert driver.ended(1) == {0: "completed"}


def test_the_second_death_ends_the_pool_and_names_resume(drive: Callable[..., Driver]) -> None:
    driver = drive("sleep 1", "sleep 1", "sleep 1000")
    driver.until("warm")
    driver.kill("raylet")
    assert driver.ended(2) == {0: "completed", 1: "completed"}  # on the second Ray
    killed = time.monotonic()
    driver.kill("gcs_server")
    _, message = driver.until("lost")
    assert time.monotonic() - killed < 30
    assert "GCS server has died twice" in message
    assert "primevo resume" in message
    assert driver.process.wait(60) == 0
