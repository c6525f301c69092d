"""The closed-loop runner: equal tables from equal seeds, and what becomes of servers, workers, runs and planners that fail."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgpack
import numpy as np
import pytest
from carla_client import REPOSITORY
from carla_planners import Dies, Ends, Fails, Kills

from drive.benchmarks.carla_drive import DriveConfig
from drive.benchmarks.carla_routes import Where, evaluate_routes
from drive.benchmarks.carla_summary import write_summary
from drive.cli.closed_loop import latency_of, named_routes
from drive.cli.eval import addressed
from drive.core.errors import ConfigError, DataError, DriveError
from drive.core.seeds import numpy_rng
from drive.metrics.carla_bench2drive import Version
from drive.metrics.carla_scores import Rule
from drive.planners.pdm import PdmExpert
from drive.report.closed_loop import all_tables
from drive.simulators.carla_process import ServerProcess
from drive.simulators.carla_routes import CarlaRoute
from drive.simulators.routes import sample_route
from drive.simulators.towns import load_town

pytestmark = pytest.mark.skipif(importlib.util.find_spec("carla") is None, reason="the carla wheel is not installed")
CONFIG, WHERE = DriveConfig(Rule.BENCH2DRIVE, seed=3), Where(timeout_s=5.0)


def short_routes(count: int = 2, town: str = "test_c") -> list[CarlaRoute]:
    """Routes of 40 m or so."""
    routes = []
    for k in range(count):
        path = sample_route(load_town(town), numpy_rng(k, "short"), 40.0).path
        rows = path[[0, len(path) // 2, -1]]
        routes.append(CarlaRoute(f"short-{k}", town, np.column_stack([rows[:, 0], -rows[:, 1], np.zeros(3)]), None, (), ()))
    return routes


def route_file(routes: list[CarlaRoute], path):
    """As a route file of leaderboard 2.0."""
    lines = ["<routes>"]
    for route in routes:
        points = "".join(f'<position x="{x}" y="{y}" z="{z}"/>' for x, y, z in route.keypoints.tolist())
        lines.append(f'<route id="{route.id}" town="{route.town}"><waypoints>{points}</waypoints><scenarios/></route>')
    path.write_text("\n".join([*lines, "</routes>"]))
    return path


def drive(out, make_planner: Callable = PdmExpert, routes=None, config=CONFIG, workers=1, where=WHERE):
    routes = short_routes() if routes is None else routes
    result = evaluate_routes(routes, make_planner().name, make_planner, where, config, out, None, workers, progress=False)
    write_summary(out, result, "short")
    return result, "\n\n".join(all_tables(result, "carla_routes", "short", Version.V0_0_3))


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """Folder, result and table of an evaluation in which nothing goes wrong."""
    out = tmp_path_factory.mktemp("usual")
    return out, *drive(out)


def test_short_routes_are_driven(usual):
    out, result, table = usual
    assert [r.reached for r in result.records] == [True] * 2 and all(r.score_composed == 100.0 for r in result.records)
    assert "PARTIAL" not in table and json.loads((out / "results.json").read_text())["entry_status"] == "Finished"


def test_two_workers_give_the_same_table(usual, tmp_path):
    assert drive(tmp_path, workers=2)[1] == usual[2]


def test_finished_routes_are_not_driven_again(usual, tmp_path):
    out, _, table = usual
    kept = {path: path.stat().st_mtime_ns for path in (out / "routes").iterdir()}
    assert len(kept) == 2 and drive(out)[1] == table and kept == {path: path.stat().st_mtime_ns for path in (out / "routes").iterdir()}
    with pytest.raises(DataError, match=r"other settings \(seed was 3, now 4\)"):
        drive(out, config=DriveConfig(Rule.BENCH2DRIVE, seed=4))
    with pytest.raises(DataError, match="the planner, its settings or weights, or the maps"):
        evaluate_routes(short_routes(), "another", PdmExpert, WHERE, CONFIG, out, progress=False)
    moved = [replace(route, keypoints=route.keypoints + 1.0) for route in short_routes()]
    with pytest.raises(DataError, match="the route itself differs"):
        drive(out, routes=moved)
    torn = sorted((out / "routes").iterdir())[0]
    text = torn.read_text()
    torn.write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match="delete it"):
        drive(out)
    torn.unlink()
    assert drive(out)[1] == table


def test_routes_whose_server_or_worker_is_killed_are_driven_again(usual, tmp_path):
    result, table = drive(tmp_path / "out", partial(Kills, str(tmp_path)))
    assert (tmp_path / "server").exists() and (tmp_path / "worker").exists()
    assert table == usual[2] and len(result.finished) == 2


def test_a_worker_that_always_dies_costs_its_route_alone(usual, tmp_path, capfd):
    drive(tmp_path, partial(Dies, 0), short_routes(1))
    result, table = drive(tmp_path, partial(Dies, 1), workers=2)
    assert [f.crashed for f in result.finished] == [False, True]
    assert "the process that drives route short-1 died 3 times" in capfd.readouterr().err
    assert "PARTIAL 50.0 %" in table and "Simulation crashed: route short-1" in table
    with pytest.raises(DriveError, match="died 3 times"):
        drive(tmp_path / "never", partial(Dies, 1), short_routes(1))


def test_a_server_that_is_gone_is_not_waited_for_on_every_route(tmp_path, capfd):
    server = ServerProcess(seed=3)
    server.start()
    try:
        where = Where(server.host, server.port, timeout_s=1.0)
        assert server._process is not None
        with pytest.raises(DriveError, match=f"the server at {server.host}:{server.port} could not be reached for 2 routes in a row"):
            drive(tmp_path, partial(Ends, server._process.pid), short_routes(8), where=where)
    finally:
        server.stop()
    left = sorted(json.loads(path.read_text())["record"]["status"] for path in (tmp_path / "routes").iterdir())
    assert left == ["Completed", "Failed - Simulation crashed"], "what was driven is kept, and what comes after the second is not begun"


def test_planners_that_fail_are_told_and_count_nothing(tmp_path, capfd):
    result, table = drive(tmp_path, Fails, short_routes(4))
    assert [r.status for r in result.records] == ["Failed - Agent crashed"] * 3 + ["Failed - Agent couldn't be set up"]
    assert all(r.score_composed < 20.0 for r in result.records) and result.records[3].score_composed == 0.0
    assert table.count("Failed - Agent crashed") == 3 and result.coverage == 0.0 and "PARTIAL 0.0 %" in table
    assert "planner failed: 4 routes (short-0" in table
    told = capfd.readouterr().err
    assert "short-0: the planner failed after 1 s (ZeroDivisionError: the third plan is too much, at carla_planners.py:" in told
    assert "short-1: the planner failed after 0 s (undecodable)" in told and "answered with NoneType, not with a Plan" in told
    assert "short-3: the planner cannot begin (ValueError: three are enough, at carla_planners.py:" in told
    again, _ = drive(tmp_path, Fails, short_routes(4))
    assert len(again.failed) == 4 and "short-1: the planner failed" in capfd.readouterr().err, "driven again"


def test_latency_delays_a_plan(usual, tmp_path):
    slow, _ = drive(tmp_path, routes=short_routes(1), config=DriveConfig(seed=3, latency=2.0))
    assert usual[1].records[0].duration_game + 1.0 < slow.records[0].duration_game
    assert latency_of("measured") is None and latency_of("0.1s") == 0.1 and latency_of(0) == 0.0
    for wrong in (-1, "soon", 10, float("nan")):
        with pytest.raises(ConfigError, match="latency="):
            latency_of(wrong)


def cli(*arguments: object) -> list[str]:
    code = "import sys; from drive.cli import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", code, "eval", *map(str, arguments)]


def run_cli(*arguments: object, **more: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]), **more}
    return subprocess.run(cli(*arguments), capture_output=True, text=True, timeout=500, check=False, env=environment)


def marked(word: str) -> list[int]:
    """Processes that run with `word` in their environment."""
    found = []
    for place in Path("/proc").iterdir():
        with suppress(OSError):
            if place.name.isdigit() and word.encode() in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def test_a_killed_run_goes_on_where_it_was(usual, tmp_path):
    routes, out = route_file(short_routes(2), tmp_path / "routes.xml"), tmp_path / "out"
    given = ["benchmark=carla_routes", "planner=expert", f"routes={routes}", "seed=3", "run_up=0", "vehicles=0", "walkers=0", f"out={out}"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "MARK": str(tmp_path)}
    process = subprocess.Popen(cli(*given), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    until = time.monotonic() + 100.0
    while not list((out / "routes").glob("*.json")) and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 20.0
    while (left := marked(f"MARK={tmp_path}")) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left  # neither workers nor their servers
    first = {path.name: path.stat().st_mtime_ns for path in (out / "routes").glob("*.json")}
    assert len(first) == 1
    again = run_cli(*given)
    assert again.returncode == 0, again.stderr
    assert (out / "table.md").read_text().splitlines()[2:-1] == usual[2].splitlines()[1:]
    assert all((out / "routes" / name).stat().st_mtime_ns == at for name, at in first.items())


def test_two_runs_print_the_same_and_films_change_nothing(tmp_path):
    routes, out = route_file(short_routes(2), tmp_path / "routes.xml"), tmp_path / "out"
    given = ["benchmark=bench2drive_ds", "planner=expert", f"routes={routes}", "seed=3", "vehicles=8", "walkers=4"]
    first, second = run_cli(*given), run_cli(*given, f"out={out}", "videos=all")
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stdout == second.stdout and first.stdout.count("short-") == 2
    assert "comfort %" in first.stdout and "Traffic Signs" in first.stdout and "times real time" in first.stderr
    filed = sorted(path.relative_to(out).as_posix() for path in (out / "videos").rglob("*.mp4"))
    assert [path.split("_")[0] for path in filed] == ["videos/clean/short-0", "videos/clean/short-1"]
    assert all((out / path).with_suffix(".jpg").is_file() for path in filed)
    assert sorted(path.name for path in (out / "pictures").iterdir()) == ["short-0.png", "short-1.png"]
    page = (out / "report.html").read_text()
    assert all(f'href="{path}"' in page for path in filed) and page.count("data:image/png;base64,") == 2
    told = json.loads((out / "results.json").read_text())["drive"]
    assert told["coverage"] == 1.0 and 0.0 <= told["scores"]["comfort"]["value"] <= 1.0 and set(told["routes"]) == {"short-0", "short-1"}
    assert json.loads((out / "merged.json").read_text())["eval num"] == 2


def test_routes_that_crash_every_time_are_told_and_driven_again(tmp_path):
    routes, out = route_file(short_routes(2), tmp_path / "routes.xml"), tmp_path / "out"
    given = ["benchmark=leaderboard2_ds", "planner=custom", "planner.target=carla_planners:Breaks", f"routes={routes}", "vehicles=0", "walkers=0", f"out={out}"]
    crashed = run_cli(*given, "timeout=5")
    assert crashed.returncode == 1 and "Traceback" not in crashed.stderr, crashed.stderr
    assert "coverage: 1 of 2 routes driven, 1 crashed; they count 0" in crashed.stdout and "PARTIAL 50.0 %" in crashed.stdout
    assert "Simulation crashed: route short-0: in each of 3 tries" in crashed.stdout and "Failed - Simulation crashed" in crashed.stdout
    assert json.loads((out / "results.json").read_text())["entry_status"] == "Crashed"
    kept = (out / "routes/short-1.json").stat().st_mtime_ns
    again = run_cli(*given, WELL="yes")
    assert again.returncode == 0 and "100 %" in again.stdout and "crashed" not in again.stdout, again.stderr
    assert json.loads((out / "results.json").read_text())["entry_status"] == "Finished"
    assert (out / "routes/short-1.json").stat().st_mtime_ns == kept


def test_a_missing_town_lowers_the_coverage(usual, tmp_path):
    absent = CarlaRoute("far", "Town99", np.array([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]), None, (), ())
    file = route_file([*short_routes(1), absent], tmp_path / "routes.xml")
    done = run_cli("benchmark=carla_routes", "planner=expert", f"routes={file}", "vehicles=0", "walkers=0", "run_up=0")
    assert done.returncode == 1 and "PARTIAL 50.0 %" in done.stdout and " 50.0 [" in done.stdout
    assert "not driven: route far: the server has no town Town99; it has" in done.stdout and "Traceback" not in done.stderr
    with pytest.raises(ConfigError, match="neither a route file nor"):
        named_routes("nowhere.xml", None, 0)
    with pytest.raises(ConfigError, match="no route in town=Town01"):
        named_routes(str(file), "Town01", 0)


@pytest.mark.parametrize("text", ["carla://", "carla://here", "carla://here:", "carla://:2000", "carla://here:port", "carla://here:2000/x"])
def test_addresses_that_are_none(text):
    with pytest.raises(ConfigError, match=r"carla://127\.0\.0\.1:2000"):
        addressed([text])


def test_addresses():
    assert addressed(["carla://10.0.0.7:2002", "seed=1"]) == ["benchmark=carla_routes", "host=10.0.0.7", "port=2002", "seed=1"]
    assert addressed(["benchmark=bench2drive_ds", "carla://box:2000/"]) == ["benchmark=bench2drive_ds", "host=box", "port=2000"]


def answering(version: str) -> int:
    """Port of a server that knows its version, and nothing else."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            client, _ = listening.accept()
            unpacker = msgpack.Unpacker()
            while data := client.recv(4096):
                unpacker.feed(data)
                for _, number, _, _ in unpacker:
                    client.sendall(bytes(msgpack.packb([1, number, None, [[1, version]]]) or b""))

    threading.Thread(target=serve, daemon=True).start()
    return listening.getsockname()[1]


