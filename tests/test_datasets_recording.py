"""A drive that was recorded is read back as it was driven."""

import numpy as np
import pytest
from PIL import Image

from drive.benchmarks.pdms import evaluate_pdms
from drive.core.errors import DataError
from drive.core.roadmap import Lane, Polygons, RoadMap
from drive.core.types import AgentType, Camera, Command, EgoState, Plan, Tracks, Trajectory
from drive.datasets.convert import INDEX, CacheReader
from drive.datasets.logged import LogDataset
from drive.datasets.recording import LogRecorder
from drive.planners.pdm import PdmExpert
from drive.simulators.embedded_simulator import situation
from drive.simulators.routes import route_along
from drive.simulators.towns import load_town
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


def state(k, place=None, **changes):
    """The ego at 6 m/s along x."""
    pose = np.array([1000.0 + 0.6 * k, 500.0, 0.0]) if place is None else np.array(place, float)
    return EgoState(**{"pose_world": pose, "velocity_ego": np.array([6.0, 0.0]), "acceleration_ego": np.zeros(2), "time_s": DT * k, **changes})


def cars(*boxes):
    """Agents car-0, car-1 ... of (x, y, length)."""
    names, kinds = tuple(f"car-{k}" for k in range(len(boxes))), np.full(len(boxes), int(AgentType.VEHICLE))
    poses, size = np.array([[[x, y, 0.0]] for x, y, _ in boxes]).reshape(-1, 1, 3), np.array([[long, 1.9, 1.6] for _, _, long in boxes]).reshape(-1, 3)
    return Tracks(names, kinds, size, poses, np.zeros((len(boxes), 1, 2)), np.ones((len(boxes), 1), bool))


def street(reach):
    """A straight lane through the drive."""
    line = np.column_stack([np.arange(900.0, 1000.0 + reach, 1.0), np.full(round(100 + reach), 500.0), np.zeros(round(100 + reach))])
    return RoadMap("street", {"a": Lane("a", line, line[:, :2] + [0.0, 1.75], line[:, :2] - [0.0, 1.75], 15.0)}, Polygons.from_rings([]))


HIGH = Camera("ABOVE", 32, 24, Camera.front(32, 24).intrinsics, np.block([[np.diag([1.0, -1.0, -1.0]), np.array([[0.0], [0.0], [250.0]])], [np.zeros((1, 3)), np.ones((1, 1))]]))
KEPT = {
    "an agent 1.2 km away": {"seen": lambda k: cars((2200.0, 500.0, 4.5))},
    "a respawned agent": {"seen": lambda k: cars((1020.0 + 600.0 * (k % 2), 500.0, 4.5))},
    "a very long agent": {"seen": lambda k: cars((1020.0, 500.0, 150.0))},
    "no times": {"ego": lambda k: state(k, time_s=0.0)},
    "a camera high above": {"cameras": (HIGH,)},
    "a map of 15 km": {"road_map": street(15_000)},
    "an ego that flies": {"ego": lambda k: state(k, velocity_ego=np.array([500.0, 0.0]))},
}


def record(out, steps=80, name="one", ego=state, seen=lambda k: cars((1020.0 + 0.6 * k, 500.0, 4.5)), **made):
    recorder = LogRecorder(out, name, "carla", "test", DT, SIZE, **made)
    for k in range(steps):
        recorder.add(ego(k), seen(k), Command.LANEFOLLOW, np.zeros((1, 24, 32, 3), np.uint8) if made.get("cameras") else None)
    return recorder


@pytest.mark.parametrize("case", KEPT.values(), ids=KEPT)
def test_a_drive_is_never_lost_to_bounds_that_tell_damage_of_files(tmp_path, case):
    record(tmp_path, **case).close()
    data = LogDataset(CacheReader(), tmp_path, "test")
    assert len(data) == data.expected == 3 and data.faults == []
    scene = data[2]
    assert len(scene.agents) == 1 and scene.time_s == pytest.approx(2.5) and scene.observation().images.shape[1] == 4
    assert scene.notes.get("left_out_boxes") is None and (scene.road_map.lanes.keys() == {"a"}) == ("road_map" in case)


