"""Drives of the closed loop as training data, through the official client and our own server in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from drive.core.geometry import relative
from drive.core.types import AgentType
from drive.datasets.convert import CacheReader
from drive.datasets.logged import LogDataset

pytest.importorskip("carla")
pytest.importorskip("pyarrow")
SHORT = """<routes><route id="{id}" town="val_b"><waypoints>{points}</waypoints></route></routes>"""


def collect(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "drive", "data", "collect", f"out={out}", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "CARLA_CACHE_DIR": str(out.parent)})


def beginning(folder: Path, number: int, metres: float) -> Path:
    """A route file of the first metres of a route of the validation town."""
    from drive.simulators.carla_embedded_routes import embedded_routes

    route = embedded_routes("val", number + 1).routes[number]
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(route.keypoints[:, :2], axis=0).T))])
    path = folder / "short.xml"
    points = "".join(f'<position x="{x}" y="{y}" z="{z}"/>' for x, y, z in route.keypoints[: max(int((along < metres).sum()), 2)])
    path.write_text(SHORT.format(id="0", points=points))
    return path


@pytest.fixture(scope="module")
def routes(tmp_path_factory):
    return beginning(tmp_path_factory.mktemp("routes"), 0, 60.0)


@pytest.mark.parametrize("planner", ["expert", "constant_velocity"])
def test_a_drive_holds_what_was_seen_and_what_the_teacher_would_do(tmp_path, routes, planner):
    done = collect(tmp_path / "set", f"routes={routes}", f"planner={planner}", "share=0.5", "vehicles=2", "walkers=0", "split=val")
    assert done.returncode == 0 and "1 recorded" in done.stdout, done.stdout + done.stderr
    data = LogDataset(CacheReader(), tmp_path / "set", "val")
    assert len(data) > 5 and not data.faults
    first = data[0]
    seen = first.observation()
    assert first.notes["log_step"] == 0 and seen.speed < 0.1 and seen.images.shape[1] == 4 and seen.images.std() > 10.0
    assert first.teacher is not None and first.teacher.poses[-1, 0] > 2.0 and first.reasoning  # the expert sets off
    for scene in data:
        assert scene.teacher is not None
        rise = np.diff(np.concatenate([[0.0], scene.teacher.poses[:, 0]]))
        assert rise[0] < 0.5 * scene.observation().speed + 1.5, "poses half a second apart"
    more = [f"routes={routes}", f"planner={planner}", "share=0.5", "vehicles=2", "walkers=0", "split=val"]
    again = collect(tmp_path / "set", *more)
    assert again.returncode == 0 and "1 drives there before, 0 recorded" in again.stdout
    other = collect(tmp_path / "set", *more[:2], "share=0.25", *more[3:])
    assert other.returncode == 2 and "made with other settings" in other.stderr and "Traceback" not in other.stderr


def test_a_red_light_is_a_bar_in_the_log_as_the_teacher_saw_it(tmp_path):
    done = collect(tmp_path / "set", f"routes={beginning(tmp_path, 2, 80.0)}", "planner=expert", "share=0", "vehicles=0", "walkers=0", "split=val")
    assert done.returncode == 0 and "1 recorded" in done.stdout, done.stdout + done.stderr
    scenes = list(LogDataset(CacheReader(), tmp_path / "set", "val"))
    bars = {name for scene in scenes for name in scene.agents.ids if name.startswith("stop-line")}
    assert len(bars) == 1, "37 m from the start"
    first = scenes[0]
    row, now = next(k for k, name in enumerate(first.agents.ids) if name in bars), first.present
    assert first.agents.valid[row, now] and first.agents.types[row] == int(AgentType.BARRIER)
    place = relative(first.ego.poses_world[now], first.agents.poses_world[row, now])
    assert 25.0 < place[0] < 40.0 and abs(place[1]) < 1.0
    assert first.teacher is not None and first.teacher.poses[-1, 0] < place[0] - 3.0  # it plans to stand before it
    gone = [scene for scene in scenes if not any(name in bars and scene.agents.valid[k, scene.present] for k, name in enumerate(scene.agents.ids))]
    assert gone and gone[-1].teacher is not None and gone[-1].teacher.poses[-1, 0] > 10.0  # green: it plans to drive on


@pytest.mark.parametrize(("setting", "told"), [("routes=embedded_test", "a town that is kept from split=train"), ("routes=embedded_val", "kept from"), ("share=1.5", "give a share from 0 to 1"), ("split=test", "is of train or val"), ("count=0", "count")])
def test_bad_settings_are_one_line(tmp_path, setting, told):
    done = collect(tmp_path / "set", "planner=expert", setting)
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_route_file_names_no_folder_outside(tmp_path, routes):
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "set" / "images" / "short-0-x").mkdir(parents=True)
    evil = tmp_path / "short.xml"
    evil.write_text(routes.read_text().replace('route id="0"', 'route id="x/../../../victim"'))
    done = collect(tmp_path / "set", f"routes={evil}", "planner=expert", "vehicles=0", "walkers=0", "split=val")
    assert done.returncode == 0 and victim.is_dir(), done.stderr
    assert [p.name for p in (tmp_path / "set" / "images").iterdir() if p.name != "short-0-x"] == ["short-0-x_.._.._.._victim"]


def test_a_planner_that_fails_is_told_and_leaves_no_drive(tmp_path, routes):
    broken = tmp_path / "broken.py"
    broken.write_text("class Broken:\n    name = 'broken'\n    def reset(self):\n        pass\n    def plan(self, observations):\n        raise ValueError('no gear')\n")
    command = ["routes=" + str(routes), "planner=custom", "planner.target=broken:Broken", "share=1.0", "vehicles=0", "walkers=0", "split=val"]
    done = subprocess.run(
        [sys.executable, "-m", "drive", "data", "collect", f"out={tmp_path / 'set'}", *command], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    assert done.returncode == 1 and "no gear" in done.stderr and "0 recorded" in done.stdout, done.stderr
    assert not list((tmp_path / "set" / "images").iterdir())
