"""Processes that a fork server starts: like those of `python -m`, and none outlives the other side."""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
from fixtures.processes import alive, until

from meshq.local import forks as forks_module
from meshq.local.child import Child, Guard
from meshq.local.forks import ForkRefused, Forks
from meshq.local.servers import bound_to_parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks without exec are for Linux only")

TELLER = """
import json, os, sys
if __name__ == "__main__":
    # The descriptor of the folder itself is among them, and closed by now.
    files = [os.readlink(path) for path in map("/proc/self/fd/{}".format, os.listdir("/proc/self/fd"))
             if os.path.lexists(path)]
    print(json.dumps({"argv": sys.argv, "environment": dict(os.environ), "folder": os.getcwd(),
        "session": os.getsid(0), "group": os.getpgid(0), "files": files, "input": sys.stdin.read()}))
"""
ENDER = """
import atexit, os, signal, sys, threading, time
def work():
    time.sleep(0.05)
    print("the thread has ended")
if __name__ == "__main__":
    atexit.register(print, "the end")
    threading.Thread(target=work).start()
    exec(sys.argv[1])
"""
SLEEPER = """
import signal
if __name__ == "__main__":
    print("asleep")
    while True:
        signal.pause()
"""
CHANCE = """
import random
from meshq.contract import ids
if __name__ == "__main__":
    print(random.random(), ids.new_task_id())
"""
THREADED = "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
BROKEN = "import there_is_no_such_module"
PROGRAMS = {
    "teller": TELLER,
    "ender": ENDER,
    "sleeper": SLEEPER,
    "chance": CHANCE,
    "threaded": THREADED,
    "broken": BROKEN,
}
USED = ("teller", "ender", "sleeper", "chance", "broken")

Begin = Callable[..., Child]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where the modules are found, beside what this process finds."""
    for name, text in PROGRAMS.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__main__.py").write_text(text)
    return {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": "1", "LC_ALL": "C.UTF-8"}


@pytest.fixture
async def guard() -> AsyncIterator[Guard]:
    started = Guard.start()
    yield started
    started.close()


@pytest.fixture
async def forks(environment: dict[str, str], guard: Guard, tmp_path: Path) -> AsyncIterator[Forks]:
    started = Forks(USED, environment, tmp_path / "forkserver.log", guard)
    assert await started.usable()
    yield started
    await started.stop()


@pytest.fixture(params=["fork", "exec"])
def begin(
    request: pytest.FixtureRequest, forks: Forks, environment: dict[str, str], guard: Guard, tmp_path: Path
) -> Begin:
    """Starts `python -m module words` in one way or the other."""

    def start(module: str, *words: str, **more: str) -> Child:
        given = {**environment, **more}
        with (tmp_path / "log").open("ab") as log:
            if request.param == "fork":
                return forks.fork(module, words, environment=given, log=log)
            command = bound_to_parent([sys.executable, "-m", module, *words])
            return Child.spawn(command, environment=given, stdin=b"", log=log, guard=guard)

    return start


async def test_it_finds_what_python_m_finds(
    begin: Begin, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "log").write_text("what was there\n")
    child = begin("teller", "--some", "word", OWN="1", ODD="\udcff")
    assert await child.wait() == 0
    before, told = (tmp_path / "log").read_text().splitlines()
    assert before == "what was there"
    found = json.loads(told)
    assert found["argv"] == [str(tmp_path / "teller" / "__main__.py"), "--some", "word"]
    assert found["environment"] == {**environment, "OWN": "1", "ODD": "\udcff"}
    assert found["folder"] == str(Path.cwd())
    assert found["session"] == found["group"] == child.pid
    assert sorted(found["files"]) == [os.devnull, *[str(tmp_path / "log")] * 2]
    assert found["input"] == ""


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        ("pass", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('the reason')", 1, "the reason"),
        ("raise ValueError('the error')", 1, "ValueError: the error"),
    ],
)
async def test_it_ends_as_programs_do(
    begin: Begin, tmp_path: Path, program: str, code: int, said: str
) -> None:
    assert await begin("ender", program).wait() == code
    log = (tmp_path / "log").read_text()
    assert said in log
    assert log.index("the thread has ended") < log.index("the end")
    assert ("Traceback" in log) == program.startswith("raise")


async def test_signals_end_it(begin: Begin, tmp_path: Path) -> None:
    child = begin("sleeper")
    await until(lambda: "asleep" in (tmp_path / "log").read_text())  # written at once, without a flush
    child.send(signal.SIGTERM)
    assert await child.wait() == -signal.SIGTERM
    assert not child.alive
    child.send(signal.SIGTERM)
    assert not alive(child.pid)


async def test_each_is_called_by_what_it_is(begin: Begin, tmp_path: Path) -> None:
    child = begin("sleeper", "word")
    await until(lambda: "asleep" in (tmp_path / "log").read_text())
    assert " ".join(psutil.Process(child.pid).cmdline()).rstrip() == f"{sys.executable} -m sleeper word"
    await child.stop(signal.SIGTERM, 5)


async def test_no_two_draw_the_same(begin: Begin, tmp_path: Path) -> None:
    for _ in range(3):
        assert await begin("chance").wait() == 0
    drawn = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert all(len(set(column)) == 3 for column in zip(*drawn, strict=True))


async def test_what_cannot_be_imported_says_so_in_its_own_log(begin: Begin, tmp_path: Path) -> None:
    assert await begin("broken").wait() == 1
    assert "No module named 'there_is_no_such_module'" in (tmp_path / "log").read_text()


async def test_a_killed_server_takes_its_children_along_and_is_replaced(
    forks: Forks, environment: dict[str, str], tmp_path: Path
) -> None:
    def sleeper() -> Child:
        with (tmp_path / "log").open("ab") as log:
            return forks.fork("sleeper", (), environment=environment, log=log)

    children = [sleeper(), sleeper()]
    forks.kill()
    for child in children:
        assert await child.wait() == -signal.SIGKILL
        assert not alive(child.pid)
    with pytest.raises(ForkRefused):
        sleeper()
    assert forks._server is not None
    await forks._server.wait()
    assert await forks.usable()
    replaced = sleeper()
    await replaced.stop(signal.SIGTERM, 5)


async def test_what_starts_threads_is_not_forked(
    environment: dict[str, str], guard: Guard, tmp_path: Path
) -> None:
    log = tmp_path / "forkserver.log"
    refused = Forks(["threaded"], environment, log, guard)
    assert not await refused.usable()
    assert not await refused.usable()
    assert log.read_text().count("starts threads") == 1
    await refused.stop()


async def test_none_is_started_where_forks_are_unsafe(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], guard: Guard, tmp_path: Path
) -> None:
    monkeypatch.setattr(forks_module, "supported", lambda: False)
    elsewhere = Forks(USED, environment, tmp_path / "forkserver.log", guard)
    assert not await elsewhere.usable()
    assert not (tmp_path / "forkserver.log").exists()
    await elsewhere.stop()
