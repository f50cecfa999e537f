"""The data directory: ports and processes remembered, one system at a time, and clear sentences."""

import errno
import io
import shutil
import socket
from pathlib import Path
from typing import NamedTuple

import pytest

from meshq.local import datadir, ports
from meshq.local.board import LineBoard, table
from meshq.local.errors import AlreadyRunning, DataUnusable, NotRunning
from meshq.local.running import state_of
from meshq.local.state import FILE, ProcessState, SystemState

RUNNING = SystemState(
    edge="127.0.0.1:8080",
    ready=True,
    supervisor=1,
    ports={"etcd": 21000},
    processes=(ProcessState("etcd", "etcd", "ready", "127.0.0.1:21000", 12, 0, 1.5),),
)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_state_is_read_as_written(tmp_path: Path) -> None:
    RUNNING.write(tmp_path)
    assert SystemState.read(tmp_path) == RUNNING


@pytest.mark.parametrize("content", ["", "{", "[]", '{"processes": [{"unknown": 1}]}', '{"other": 1}'])
def test_state_that_makes_no_sense_is_empty(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    assert SystemState.read(tmp_path) == SystemState()


def test_free_ports_are_different_and_free() -> None:
    found = ports.free_ports(20)
    assert len(set(found)) == 20
    assert all(map(ports.is_free, found))


def test_a_port_somebody_listens_on_is_not_free() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert not ports.is_free(taken.getsockname()[1])


def test_lock_is_held_once(tmp_path: Path) -> None:
    first, second = datadir.Lock(tmp_path), datadir.Lock(tmp_path)
    assert datadir.holder_of(tmp_path) is None
    first.acquire()
    assert datadir.holder_of(tmp_path)
    with pytest.raises(AlreadyRunning, match="meshq down"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_nothing_runs_where_nobody_holds_the_lock(tmp_path: Path) -> None:
    RUNNING.write(tmp_path)
    with pytest.raises(NotRunning, match="No meshq runs"):
        state_of(tmp_path)


def test_too_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, 1 << 40, 150 << 20))
    with pytest.raises(DataUnusable, match="Only 150 MB are free"):
        datadir.create(tmp_path)


def test_data_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataUnusable, match="cannot be used"):
        datadir.create(tmp_path / "file")


def test_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataUnusable, match="is full"), datadir.translated(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_logs_are_put_aside(tmp_path: Path) -> None:
    datadir.create(tmp_path)
    log = datadir.log_of(tmp_path, "etcd")
    for run in range(6):
        log.write_text(str(run))
        datadir.rotate_logs(tmp_path)
    kept = {path.name: path.read_text() for path in log.parent.iterdir()}
    assert kept == {"etcd.log.1": "5", "etcd.log.2": "4", "etcd.log.3": "3"}


def test_plain_lines_say_each_state_once() -> None:
    stream = io.StringIO()
    board = LineBoard(stream)
    for state in ("waiting", "starting", "starting", "ready"):
        board.show(ProcessState("etcd", "etcd", state, "127.0.0.1:21000"))
    lines = stream.getvalue().splitlines()
    assert [line.split(" s  ")[1] for line in lines] == ["etcd starting", "etcd ready on 127.0.0.1:21000"]


def test_board_has_a_row_for_each_process() -> None:
    assert table({process.name: process for process in RUNNING.processes}, {"etcd": 0.5}).row_count == 1


def test_a_disk_that_was_full_is_known_from_the_logs(tmp_path: Path) -> None:
    datadir.create(tmp_path)
    assert not datadir.was_full(tmp_path)
    complaint = "FATAL: could not write to file: No space left on device\n"
    datadir.log_of(tmp_path, "postgres").write_text(complaint)
    assert datadir.was_full(tmp_path)


def test_temporary_files_of_the_last_run_go_at_the_start(tmp_path: Path) -> None:
    datadir.clear_temporary(tmp_path)
    (datadir.temporary(tmp_path) / "left-behind").mkdir()
    datadir.clear_temporary(tmp_path)
    assert list(datadir.temporary(tmp_path).iterdir()) == []
