"""Settings come from the environment over a file over defaults, and a bad one is named in one sentence."""

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import SecretStr

from meshq.mesh.settings import Addresses, CommaSeparated, ProcessSettings


class Settings(ProcessSettings):
    component: ClassVar[str] = "meshq.example"
    database_url: SecretStr
    colours: CommaSeparated = ()
    shards: Addresses = ("127.0.0.1:1",)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MESHQ_CONFIG", "MESHQ_LISTEN", "MESHQ_WEIGHT", "MESHQ_ZONE", "MESHQ_INSTANCE_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MESHQ_DATABASE_URL", "postgresql://u:secret@h/d")


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        Settings.load()
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_defaults_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHQ_COLOURS", "red, blue,")
    monkeypatch.setenv("MESHQ_WEIGHT", "3")
    settings = Settings.load()
    assert settings.weight == 3
    assert settings.zone == "local"
    assert settings.colours == ("red", "blue")
    assert settings.instance_id.startswith("example-")
    assert settings.instance_id != Settings.load().instance_id


def test_secrets_are_masked() -> None:
    assert "secret" not in repr(Settings.load())


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("MESHQ_LISTEN", "nowhere", "MESHQ_LISTEN: must be host:port"),
        ("MESHQ_LISTEN", "h:70000", "MESHQ_LISTEN: must be host:port"),
        ("MESHQ_SHARDS", "127.0.0.1:1,x", "MESHQ_SHARDS: must be host:port"),
        ("MESHQ_WEIGHT", "heavy", "MESHQ_WEIGHT: "),
        ("MESHQ_WEIGHT", "0", "MESHQ_WEIGHT: "),
        ("MESHQ_INSTANCE_ID", "a b", "MESHQ_INSTANCE_ID: must be 1 to 128"),
        ("MESHQ_CONFIG", "/nowhere.toml", "MESHQ_CONFIG: cannot read /nowhere.toml"),
    ],
)
def test_bad_value_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(name, value)
    said = complaint(capsys)
    assert said.startswith(f"meshq: {expected}")
    assert "secret" not in said


def test_missing_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MESHQ_DATABASE_URL")
    assert complaint(capsys) == "meshq: MESHQ_DATABASE_URL is required.\n"


def test_file_is_common_and_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "meshq.toml"
    file.write_text('zone = "z1"\nweight = 2\n[example]\nweight = 5\ncolours = ["red"]\n[other]\nx = 1\n')
    monkeypatch.setenv("MESHQ_CONFIG", str(file))
    settings = Settings.load()
    assert (settings.zone, settings.weight, settings.colours) == ("z1", 5, ("red",))
    monkeypatch.setenv("MESHQ_WEIGHT", "7")
    assert Settings.load().weight == 7


@pytest.mark.parametrize("content", ["colour = 1", "[example]\ncolour = 1"])
def test_unknown_setting_in_file_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str
) -> None:
    file = tmp_path / "meshq.toml"
    file.write_text(content)
    monkeypatch.setenv("MESHQ_CONFIG", str(file))
    assert "there is no setting 'colour' here" in complaint(capsys)
