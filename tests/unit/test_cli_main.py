"""Every end of the command line is an exit code and a sentence, never a traceback."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from meshq.cli import app as apps
from meshq.cli.errors import Trouble, trouble_of
from meshq.cli.exits import MEANINGS, ExitCode
from meshq.cli.main import main
from meshq.cli.options import Session, remember, with_session
from meshq.contract import errors

DOCS = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
RUNNER = CliRunner()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidRequest.field("task.queue", "must be short"), ExitCode.USAGE),
        (errors.NotFound("there is no task x"), ExitCode.NOT_FOUND),
        (errors.Conflict("used with another content"), ExitCode.CONFLICT),
        (errors.PreconditionFailed("task x is RUNNING"), ExitCode.CONFLICT),
        (errors.Overloaded("too much", retry_delay=1.5), ExitCode.UNAVAILABLE),
        (errors.Unavailable("nobody there"), ExitCode.UNAVAILABLE),
        (errors.DeadlineExceeded("too late"), ExitCode.UNAVAILABLE),
        (errors.Aborted("again"), ExitCode.UNAVAILABLE),
        (errors.Unimplemented("what?"), ExitCode.INTERNAL),
        (errors.InternalError("oh"), ExitCode.INTERNAL),
        (errors.MeshqError("odd"), ExitCode.INTERNAL),
    ],
)
def test_errors_become_trouble(error: errors.MeshqError, code: ExitCode) -> None:
    trouble = trouble_of(error, "get task x", {})
    assert trouble.exit_code is code
    assert trouble.sentence().startswith("Cannot get task x: ")
    shape = trouble.shape()["error"]
    assert (shape["exit_code"], shape["code"], shape["reason"]) == (code, error.code.name, error.reason)
    assert json.loads(json.dumps(shape)) == shape


def test_violations_list_field_and_rule() -> None:
    violations = [
        errors.FieldViolation("task.queue", "must be short"),
        errors.FieldViolation("task.type", "x"),
    ]
    trouble = trouble_of(errors.InvalidRequest(violations), "create a task", {})
    assert trouble.sentence().splitlines() == [
        "Cannot create a task: the request breaks rules.",
        "  --queue: must be short",
        "  TYPE: x",
    ]
    assert trouble.shape()["error"]["violations"][0] == {
        "field": "task.queue",
        "rule": "must be short",
        "option": "--queue",
    }


@pytest.mark.parametrize("reason", ["Connection refused", "connect: Connection refused (111)"])
def test_a_refused_connection_is_told_in_plain_words(reason: str) -> None:
    grpc_says = (
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:8080: "
        f"Failed to connect to remote host: {reason}"
    )
    sentence = trouble_of(errors.Unavailable(grpc_says), "list tasks", {}).sentence()
    assert sentence.startswith(
        "Cannot list tasks: no gRPC server answers at 127.0.0.1:8080 (connection refused); "
    )
    assert "meshq up" in sentence


@pytest.mark.parametrize(
    ("grpc_says", "told"),
    [
        (
            (
                "errors resolving none:1: [field:hostname lookup error:address lookup failed for none:1: "
                "Domain name not found]"
            ),
            "the address none:1 cannot be resolved (domain name not found)",
        ),
        ("The ledger is away.", "the ledger is away"),
        ("PostgreSQL is away.", "PostgreSQL is away"),
    ],
)
def test_what_servers_say_ends_the_sentence(grpc_says: str, told: str) -> None:
    trouble = trouble_of(errors.Unavailable(grpc_says), "list tasks", {})
    assert trouble.sentence().startswith(f"Cannot list tasks: {told}; ")


def test_sentences_hold_nothing_that_a_terminal_obeys() -> None:
    assert "\x1b" not in Trouble("bad \x1b[2J", ExitCode.USAGE, "\x1b", {}, (("\x1b", "\x1b"),)).sentence()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "No such command 'nonsense'; see `meshq --help`."),
        (["task"], "Missing command; see `meshq task --help`."),
        (["task", "create"], "Missing argument"),
        (["task", "get", "x", "--nonsense"], "No such option"),
        (["task", "create", "t", "p", "--file", "f"], "give one of PAYLOAD, --file and --data-file"),
        (["task", "create", "t", "--content-type", "x/y"], "--content-type goes with --data-file"),
        (["task", "run", "0199aaaa-0000-7000-8000-000000000000", "p"], "is the id of a task"),
        (["task", "list", "--state", "done"], "is no state"),
        (["task", "create", "t", "--in", "soon"], "Invalid value for '--in': 'soon' is no length of time"),
        (["task", "create", "t", "--at", "soon"], "Invalid value for '--at': 'soon' is no time"),
        (["task", "create", "t", "--label", "a"], "a label is written key=value"),
        (["task", "create", "t", "--unique-for", "1h"], "go with --unique"),
        (
            ["task", "create", "t", "--unique", "k", "--unique-for", "1h", "--unique-until", "started"],
            "one of",
        ),
        (["task", "create", "t", "--unique", "k", "--unique-policy", "ignore"], "--unique-policy"),
        (["task", "bulk", "--string"], "--string goes with --type"),
        (["task", "bulk", "/nowhere"], "cannot read /nowhere"),
        (["task", "cancel"], "give ids of tasks, or else a filter"),
        (["task", "cancel", "id", "--queue", "q"], "give ids of tasks, or else a filter"),
        (["task", "delete", "--queue", "q", "--force"], "--force goes with ids"),
        (["task", "redrive", "id", "--rate", "1"], "--rate and --max go with a filter"),
        (["task", "update", "id"], "say what is to change"),
        (["task", "update", "id", "--label", "a=b", "--no-labels"], "one of --label and --no-labels"),
        (["task", "watch"], "give the id of a task, or else a filter"),
        (["task", "watch", "--all", "--resume", "?"], "is no base64"),
        (["queue", "set", "q"], "say what to set"),
        (["queue", "set", "q", "--rate", "many"], "Invalid value for '--rate': 'many' is no rate"),
        (["queue", "set", "q", "--max-running", "many"], "is no whole number"),
        (["queue", "create", "q", "--burst", "3"], "--burst goes with --rate"),
        (["queue", "create", "q", "--type", "t"], "--type goes with defaults"),
        (["task", "list", "--limit", "0"], "--limit"),
        (["task", "get", "x", "--timeout", "0"], "above 0"),
        (["task", "get", "x", "--timeout", "soon"], "--timeout"),
        (["bench", "--tasks", "0"], "--tasks"),
        (["bench", "--concurrency", "many"], "--concurrency"),
        (["--timeout", "nan", "task", "get", "x"], "above 0"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert main([*arguments, "--json"]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["error"]["exit_code"] == ExitCode.USAGE


def test_help_is_shown_where_nothing_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == ExitCode.OK
    assert "Usage: meshq" in capsys.readouterr().out


def test_exit_codes_are_in_the_help_and_in_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    documented = DOCS.read_text()
    for code, meaning in MEANINGS.items():
        assert f"{code:d} {meaning}" in text
        assert re.search(rf"^\| {code:d} \|", documented, re.MULTILINE)


def test_all_commands_and_options_are_documented() -> None:
    documented = DOCS.read_text()
    command: Any = typer.main.get_command(apps.application(["task"]))
    for name, group in command.commands.items():
        for sub in getattr(group, "commands", {"": group}):
            assert f"meshq {name} {sub}".strip() in documented
    groups = command.commands["task"].commands, command.commands["queue"].commands
    for sub in itertools.chain.from_iterable(group.values() for group in groups):
        for option in (option for parameter in sub.params for option in parameter.opts):
            assert not option.startswith("--") or f"`{option}" in documented, option


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (KeyboardInterrupt, 130, ""),
        (Trouble("It broke", ExitCode.CONFLICT, "mend it"), 5, "Error: It broke; mend it.\n"),
        (ValueError("a fault"), 70, "Error: Internal error: ValueError: a fault; please report it"),
        (errors.NotFound("raw"), 70, "Error: Internal error: NotFound: raw"),
    ],
)
def test_every_end_has_a_code(
    raised: Any, code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("meshq.cli.mesh._version", broken)
    assert main(["version"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(says)
    assert "Traceback" not in err


def seen_session(*arguments: str) -> Session:
    """The session that a command sees for these arguments."""
    seen: list[Session] = []

    @with_session
    def look(session: Session, word: str = "") -> None:
        seen.append(session)

    app = typer.Typer(callback=remember, rich_markup_mode=None)
    app.command("look")(look)
    result = RUNNER.invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return seen[0]


def test_options_count_before_and_after_the_command() -> None:
    for arguments in (
        ["--target", "h:1", "--json", "--timeout", "2", "--no-color", "look"],
        ["look", "--target", "h:1", "--json", "--timeout", "2", "--no-color"],
        ["--target", "h:1", "--no-color", "look", "--json", "--timeout=2", "word"][:-1],
    ):
        session = seen_session(*arguments)
        assert (session.target, session.json, session.timeout, session.color) == ("h:1", True, 2.0, False)
        assert session.output.json
        assert not session.output.color


def test_what_stands_later_counts_more() -> None:
    session = seen_session("--target", "h:1", "--timeout", "1", "look", "--target", "h:2", "--timeout", "3")
    assert (session.target, session.timeout) == ("h:2", 3.0)
    assert seen_session("look") == Session()


def test_after_two_dashes_nothing_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["task", "get", "--", "--json", "x"]) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith("Error: ")


class Entry:
    """An entry point as importlib.metadata gives it."""

    def __init__(self, name: str, load: Callable[[], Any]) -> None:
        self.name, self.load = name, load


def add_entry(monkeypatch: pytest.MonkeyPatch, name: str, load: Callable[[], Any]) -> None:
    def entry_points(*, group: str) -> list[Entry]:
        assert group == apps.GROUP
        return [Entry(name, load)]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load() -> Any:
        raise ModuleNotFoundError("No module named 'psutil'", name="psutil")

    add_entry(monkeypatch, "local", load)
    for command in ("up", "down", "status"):
        assert main([command, "--anything", "x"]) == ExitCode.USAGE
        err = capsys.readouterr().err
        assert err == (
            f"Error: `meshq {command}` needs packages that are not installed (psutil); "
            "install them with `pip install 'meshq[local]'`.\n"
        )


def test_entry_points_bring_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def register(app: typer.Typer) -> None:
        @app.command("dance")
        def dance() -> None:
            """Dance."""
            typer.echo("dancing")

    add_entry(monkeypatch, "other", lambda: register)
    assert main(["dance"]) == ExitCode.OK
    assert capsys.readouterr().out == "dancing\n"
    assert main(["--help"]) == ExitCode.OK
    assert "dance" in capsys.readouterr().out


def test_built_in_commands_do_not_look_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> Any:
        raise AssertionError

    add_entry(monkeypatch, "other", load)
    assert main(["version"]) == ExitCode.OK


def test_task_help_says_how_a_payload_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["task", "create", "--help"]) == ExitCode.OK
    assert "JSON if it parses as JSON, else a string" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("arguments", ["--help", "task --help", "task create --help", "version"])
def test_help_does_not_import_grpc(arguments: str) -> None:
    script = (
        "import sys; from meshq.cli.main import main; code = main(sys.argv[1:]);"
        "print([name for name in ('grpc', 'google') if name in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, *arguments.split()]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stderr == "[]\n"