@pytest.mark.parametrize("road_map", [None, street(500)], ids=["no map", "a map"])
@pytest.mark.parametrize("aside", [[0.0, 50.0, 0.0], [50.0, 0.0, 0.0], [0.0, 0.0, np.pi]], ids=["aside", "ahead", "turned"])
def test_a_teleport_is_a_break(tmp_path, road_map, aside):
    record(tmp_path, 160, ego=lambda k: state(k, [1000.0 + 0.6 * k, 500.0, 0.0] + (k >= 80) * np.array(aside)), road_map=road_map).close()
    data = LogDataset(CacheReader(), tmp_path, "test")
    (scenes,) = data.logs
    assert scenes.log.breaks == (80,) and [scene.notes["log_step"] for scene in data] == [15, 20, 25, 95, 100, 105]


def test_boxes_of_no_size_or_place_are_left_out_and_counted(tmp_path):
    record(tmp_path, seen=lambda k: cars((1020.0, 500.0, 0.0), (np.nan, 500.0, 4.5), (1030.0, 500.0, np.inf), (1040.0, 500.0, 0.0 if k < 10 else 4.5))).close()
    scene = LogDataset(CacheReader(), tmp_path, "test")[0]
    assert scene.agents.ids == ("car-3",) and scene.agents.size[0, 0] == 4.5 and scene.notes["left_out_boxes"] == 3 * 80 + 10
    assert scene.agents.valid[0].tolist() == [False] * 10 + [True] * 56


