"""The machine fails below a campaign: its disk fills up, its database is locked, read-only or cut
short, its clock jumps."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.faults.ledger import Campaign, assert_whole, kept

pytestmark = pytest.mark.faults

CANDIDATES = 60
ODD = "tests.faults.odd"


def running(folder: Path, **settings: str) -> tuple[Campaign, subprocess.Popen[str]]:
    """A campaign with instant workers, some candidates after its start."""
    campaign = Campaign(folder, ODD, {"INSTANT_DELAY_S": "0.05", **settings})
    campaign.configure(CANDIDATES)
    process = campaign.start("launch", "c.yaml")
    await_rows(campaign, 5)
    return campaign, process


def await_rows(campaign: Campaign, count: int) -> None:
    end = time.monotonic() + 120
    while (campaign.recorded() or 0) < count:
        assert time.monotonic() < end, "nothing was recorded"
        time.sleep(0.02)


def failure(process: subprocess.Popen[str], code: int = 1) -> str:
    """What a process said that ends by itself in failure."""
    _, said = process.communicate(timeout=120)
    assert process.returncode == code, said
    assert "Traceback" not in said
    return said


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own in memory."""
    if os.getuid() != 0:
        pytest.skip("a file system can be mounted by root alone")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def fill(ballast: Path) -> None:
    """Writes until the disk is full."""
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space"):
        while True:
            os.write(descriptor, bytes(4096))
    os.close(descriptor)


def test_a_full_disk_ends_the_campaign_and_resume_goes_on(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=4m") as disk:
        campaign, process = running(disk)
        before = campaign.rows()
        fill(disk / "ballast")
        said = failure(process)
        assert "the disk is full; free some space, then resume" in said
        assert "primevo resume c" in said
        (disk / "ballast").unlink()
        assert campaign.status()["stopped"]
        after = campaign.rows()
        assert kept(before, after)
        campaign.finish()
        assert kept(after, campaign.rows())
        assert_whole(campaign, CANDIDATES)


def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    campaign, process = running(tmp_path)
    with closing(sqlite3.connect(tmp_path / "primevo.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        before = campaign.recorded()
        time.sleep(3)
        assert campaign.recorded() == before
        other.execute("ROLLBACK")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert_whole(campaign, CANDIDATES)


def test_a_lock_that_stays_ends_the_campaign_and_resume_goes_on(tmp_path: Path) -> None:
    campaign, process = running(tmp_path, PRIMEVO_BUSY_S="2")
    with closing(sqlite3.connect(tmp_path / "primevo.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        said = failure(process)
        assert "locked by another program for 2 s; end that program" in said
        other.execute("ROLLBACK")
    assert "could not write to the database" in campaign.status()["stopped"]
    before = campaign.rows()
    campaign.finish()
    assert kept(before, campaign.rows())
    assert_whole(campaign, CANDIDATES)


def test_a_read_only_disk_is_told_and_resume_goes_on_once_it_is_not(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=20m") as disk:
        campaign, process = running(disk)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        before = campaign.rows()
        remount(disk, "ro")
        said = failure(campaign.start("resume", "c"))
        assert "cannot be" in said
        remount(disk, "rw")
        campaign.finish()
        assert kept(before, campaign.rows())
        assert_whole(campaign, CANDIDATES)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_database_cut_short_is_told_and_its_copy_goes_on(tmp_path: Path, share: float) -> None:
    campaign, process = running(tmp_path)
    path = tmp_path / "primevo.db"
    with (
        closing(sqlite3.connect(path)) as source,
        closing(sqlite3.connect(tmp_path / "copy")) as copy,
    ):
        source.backup(copy)
        source.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that the file itself is read
    os.truncate(path, int(path.stat().st_size * share))
    said = failure(process)
    assert "primevo.db" in said
    assert "damaged" in said or "not a SQLite database" in said
    for left in tmp_path.glob("primevo.db*"):
        left.unlink()
    shutil.copy(tmp_path / "copy", path)
    before = campaign.rows()
    assert len(before) >= 5
    campaign.finish()
    assert kept(before, campaign.rows())
    assert_whole(campaign, CANDIDATES)


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path) -> None:
    """The same campaign with a steady clock records the same; and it can be killed between."""
    rows = []
    for clock in ("steady", "jumping"):
        (tmp_path / clock).mkdir()
        settings = {"INSTANT_DELAY_S": "0.02", "PRIMEVO_CLOCK": clock}
        campaign = Campaign(tmp_path / clock, ODD, settings)
        campaign.configure(CANDIDATES, "{count: 1}")
        process = campaign.start("launch", "c.yaml")
        await_rows(campaign, 20)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        status = campaign.status()
        assert status["eta_s"] is None or status["eta_s"] >= 0
        campaign.finish()
        assert_whole(campaign, CANDIDATES)
        rows.append(campaign.rows())
    assert rows[0] == rows[1]
