"""The agent of CARLA's evaluators drives as our own loop does, and loads as they load it."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from drive.benchmarks.carla_agent import AgentDriver, agent_settings, metric_folder
from drive.benchmarks.carla_drive import DriveConfig
from drive.core.errors import ConfigError, DataError
from drive.core.types import Camera, Command
from drive.planners.constant_velocity import ConstantVelocity
from drive.planners.pdm import PdmExpert
from drive.simulators.carla_global_plan import GlobalPlan, spoken
from drive.simulators.carla_server.inertial import geolocation, mercator
from drive.simulators.routes import COMMANDS

client = pytest.mark.skipif(importlib.util.find_spec("carla") is None, reason="no carla wheel")
ROOT = Path(__file__).parents[1]
ENTRY = ROOT / "drive/cli/leaderboard/drive_agent.py"
Option = Enum("Option", {"VOID": -1, "LEFT": 1, "LANEFOLLOW": 4, "CHANGELANERIGHT": 6})
# the interface of leaderboard 2.x as its documentation has it, and no more
BASE = '''
from enum import Enum
class Track(Enum):
    SENSORS = "SENSORS"
    MAP = "MAP"
class AutonomousAgent:
    def __init__(self, carla_host, carla_port, debug=False):
        self.track = Track.SENSORS
        self._global_plan = self._global_plan_world_coord = None
    def set_global_plan(self, global_plan_gps, global_plan_world_coord):
        self._global_plan, self._global_plan_world_coord = global_plan_gps[::50], global_plan_world_coord[::50]
'''
PROVIDER = '''
class CarlaDataProvider:
    world = hero = None
    @staticmethod
    def get_world():
        return CarlaDataProvider.world
    @staticmethod
    def get_hero_actor():
        return CarlaDataProvider.hero
'''


def stand_ins(folder: Path) -> Path:
    for name, text in {"leaderboard/autoagents/autonomous_agent.py": BASE, "srunner/scenariomanager/carla_data_provider.py": PROVIDER}.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
    return folder


def side_by_side(*arguments: object, **environment: str) -> dict:
    command = [sys.executable, str(ROOT / "tests/carla_agent_drive.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env={**os.environ, "PYTHONPATH": str(ROOT), **environment})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def transform(x: float, y: float, yaw: float):
    return SimpleNamespace(location=SimpleNamespace(x=x, y=y, z=0.0), rotation=SimpleNamespace(yaw=yaw))


def plan_of(places: list[tuple[float, float, float]], words: list[str] | None = None, origin: tuple[float, float] = (0.0, 0.0)) -> GlobalPlan:
    names = words or ["LANEFOLLOW"] * len(places)
    world = [(transform(*place), Option[name]) for place, name in zip(places, names)]
    gps = [({"lat": lat, "lon": lon, "z": 0.0}, None) for lat, lon in (mercator(x, y, *origin) for x, y, _ in places)]
    return GlobalPlan.read(gps, world)


@client
def test_the_teacher_steers_as_in_our_own_loop():
    told = side_by_side("beside", "expert", "0.9.16", 5)
    assert told["gaps"]["same"]["max"] == [0.0, 0.0, 0.0]
    assert told["ticks"] == 100 and told["moved"] > 15.0 and told["words"] == 1.0
    assert max(told["gaps"]["own"]["max"]) < 0.01  # its route is found anew from the evaluator's points


@client
@pytest.mark.parametrize("version", ["0.9.16", "0.9.15"])
def test_the_model_steers_as_in_our_own_loop(version: str):
    told = side_by_side("beside", "vla", version, 6)
    assert told["gaps"]["same"]["max"] == [0.0, 0.0, 0.0]
    assert told["ticks"] == 120 and told["moved"] > 5.0
    assert max(told["gaps"]["own"]["max"]) < 0.1 and max(told["gaps"]["own"]["mean"]) < 0.02  # by GNSS, IMU and speedometer with their noise
    assert 0.0 < told["drift"] < 0.3 and told["words"] > 0.97


@client
def test_the_entry_file_drives_as_the_evaluators_load_it(tmp_path: Path):
    (stand_ins(tmp_path) / "agent.yaml").write_text("planner: vla\nplanner.mode: fast\nrun_up: 9.0\nlatency: 0.1\nthreads: 1\n")
    told = side_by_side("alone", tmp_path, 10, SAVE_PATH=str(tmp_path / "saved"))
    assert told["ran"] > 40.0 and told["aside"] < 1.0
    assert told["track"] == "SENSORS"
    kinds = ["sensor.camera.rgb", "sensor.speedometer", "sensor.other.imu", "sensor.other.gnss"]
    assert [s["type"] for s in told["sensors"]] == kinds and len({s["id"] for s in told["sensors"]}) == 4
    moved = json.loads((tmp_path / "saved/RouteScenario_1_rep0/metric_info.json").read_text())
    assert list(moved) == [str(k) for k in range(200)]  # one for each tick, as Bench2Drive's smoothness counts them
    fields = {"acceleration", "angular_velocity", "forward_vector", "right_vector", "location", "rotation"}
    assert all(set(row) == fields and all(len(v) == 3 for v in row.values()) for row in moved.values())
    first, last = (np.array(moved[k]["location"]) for k in ("0", "199"))
    assert np.hypot(*(last - first)[:2]) > 30.0


@client
def test_without_the_evaluators_the_entry_file_says_what_is_missing():
    done = subprocess.run([sys.executable, str(ENTRY)], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 1 and "leaderboard is not on PYTHONPATH: docs/carla.md" in done.stderr.splitlines()[-1]


def test_the_folder_of_the_entry_file_shadows_nothing():
    """The evaluators put it first on the path of modules."""
    assert [p.name for p in ENTRY.parent.iterdir() if p.name != "__pycache__"] == [ENTRY.name]


def test_sensors_are_those_that_the_track_allows():
    seeing = AgentDriver(ConstantVelocity(), DriveConfig()).sensors()
    assert {s["type"] for s in seeing} == {"sensor.camera.rgb", "sensor.speedometer", "sensor.other.imu", "sensor.other.gnss"}
    camera, front = seeing[0], Camera.front()
    assert (camera["width"], camera["height"], camera["id"]) == (front.width, front.height, front.name)
    assert camera["fov"] == pytest.approx(80.0) and camera["pitch"] == pytest.approx(-6.0) and camera["yaw"] == pytest.approx(0.0)
    assert camera["x"] == pytest.approx(1.6 - 1.425)
    assert all(math.hypot(s["x"], s["y"], s["z"]) < 3.0 for s in seeing if "x" in s)  # the leaderboard's limit
    assert [s["type"] for s in AgentDriver(PdmExpert(), DriveConfig()).sensors()] == ["sensor.speedometer"]


@pytest.mark.parametrize("origin", [(0.0, 0.0), (49.0, 8.0), (-33.9, 151.2)])
def test_gnss_is_read_in_both_projections(origin: tuple[float, float]):
    plan = plan_of([(1200.0, -800.0, 0.0), (1300.0, -800.0, 0.0)], origin=origin)
    assert np.degrees(plan.origin) == pytest.approx(origin, abs=1e-9)
    for row, project in enumerate((mercator, geolocation)):
        for x, y in ((0.0, 0.0), (1250.0, -750.0), (-3000.0, 4000.0)):
            assert plan.places(*project(x, y, *origin), plan.origin)[row] == pytest.approx((x, -y), abs=1e-3)


def test_commands_are_announced_as_routes_announce_them():
    words = [Command.LANEFOLLOW] * 100 + [Command.LEFT] * 20 + [Command.LANEFOLLOW] * 20 + [Command.RIGHT] * 10 + [Command.LANEFOLLOW] * 50
    words += [Command.CHANGELANERIGHT] * 2 + [Command.LANEFOLLOW] * 98
    s = np.arange(len(words), dtype=float)
    told = [COMMANDS[i] for i in spoken(words, s, s)]
    assert told[59] == Command.LANEFOLLOW and told[60] == told[119] == Command.LEFT  # 40 m before, to the end
    assert told[120] == told[149] == Command.RIGHT and told[150] == Command.LANEFOLLOW  # the nearer junction speaks
    assert told[164] == Command.LANEFOLLOW and told[165] == told[216] == Command.CHANGELANERIGHT and told[217] == Command.LANEFOLLOW


def test_the_plan_becomes_a_right_handed_route():
    road_map, route = plan_of([(float(x), 5.0, 0.0) for x in range(50)], ["LANEFOLLOW"] * 30 + ["LEFT"] * 20).route()
    assert route.path[0] == pytest.approx((0.0, -5.0, 0.0)) and route.length == pytest.approx(49.0)
    assert route.lane_ids == ("route",) == tuple(road_map.lanes)
    assert not route.is_connector[29] and route.is_connector[30:].all()
    lane = road_map.lanes["route"]
    assert (lane.left[:, 1] > lane.centerline[:, 1]).all() and (lane.right[:, 1] < lane.centerline[:, 1]).all()
    points, yaw = plan_of([(float(x), 5.0, 90.0) for x in range(50)]).keypoints()
    assert points[:, 0].tolist() == [0.0, 10.0, 20.0, 30.0, 40.0, 49.0] and (yaw == 90.0).all()


def test_what_is_no_plan_is_told():
    with pytest.raises(DataError, match="1 places"):
        plan_of([(0.0, 0.0, 0.0)])
    with pytest.raises(DataError, match="at least two of each, finite"):
        plan_of([(0.0, 0.0, 0.0), (math.nan, 0.0, 0.0)])
    with pytest.raises(DataError, match="stays in one place"):
        plan_of([(1.0, 2.0, 0.0)] * 3).route()
    with pytest.raises(DataError, match=r"leaderboard 2\.x"):
        GlobalPlan.read([(1.0, 2.0)], [(transform(0, 0, 0), Option.LEFT)])


def test_settings_come_from_a_file_a_folder_or_nothing(tmp_path: Path):
    assert agent_settings("") == agent_settings("None") == []
    assert agent_settings(str(tmp_path)) == ["planner=vla", f"checkpoint={tmp_path}"]
    file = tmp_path / "agent+1.yaml"
    file.write_text("planner: vla\nplanner.mode: fast\ncheckpoint: null\nforce: true\nrun_up: 2.5\n")
    wanted = ["planner=vla", "planner.mode=fast", "checkpoint=null", "force=true", "run_up=2.5"]
    assert agent_settings(str(file)) == agent_settings(f"{file}+RouteScenario_1+RouteScenario_2") == wanted
    for text, fault in {"planner: {name: vla}\n": "with dots", "- a\n": "one a line", "a: [": "no YAML", "": "one a line"}.items():
        file.write_text(text)
        with pytest.raises(ConfigError, match=fault):
            agent_settings(str(file))
    with pytest.raises(ConfigError, match="neither a folder"):
        agent_settings(str(tmp_path / "absent"))


def test_the_metrics_go_where_bench2drive_looks(tmp_path: Path):
    file = tmp_path / "agent+1.yaml"
    file.write_text("planner: vla\n")
    first = f"{file}+RouteScenario_1_rep0_Town01_Accident_1_3_01_02_03_04_05"
    assert metric_folder(f"{first}+RouteScenario_2_rep0", "saved") == Path("saved/RouteScenario_2_rep0")  # names pile up; the last is the present's
    assert metric_folder(first, "") is None and metric_folder(str(file), "saved") is None and metric_folder("", "saved") is None
    for wrong in ("agent.yaml+", "agent.yaml+..", "agent.yaml+a/b"):
        with pytest.raises(ConfigError, match="no name of a folder"):
            metric_folder(wrong, "saved")
