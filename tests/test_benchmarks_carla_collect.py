"""Drives of the closed loop as training data, through the official client and our own server in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from drive.datasets.convert import CacheReader
from drive.datasets.logged import LogDataset

pytest.importorskip("carla")
pytest.importorskip("pyarrow")
SHORT = """<routes><route id="{id}" town="val_b"><waypoints>{points}</waypoints></route></routes>"""


def collect(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "drive", "data", "collect", f"out={out}", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "CARLA_CACHE_DIR": str(out.parent)})


@pytest.fixture(scope="module")
def routes(tmp_path_factory):
    """The first 60 m of a route of the validation town."""
    from drive.simulators.carla_embedded_routes import embedded_routes

    (route,) = embedded_routes("val", 1).routes
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(route.keypoints[:, :2], axis=0).T))])
    path = tmp_path_factory.mktemp("routes") / "short.xml"
    points = "".join(f'<position x="{x}" y="{y}" z="{z}"/>' for x, y, z in route.keypoints[: max(int((along < 60.0).sum()), 2)])
    path.write_text(SHORT.format(id="0", points=points))
    return path


@pytest.mark.parametrize("planner", ["expert", "constant_velocity"])
def test_a_drive_holds_what_was_seen_and_what_the_teacher_would_do(tmp_path, routes, planner):
    done = collect(tmp_path / "set", f"routes={routes}", f"planner={planner}", "share=0.5", "vehicles=2", "walkers=0")
    assert done.returncode == 0 and "1 recorded" in done.stdout, done.stdout + done.stderr
    data = LogDataset(CacheReader(), tmp_path / "set", "train")
    assert len(data) > 5 and not data.faults
    first = data[0]
    seen = first.observation()
    assert first.notes["log_step"] == 0 and seen.speed < 0.1 and seen.images.shape[1] == 4 and seen.images.std() > 10.0
    assert first.teacher is not None and first.teacher.poses[-1, 0] > 2.0 and first.reasoning  # the expert sets off
    for scene in data:
        assert scene.teacher is not None
        rise = np.diff(np.concatenate([[0.0], scene.teacher.poses[:, 0]]))
        assert rise[0] < 0.5 * scene.observation().speed + 1.5, "poses half a second apart"
    again = collect(tmp_path / "set", f"routes={routes}", f"planner={planner}")
    assert again.returncode == 0 and "1 drives there before, 0 recorded" in again.stdout


@pytest.mark.parametrize(("setting", "told"), [("share=1.5", "give a share from 0 to 1"), ("split=test", "is of train or val"), ("count=0", "count")])
def test_bad_settings_are_one_line(tmp_path, setting, told):
    done = collect(tmp_path / "set", "planner=expert", setting)
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr, done.stderr
