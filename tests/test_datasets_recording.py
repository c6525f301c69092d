"""A drive that was recorded is read back as it was driven."""

import numpy as np
import pytest
from PIL import Image

from drive.benchmarks.pdms import evaluate_pdms
from drive.core.errors import DataError
from drive.core.types import Camera
from drive.datasets.convert import CacheReader
from drive.datasets.logged import LogDataset
from drive.datasets.recording import LogRecorder
from drive.planners.pdm import PdmExpert
from drive.simulators.embedded_simulator import situation
from drive.simulators.traffic import DT

pytest.importorskip("pyarrow")
CAMERA = Camera.front(32, 24)
STEPS = 80
SIZE = (5.0, 2.0, 1.6)


@pytest.fixture(scope="module")
def world():
    world = situation(("val_b",), ("follow",), 3)
    return world


@pytest.fixture(scope="module")
def cache(tmp_path_factory, world):
    out = tmp_path_factory.mktemp("recordings")
    recorder = LogRecorder(out, "drive-3", "embedded", "test", DT, SIZE, (CAMERA,), world.road_map)
    truth = []
    for _ in range(STEPS):
        seen = world.privileged()
        image = world.image(CAMERA, world.step)
        recorder.add(seen.ego, seen.agents, seen.command, image[None])
        truth.append((seen, image))
        world.coast(1)
    recorder.close()
    return out, truth


def test_a_recording_reads_as_it_was_driven(cache):
    out, truth = cache
    data = LogDataset(CacheReader(), out, "test")
    assert len(data) == data.expected == len(range(15, STEPS - 50, 5)) and data.faults == []
    scene = data[1]
    origin = np.array(scene.notes["origin_world"])
    for step in (scene.present, scene.present + 30):
        seen, image = truth[step + 5]
        np.testing.assert_allclose(scene.ego.poses_world[step] + [*origin, 0.0], seen.ego.pose_world, atol=1e-9)
        assert scene.ego.state(step).speed == seen.ego.speed
        for k, name in enumerate(seen.agents.ids):
            row = scene.agents.ids.index(name)
            assert scene.agents.valid[row, step]
            np.testing.assert_allclose(scene.agents.poses_world[row, step] + [*origin, 0.0], seen.agents.poses_world[k, 0], atol=1e-9)
    seen, image = truth[20]
    assert scene.command is seen.command and scene.source == "embedded" and (scene.observation().images[0, -1] == image).all()
    assert scene.road_map.nearest_lane(scene.ego.poses_world[15]) == seen.road_map.nearest_lane(seen.ego.pose_world)


def test_it_can_be_driven_and_scored(cache):
    result = evaluate_pdms([LogDataset(CacheReader(), cache[0], "test")[0]], PdmExpert())
    assert result.coverage == 1.0 and result.mean("dac") == 1.0


def test_recordings_share_a_folder_and_can_be_moved_with_their_images(cache, tmp_path):
    _out, truth = cache
    plain = LogRecorder(tmp_path / "a", "one", "carla", "test", DT, SIZE)
    other = LogRecorder(tmp_path / "a", "two", "carla", "test", DT, SIZE, (CAMERA,))
    for seen, image in truth[:70]:
        plain.add(seen.ego, seen.agents, seen.command)
        other.add(seen.ego, seen.agents, seen.command, image[None])
    assert plain.close() != other.close()
    with pytest.raises(DataError, match="holds a recording 'one'"):
        LogRecorder(tmp_path / "a", "one", "carla", "test", DT, SIZE)
    (tmp_path / "a").rename(tmp_path / "b")
    data = LogDataset(CacheReader(), tmp_path / "b", "test")
    assert [scenes.log.log_id for scenes in data.logs] == ["one", "two"] and data[0].notes["map"] == "corridor"
    assert data[len(data) - 1].observation().images.shape == (1, 4, 24, 32, 3)
    picture = next((tmp_path / "b" / "images" / "two").rglob("000015.png"))
    assert Image.open(picture).size == (32, 24)
    picture.unlink()
    with pytest.raises(DataError, match=r"000015\.png: no image can be read"):
        LogDataset(CacheReader(), tmp_path / "b", "test")[len(data) - 1].observation()


def test_what_cannot_be_recorded_is_refused(cache, tmp_path):
    out, truth = cache
    seen, image = truth[0]
    with pytest.raises(DataError, match="holds a recording 'drive-3'"):
        LogRecorder(out, "drive-3", "carla", "test", DT, SIZE)
    with pytest.raises(DataError, match="no name of one"):
        LogRecorder(tmp_path, "../x", "carla", "test", DT, SIZE)
    recorder = LogRecorder(tmp_path, "short", "carla", "test", DT, SIZE, (CAMERA,))
    with pytest.raises(DataError, match="1 cameras want as many images a step, got 0"):
        recorder.add(seen.ego, seen.agents, seen.command)
    recorder.add(seen.ego, seen.agents, seen.command, image[None])
    with pytest.raises(DataError, match="has 1 steps"):
        recorder.close()
    (tmp_path / "cache.json").write_text('{"source": "av2"}')
    with pytest.raises(DataError, match="record into another folder"):
        LogRecorder(tmp_path, "x", "carla", "test", DT, SIZE)
