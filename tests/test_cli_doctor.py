"""What doctor says of the closed loop, and that the help's and the pages' commands for it exist."""

import importlib.util
import re
import socket
from pathlib import Path

import pytest

from drive import cli
from drive.cli.closed_loop import CLOSED_LOOP, latency_of
from drive.cli.config import CONFIGS, load_config
from drive.cli.doctor import AGENT, home_fault, port_is_free, server_fault
from drive.cli.eval import addressed

client = pytest.mark.skipif(not all(map(importlib.util.find_spec, ("carla", "msgpack"))), reason="no carla wheel, or no msgpack")
ROOT = Path(__file__).parents[1]


@client
def test_doctor_starts_a_server_and_drives_a_tick(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr("drive.cli.doctor.PORTS", (taken.getsockname()[1],))
        assert cli.main(["doctor", "carla"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["server"].endswith("a server of our own starts, answers and ticks")
    assert "in use" in lines["port"] and "not installed" not in lines["msgpack"]
    path = re.search(r"^agent  *(.*\.py) ", lines["agent"])  # docs/carla.md takes it out so
    assert path is not None and Path(path[1]) == AGENT and AGENT.is_file()


@client
def test_doctor_tells_why_a_server_does_not_come_up(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr("sys.executable", "/bin/false")
    fault = server_fault()
    assert fault is not None and fault.startswith("BROKEN (the CARLA-compatible server did not come up")
    assert cli.main(["doctor", "carla"]) == 1
    assert "server        BROKEN" in capsys.readouterr().out


def test_a_home_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("CARLA_CACHE_DIR", raising=False)
    assert "neither HOME nor CARLA_CACHE_DIR" in str(home_fault())
    monkeypatch.setenv("CARLA_CACHE_DIR", "cache")
    assert home_fault() is None


def test_a_port_is_free_until_it_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not port_is_free(port)
    assert port_is_free(port)


def commands(text: str) -> list[list[str]]:
    """The settings of every `drive eval` line, comments and placeholders left out."""
    lines = [line.strip().removeprefix("$ ") for line in text.splitlines()]
    found = [line.split("  ")[0].split(" #")[0].split()[2:] for line in lines if line.startswith("drive eval ")]
    return [[word for word in words if "=" in word or word.startswith("carla://")] for words in found]


@pytest.mark.parametrize("page", ["drive/cli/eval.py", "docs/carla.md", "README.md"])
def test_every_command_that_is_shown_has_settings_that_exist(page: str):
    shown = commands((ROOT / page).read_text(encoding="utf-8"))
    assert len(shown) >= 3
    for words in shown:
        words = [re.sub(r"<.*|…", "x", word) for word in words]  # checkpoint=runs/<the run>, runs/…-grpo
        load_config("eval", addressed(words))  # raises where a setting does not exist


@pytest.mark.parametrize("name", CLOSED_LOOP)
def test_closed_loop_settings_are_explained_and_documented(name: str):
    text = (CONFIGS / "benchmark" / f"{name}.yaml").read_text(encoding="utf-8")
    keys = re.findall(r"^([a-z_]+): *[^#\n]*(#.*)?$", text, re.M)
    page = (ROOT / "docs/carla.md").read_text(encoding="utf-8")
    plain = {"benchmark", "port", "workers", "walkers"}  # told by their name, or by the line above
    assert not [key for key, comment in keys if not comment and key not in plain]
    assert not [key for key, _ in keys if key != "benchmark" and f"`{key}`" not in page]


@pytest.mark.parametrize(("typed", "seconds"), [("0.1", 0.1), ("0.1s", 0.1), ("0", 0.0), ("2", 2.0), ("measured", None)])
def test_latency_can_be_typed_as_the_help_says(typed: str, seconds: float | None):
    config = load_config("eval", ["benchmark=carla_routes", f"latency={typed}"])
    assert latency_of(config.latency) == seconds