def test_a_server_of_another_version_is_refused(tmp_path):
    done = run_cli(f"carla://127.0.0.1:{answering('0.10.0')}", "planner=expert", f"routes={route_file(short_routes(1), tmp_path / 'r.xml')}", "timeout=5")
    told = done.stdout + done.stderr
    assert done.returncode != 0 and "server 0.10.0 are not a pair that drive knows" in told and "Traceback" not in told
    assert told.count("not a pair") == 1  # at once, and once: another try would not help


def test_nobody_at_the_address(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(DriveError, match="nobody listens"):
        drive(tmp_path, where=Where("127.0.0.1", port, timeout_s=0.5), routes=short_routes(1))


def test_where_no_route_can_be_driven_the_table_says_so(tmp_path):
    """A first try of Bench2Drive's routes without the maps."""
    (route,) = short_routes(1)
    result, table = drive(tmp_path, routes=[replace(route, town="Town12")])
    assert result.coverage == 0.0 and "PARTIAL 0.0 %" in table
    assert "the server has no town Town12" in table and "maps= takes a folder of .xodr files" in table


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("command", [["eval", "benchmark=carla_routes", "planner=expert", "max_routes=2"], ["data", "collect", "planner=expert", "count=2"]])
def test_ctrl_c_ends_a_drive_at_once_and_leaves_nobody(tmp_path, command):
    """A terminal sends it to the whole group: server and worker too."""
    start = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from drive.cli import main; sys.exit(main(sys.argv[1:]))"
    with (tmp_path / "err").open("w") as err:
        child = subprocess.Popen([sys.executable, "-c", start, *command, f"out={tmp_path / 'out'}"], stdout=err, stderr=err, start_new_session=True)
    try:
        until = time.monotonic() + 150.0
        while not _serving(child.pid) and time.monotonic() < until:
            time.sleep(0.2)
        time.sleep(4.0)
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait(40) != 0
        until = time.monotonic() + 10.0
        while (left := _group(child.pid)) and time.monotonic() < until:
            time.sleep(0.2)
        assert not left
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    told = (tmp_path / "err").read_text()
    assert "interrupted" in told and "Traceback" not in told and "not driven" not in told, told


def _group(leader: int) -> list[str]:
    """Command lines of the processes of a group, /proc's word."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == leader and fields[0] != "Z":
                found.append((folder / "cmdline").read_text())
    return found


def _serving(leader: int) -> bool:
    return any("serve\0carla" in line for line in _group(leader))
