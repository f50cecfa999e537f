"""What people write on the command line becomes the right values, or an error that says what is wrong."""

from __future__ import annotations

import datetime as dt
import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from meshq.cli import inputs
from meshq.cli.naming import option_of
from meshq.client.models import TaskState
from meshq.contract.limits import MAX_MESSAGE_BYTES

NOW = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, null]}', {"a": [1, None]}),
        ("3", 3),
        ("true", True),
        ("null", None),
        ('"quoted"', "quoted"),
        ("word1 word2 word3", "word1 word2 word3"),
        ("", ""),
        ("{broken", "{broken"),
        ("NaN", "NaN"),
        ("[Infinity]", "[Infinity]"),
        ("-", "-"),
    ],
)
def test_a_payload_is_json_if_it_parses(text: str, value: object) -> None:
    assert inputs.parse_payload(text) == value


@given(st.text())
def test_as_string_takes_everything_as_it_is(text: str) -> None:
    assert inputs.parse_payload(text, as_string=True) == text


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=10))
def test_all_json_is_read_back(value: object) -> None:
    assert inputs.parse_payload(json.dumps(value)) == value


def test_endless_nesting_is_an_error() -> None:
    with pytest.raises(typer.BadParameter, match="nests too deep"):
        inputs.parse_payload("[" * 100_000)


def test_files_and_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.txt").write_text("grüße\n")
    assert inputs.read_text(str(tmp_path / "in.txt")) == "grüße\n"
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"\x00\xff")))
    assert inputs.read_bytes("-") == b"\x00\xff"


@pytest.mark.parametrize("name", ["missing", "."])
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(typer.BadParameter, match=f"cannot read .*{name}"):
        inputs.read_bytes(str(tmp_path / name) if name != "." else ".")


def test_bytes_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "in.bin").write_bytes(b"\xff")
    with pytest.raises(typer.BadParameter, match="--data-file"):
        inputs.read_text(str(tmp_path / "in.bin"))


def test_an_endless_input_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(MAX_MESSAGE_BYTES + 2)
    with pytest.raises(typer.BadParameter, match="at most 1 MiB"):
        inputs.read_bytes(str(tmp_path / "huge"))


def test_pairs() -> None:
    assert inputs.parse_pairs(["a=b", "c=d=e", "f="], "a header") == {"a": "b", "c": "d=e", "f": ""}
    for wrong in ("a", "=b"):
        with pytest.raises(typer.BadParameter, match="key=value"):
            inputs.parse_pairs([wrong], "a header")
    with pytest.raises(typer.BadParameter, match="a label is given twice: a=1 and a=2"):
        inputs.parse_pairs(["a=1", "b=1", "a=2"], "a label")


def test_states_in_any_case() -> None:
    assert inputs.parse_states(["failed", "Running"]) == [TaskState.FAILED, TaskState.RUNNING]
    for wrong in ("done", "unspecified"):
        with pytest.raises(typer.BadParameter, match="SUCCEEDED"):
            inputs.parse_states([wrong])


@pytest.mark.parametrize(
    ("text", "time"),
    [
        (None, None),
        ("10m", NOW - dt.timedelta(minutes=10)),
        ("2h", NOW - dt.timedelta(hours=2)),
        ("2026-01-01T00:00:00Z", dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
        ("2026-01-01T02:00:00+02:00", dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
    ],
)
def test_times(text: str | None, time: dt.datetime | None) -> None:
    assert inputs.parse_time(text, NOW) == time


def test_a_time_without_zone_is_local() -> None:
    parsed = inputs.parse_time("2026-01-01 00:00", NOW)
    assert parsed == dt.datetime(2026, 1, 1).astimezone()


@pytest.mark.parametrize("text", ["yesterday", "10", "10w", "", "999999999d"])
def test_no_times(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no time"):
        inputs.parse_time(text, NOW)


def test_an_id_is_told_from_a_type() -> None:
    assert inputs.is_task_id("0199AAAA-0000-7000-8000-000000000000")
    assert not inputs.is_task_id("word_count")
    assert not inputs.is_task_id("0199AAAA-0000-7000-8000-000000000000x")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("10s", 10), ("5m", 300), ("2h", 7_200), ("7d", 604_800), ("1h30m", 5_400), ("0", 0)],
)
def test_spans(text: str, seconds: float) -> None:
    assert inputs.parse_span(text) == dt.timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "10", "m", "-1s", "1 h", "10w", "soon", "999999999d999999999d"])
def test_no_spans(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"is no length of time|is too long"):
        inputs.parse_span(text)


def test_rates() -> None:
    assert inputs.parse_rate("100/s") == (100, dt.timedelta(seconds=1))
    assert inputs.parse_rate("5/10m") == (5, dt.timedelta(minutes=10))
    for wrong in ("100", "/s", "1.5/s", "5/"):
        with pytest.raises(typer.BadParameter, match="is no rate"):
            inputs.parse_rate(wrong)


def test_none_takes_back() -> None:
    parse = inputs.or_none(inputs.parse_days)
    assert (parse("7d"), parse("30"), parse("None")) == (7, 30, inputs.NONE)


@pytest.mark.parametrize(
    ("field", "option"),
    [
        ("task.priority", "--priority"),
        ("tasks[17].labels['x']", "--label['x']"),
        ("task.payload.rows[3]", "PAYLOAD.rows[3]"),
        ("task.type", "TYPE"),
        ("filter.type", "--type"),
        ("type", "--type"),
        ("filter.states", "--state"),
        ("queue.limits.rate.burst", "--burst"),
        ("queue.limits.rate_per_key.period", "--rate-per-key.period"),
        ("queue.type_defaults['a.b'].retry_policy.jitter", "--retry-jitter"),
        ("queue.queue", "NAME"),
        ("page_size", None),
    ],
)
def test_fields_have_the_names_of_options(field: str, option: str | None) -> None:
    assert option_of(field) == option


def test_a_command_may_call_a_field_otherwise() -> None:
    assert (option_of("queue"), option_of("queue", {"queue": "NAME"})) == ("--queue", "NAME")