BAD = {
    "a place at NaN": (state(40, [np.nan, 0.0, 0.0]), "pose, motion or time is NaN"),
    "a speed at infinity": (state(40, velocity_ego=np.array([np.inf, 0.0])), "pose, motion or time is NaN"),
    "a time at NaN": (state(40, time_s=np.nan), "pose, motion or time is NaN"),
    "a time twice": (state(39), "step 40: its time of 3.9"),
    "a time before": (state(2), "step 40: its time of 0.2"),
    "no time": (state(40, time_s=0.0), "step 40: its time of 0.0 s does not follow"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_a_step_that_no_log_can_hold_is_refused_and_the_drive_before_it_kept(tmp_path, case):
    recorder = record(tmp_path, 40)
    with pytest.raises(DataError, match=case[1]):
        recorder.add(case[0], cars(), Command.LANEFOLLOW)
    recorder.add(state(40), cars(), Command.LANEFOLLOW)
    recorder.close()
    (entry,) = CacheReader().find(tmp_path)
    assert CacheReader().read(entry).steps == 41


def test_times_that_begin_late_are_refused_and_those_before_zero_are_not(tmp_path):
    untold = record(tmp_path, 3, ego=lambda k: state(k, time_s=0.0))
    with pytest.raises(DataError, match="step 3: its time of 5"):
        untold.add(state(3, time_s=5.0), cars(), Command.LANEFOLLOW)
    early = record(tmp_path, 3, "two", ego=lambda k: state(k, time_s=0.1 * k - 0.2))
    with pytest.raises(DataError, match="step 3"):
        early.add(state(3, time_s=0.0), cars(), Command.LANEFOLLOW)
    untold.close()
    early.close()
    assert [np.asarray(CacheReader().read(entry).times).tolist() for entry in CacheReader().find(tmp_path)] == [[0.0, 0.1, 0.2], [-0.2, -0.1, 0.0]]


def test_what_would_spoil_a_whole_drive_is_refused_before_it(tmp_path):
    lost = street(100)
    lost.lanes["a"].left[3] = np.nan
    blind = Camera("F", 32, 24, np.full((3, 3), np.nan), np.eye(4))
    with pytest.raises(DataError, match="lane a has a point at NaN or infinity: mend what gave it"):
        LogRecorder(tmp_path, "x", "carla", "test", DT, SIZE, road_map=lost)
    with pytest.raises(DataError, match="calibration of camera F has NaN"):
        LogRecorder(tmp_path, "x", "carla", "test", DT, SIZE, (blind,))
    for dt, size in ((DT, (5.0, 0.0, 1.6)), (DT, (5.0, np.nan, 1.6)), (0.0, SIZE)):
        with pytest.raises(DataError, match="give sizes above 0"):
            LogRecorder(tmp_path, "x", "carla", "test", dt, size)


def test_a_torn_line_that_is_no_text_costs_no_recording(tmp_path):
    record(tmp_path).close()
    whole = (tmp_path / INDEX).read_bytes()
    (tmp_path / INDEX).write_bytes(whole.replace(b"\n", b"\r\n") + b'{"path": "\xc3')
    recorder = LogRecorder(tmp_path, "two", "carla", "test", DT, SIZE)
    for k in range(80):
        recorder.add(state(k), cars(), Command.LANEFOLLOW)
    recorder.close()
    data = LogDataset(CacheReader(), tmp_path, "test")
    assert [scenes.log.log_id for scenes in data.logs] == ["one", "two"] and data.faults == []


def test_a_teachers_plans_are_what_is_imitated_from_the_first_step_on(tmp_path):
    recorder = LogRecorder(tmp_path, "taught", "carla", "train", 0.5, SIZE)
    dense = np.column_stack([np.linspace(0.1, 5.0, 50), np.zeros((50, 2))])  # the expert's plans have a pose each 0.1 s
    plans = [Plan(Trajectory(dense * (k + 1.0), 0.1), reasoning=f"plan {k}") for k in range(16)]
    for k in range(16):
        ego = EgoState(np.array([1.0 * k, 0.0, 0.0]), np.array([2.0, 0.0]), np.zeros(2), 0.0, 0.5 * k)
        recorder.add(ego, Tracks.empty(1), Command.LANEFOLLOW, teacher=None if k == 2 else plans[k], complex_scene=k == 4)
    recorder.close()
    data = LogDataset(CacheReader(), tmp_path, "train")
    told = [scene.notes["log_step"] for scene in data]
    assert told == [0, 1, 3, 4, 5]  # those with a plan and 5 s after them
    for k, scene in zip(told, data):
        assert scene.teacher is not None and scene.reasoning == f"plan {k}" and scene.notes["complex"] == (k == 4)
        assert scene.teacher.dt == 0.5
        np.testing.assert_allclose(scene.teacher.poses, plans[k].trajectory.poses[4::5])
    first = data[0]
    np.testing.assert_allclose(first.logged_future(10, 0.5).poses[:, 0], np.arange(1.0, 11.0))
    with pytest.raises(DataError, match="reach 2 s ahead, SFT imitates 5 s"):
        short = LogRecorder(tmp_path, "short", "carla", "train", 0.5, SIZE)
        for k in range(2):
            short.add(EgoState(np.zeros(3), np.zeros(2), np.zeros(2), 0.0, 0.5 * k), Tracks.empty(1), Command.LANEFOLLOW, teacher=Plan(Trajectory(dense[:20], 0.1)))
        short.close()
    plain = LogRecorder(tmp_path, "plain", "carla", "train", 0.5, SIZE)
    for k in range(16):
        plain.add(EgoState(np.array([1.0 * k, 0.0, 0.0]), np.array([2.0, 0.0]), np.zeros(2), 0.0, 0.5 * k), Tracks.empty(1), Command.LANEFOLLOW)
    plain.close()
    scene = next(s for s in LogDataset(CacheReader(), tmp_path, "train") if s.log_id == "plain")
    assert scene.teacher is not None
    np.testing.assert_allclose(scene.teacher.poses[:, 0], np.arange(1.0, 11.0))  # nobody taught: what was driven


def test_the_route_is_what_was_to_be_driven_where_it_is_told(tmp_path):
    """A learner that went straight on at a fork was told to turn: rewards and questions are about the turn."""
    road_map = load_town("val_b")
    lane = next(k for k in road_map.lanes.values() if len(k.successors) > 1 and k.length > 30.0)
    driven, told = lane.successors[:2]
    route = route_along(road_map, (lane.id, driven))
    path = route.path[route.s > lane.length - 25.0]
    for name, lanes in {"told": (lane.id, told), "plain": ()}.items():
        recorder = LogRecorder(tmp_path, name, "carla", "train", 0.5, SIZE, (), road_map, lanes)
        for k in range(50):
            recorder.add(EgoState(path[min(k, len(path) - 1)], np.array([2.0, 0.0]), np.zeros(2), 0.0, 0.5 * k), Tracks.empty(1), Command.LEFT)
        recorder.close()
    routes = {scene.log_id: scene.route_lane_ids for scene in LogDataset(CacheReader(), tmp_path, "train")}
    assert routes["told"] == (lane.id, told) and driven in routes["plain"] and told not in routes["plain"]
