"""What a process and its machine have of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.machine.memory import MB, resident_mb, total_mb


def test_resident_memory_grows_with_what_is_held() -> None:
    before = resident_mb()
    held = bytearray(b"x" * 50 * MB)
    assert 45 < resident_mb() - before < 120
    del held


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_container_has_its_limit_or_the_machine(tmp_path: Path, name: str) -> None:
    machine = total_mb(tmp_path)  # no such file
    lines = Path("/proc/meminfo").read_text().split()
    assert machine == pytest.approx(int(lines[1]) / 1024, rel=0.01)
    limit = tmp_path / name
    limit.parent.mkdir(exist_ok=True)
    limit.write_text(f"{100 * MB}\n")
    assert total_mb(tmp_path) == 100
    for unlimited in ("max\n", "9223372036854771712\n"):
        limit.write_text(unlimited)
        assert total_mb(tmp_path) == machine
