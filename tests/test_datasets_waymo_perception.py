"""Waymo perception segments as Scenarios: hand-made ones, damaged ones, and the public frame where it is at hand."""

from pathlib import Path

import numpy as np
import pytest
from waymo_files import CAMERAS, HEADING, SPEED, at, colour, damaged, frame, label, put, write

from drive.core.errors import DataError
from drive.core.types import AgentType
from drive.datasets import tfrecord
from drive.datasets.logged import LogDataset
from drive.datasets.logs import LogScenes
from drive.datasets.waymo import Kind, inspect, kind_of
from drive.datasets.waymo_frames import NAMES
from drive.datasets.waymo_perception import WaymoPerceptionReader, read_frame, segment_log
from drive.datasets.waymo_wire import Message

REAL = Path(__file__).resolve().parents[2] / "shared/data/real/waymo-research__waymo-open-dataset/src/waymo_open_dataset/utils/testdata/pvps_data_one_frame.tfrecord"
real = pytest.mark.skipif(not REAL.is_file(), reason="Waymo's public test data is not at hand")
STEPS = 70


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("perception")
    write(root / "training" / "segment-1_with_camera_labels.tfrecord", *[frame(k, CAMERAS[:2] + CAMERAS[3:4]) for k in range(STEPS)])
    return root


@pytest.fixture(scope="module")
def data(root):
    return LogDataset(WaymoPerceptionReader(), root, "train", stride_s=0.1)


def painted(image, camera, number):
    return np.abs(image[8, 30].astype(int) - colour(camera, number)).max() < 6


def test_a_segment_is_a_log_at_ten_hertz(data):
    assert len(data) == STEPS - 15 - 50 and data.faults == []
    scene = data[2]
    assert (scene.id, scene.source, scene.split, scene.dt) == ("segment-1-0017", "waymo_perception", "train", 0.1)
    assert scene.time_s == pytest.approx(1_553_735_853 + 1.7)
    origin = np.array(scene.notes["origin_world"])
    np.testing.assert_allclose(scene.ego.poses_world[scene.present], [*(at(1.7 * SPEED) - origin), HEADING], atol=1e-6)  # the rear axle as it is
    assert scene.ego.state(scene.present).speed == pytest.approx(SPEED, abs=1e-6) and scene.notes["lost_frames"] == []
    assert scene.notes["map"] == "corridor"


def test_boxes_are_carried_to_the_world_and_signs_are_none_of_them(data):
    scene = data[2]
    origin = np.array(scene.notes["origin_world"])
    assert scene.agents.ids == ("car", "man") and scene.agents.types.tolist() == [AgentType.VEHICLE, AgentType.PEDESTRIAN]
    assert scene.notes["signs"] == 1 and scene.notes["broken_states"] == 0
    k = scene.present
    np.testing.assert_allclose(scene.agents.poses_world[0, k], [*(at(1.7 * SPEED + 20.0) - origin), HEADING], atol=1e-6)
    np.testing.assert_allclose(scene.agents.poses_world[1, :, :2], np.broadcast_to(at(30.0, 5.0) - origin, scene.agents.poses_world[1, :, :2].shape), atol=1e-6)
    np.testing.assert_allclose(np.hypot(*scene.agents.velocity_world[:, k].T), [SPEED, 0.0], atol=1e-6)
    np.testing.assert_allclose(scene.agents.size[0], [4.5, 1.8, 1.5])


def test_images_are_those_of_their_camera_and_step(data):
    seen = data[2].observation().images
    names = [camera.name for camera in data[2].cameras]
    assert names == ["FRONT", "FRONT_LEFT", "SIDE_LEFT"] and seen.shape == (3, 4, 40, 64, 3)
    assert all(painted(seen[c, f], name, step) for c, name in enumerate(names) for f, step in enumerate((2, 7, 12, 17)))
    ref = data.logs[0].log.images[1][5]
    assert ref is not None and painted(ref.read(), "FRONT_LEFT", 5) and ref.length < 5000


def test_another_future_changes_no_byte_of_the_observation(root, tmp_path):
    there = [frame(k, CAMERAS[:1]) for k in range(STEPS)]
    moved = [put(item, 3, frame(17 + (k - 17) // 3)[2][1]) if k > 17 else item for k, item in enumerate(there)]
    moved = [put(item, 6, label("new", 1, (9, 9, 1, 4, 2, 2, 1))) if k > 17 else item for k, item in enumerate(moved)]
    seen = []
    for name, frames in (("a", there), ("b", moved)):
        scene = LogScenes(segment_log(write(tmp_path / f"{name}.tfrecord", *frames), "val")).scenario(17)
        seen.append((scene.observation(), scene.logged_future(10).poses[-1, 0]))
    (a, far), (b, near) = seen
    assert far - near > 20.0
    assert a.images.tobytes() == b.images.tobytes() and a.ego_history.tobytes() == b.ego_history.tobytes()
    assert (a.speed, a.acceleration, a.yaw_rate) == (b.speed, b.acceleration, b.yaw_rate)


def test_a_map_in_the_first_frame_is_read_and_its_offset_applied(tmp_path):
    frames = [frame(k, CAMERAS[:1], mapped=k == 0) for k in range(STEPS)]
    frames = [[*item, (11, [(1, 0.25), (2, -0.5), (3, 0.0)])] for item in frames]
    log = segment_log(write(tmp_path / "a.tfrecord", *frames), "val")
    scenes = LogScenes(log)
    assert {"1", "2", "4"} <= set(scenes.road_map.lanes) and scenes.scenario(20).route_lane_ids[0] == "1"
    np.testing.assert_allclose(log.ego.poses_world[20, :2] + log.origin, at(20.0) + [0.25, -0.5], atol=1e-6)
    assert "approximated" in scenes.scenario(20).notes["map"]


def test_a_bad_frame_among_good_ones_leaves_a_hole_that_is_told(tmp_path):
    path = write(tmp_path / "val" / "a.tfrecord", *[frame(k, CAMERAS[:1]) for k in range(STEPS)])
    places = [record.offset for record in tfrecord.records(path)]
    damaged(path, places[30] + 40)
    log = segment_log(path, "val")
    assert log.steps == STEPS and log.notes["lost_frames"] == [30] and "record 30 at byte" in log.faults[0]
    np.testing.assert_allclose(log.ego.poses_world[30, :2] + log.origin, at(30.0), atol=1e-6)  # between its neighbours
    assert not log.agents.valid[:, 30].any() and log.agents.valid[:, 31].all() and log.images[0][30] is None
    assert log.breaks == (30, 31)
    short = LogDataset(WaymoPerceptionReader(), tmp_path, "val", stride_s=0.1, short_futures=True)
    kept = [scene.notes["log_step"] for scene in short]
    assert kept == list(range(46, STEPS)) and short.expected == len(range(15, STEPS))  # none reaches over the hole
    assert "record 30 at byte" in short.faults[0] and "stand beside missing frames" in short.faults[1]
    scenes = LogScenes(log)
    assert scenes.scenario(32).observation().images.shape[1] == 4  # its frames are of steps 17, 22, 27 and 32
    with pytest.raises(DataError, match="no image of FRONT at step 30"):
        scenes.scenario(35).observation()
    found = inspect(path)
    assert found.counts["frames"] == STEPS - 1 and len(found.faults) == 1
    for k in range(31, 37):
        damaged(path, places[k] + 40)
    with pytest.raises(DataError, match=r"at most 5 may be missing in a row \(0\.800 s after frame 29\)"):
        segment_log(path, "val")
    assert WaymoPerceptionReader().find(tmp_path)[0].log_id == "segment-1"


def test_frames_that_lack_something(tmp_path):
    def lost(record, match):
        log = segment_log(write(tmp_path / "a.tfrecord", frame(0), record, frame(2)), "val")
        assert log.notes["lost_frames"] == [1] and len(log.faults) == 1
        assert match in log.faults[0] and "record 1 at byte" in log.faults[0]

    lost(put(frame(1), 3, None), "lacks timestamp_micros or pose")
    lost(put(frame(1), 3, [(1, 1.0)] * 4), "4 finite numbers, want 16")
    lost(put(frame(1), 3, [(1, float("nan"))] * 16), "NaN")
    lost(b"\x0a\x7fxx", "no such message")
    nan = [*[item for item in frame(1) if item[0] != 6], (6, label("car", 1, (np.nan, 0, 1, 4, 2, 2, 0))), (6, [(3, 2), (4, "man")])]
    log = segment_log(write(tmp_path / "b.tfrecord", frame(0), nan, frame(2)), "val")
    assert log.notes["broken_states"] == 2 and log.agents.valid[:, 1].sum() == 0 and log.agents.valid[:, 2].all()
    half = [item for item in frame(1) if item[0] != 4 or item[1][0] != (1, 2)]
    log = segment_log(write(tmp_path / "c.tfrecord", frame(0), half, frame(2)), "val")
    assert log.images[1][1] is None and log.images[0][1] is not None
    for content, match in ((b"", "holds no record"), (b"12345", "ends within its header")):
        (tmp_path / "d.tfrecord").write_bytes(content)
        with pytest.raises(DataError, match=match):
            segment_log(tmp_path / "d.tfrecord", "val")
    with pytest.raises(DataError, match=r"frames are not 0\.1 s apart"):
        segment_log(write(tmp_path / "e.tfrecord", frame(0), frame(0)), "val")
    with pytest.raises(DataError, match="no calibration of camera REAR"):
        segment_log(write(tmp_path / "f.tfrecord", frame(0)), "val", ("REAR",))


def test_a_segment_that_cannot_be_read_is_a_fault_of_the_folder(root, tmp_path):
    write(tmp_path / "train" / "a.tfrecord", *[frame(k, CAMERAS[:1]) for k in range(STEPS)])
    (tmp_path / "train" / "b.tfrecord").write_bytes(b"nonsense nonsense nonsense")
    data = LogDataset(WaymoPerceptionReader(), tmp_path, "train")
    assert len(data.logs) == 1 and len(data.faults) == 1 and data.expected == 2 * len(data)


@pytest.mark.parametrize(("hurt", "cut"), [(5, False), (-1, True), (0, True)])
def test_a_cut_shard_hides_frames_and_a_hole_does_not(tmp_path, hurt, cut):
    """A sound short segment with one broken frame within is not charged for being short."""
    write(tmp_path / "val" / "long.tfrecord", *[frame(k, CAMERAS[:1], name="long") for k in range(STEPS)])
    path = write(tmp_path / "val" / "short.tfrecord", *[frame(k, CAMERAS[:1], name="short") for k in range(STEPS - 20)])
    damaged(path, [record.offset for record in tfrecord.records(path)][hurt] + 40)
    data = LogDataset(WaymoPerceptionReader(), tmp_path, "val", short_futures=True)
    long, short = (len(range(15, steps, 5)) for steps in (STEPS, STEPS - 20))
    assert [scenes.log.cut for scenes in data.logs] == [False, cut]
    assert data.expected == (2 * long if cut else long + short)


@real
def test_the_public_frame_is_counted_and_its_images_decode():
    assert kind_of(REAL) is Kind.PERCEPTION
    assert inspect(REAL).counts == {"frames": 1, "ego poses": 1, "camera images": 5, "3D boxes": 75, "lidar sweeps": 5}
    log = segment_log(REAL, "test")
    assert [camera.name for camera in log.cameras] == ["FRONT", "FRONT_LEFT", "FRONT_RIGHT", "SIDE_LEFT", "SIDE_RIGHT"]
    pictures = [row[0].read() for row in log.images if row[0] is not None]
    assert [picture.shape for picture in pictures] == [(1280, 1920, 3)] * 5
    assert (pictures[4][886:] == 0).all() and pictures[4][:886].std() > 20 and pictures[0][1000:].std() > 5
    assert len(log.agents) == 50 and log.notes["signs"] == 25


def corners(box):
    x, y, z, length, width, height, angle = box
    unit = np.array([[i, j, k] for i in (-0.5, 0.5) for j in (-0.5, 0.5) for k in (-0.5, 0.5)]) * [length, width, height]
    c, s = np.cos(angle), np.sin(angle)
    return unit @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]]) + [x, y, z]


@real
def test_real_boxes_land_where_waymo_projects_them():
    """Against `projected_lidar_labels`, Waymo's own rectangles, which also model the lens and the rolling shutter."""
    record = next(tfrecord.records(REAL))
    message = Message(tfrecord.read(record), record.where)
    seen, log = read_frame(message, record), segment_log(REAL, "test")
    overlaps = []
    for view in message.messages(9):
        camera = next(camera for camera in log.cameras if camera.name == NAMES[view.integer(1)])
        limit = (1920, 886) if camera.name.startswith("SIDE") else (1920, 1280)
        for item in view.messages(2):
            box = next(box for name, box in zip(seen.ids, seen.boxes, strict=True) if item.text(4).startswith(name))
            local = np.linalg.inv(camera.ego_from_camera) @ np.column_stack([corners(box), np.ones(8)]).T
            if local[2].min() < 0.5:
                continue
            pixels = (camera.intrinsics @ local[:3])[:2] / local[2]
            ours = np.clip([pixels.min(axis=1), pixels.max(axis=1)], 0, limit)
            u, v, wide, high = item.table(1, (1, 2, 5, 4))[0]
            theirs = np.array([[u - wide / 2, v - high / 2], [u + wide / 2, v + high / 2]])
            common = np.prod(np.maximum(np.minimum(ours[1], theirs[1]) - np.maximum(ours[0], theirs[0]), 0.0))
            overlaps.append(common / (np.prod(ours[1] - ours[0]) + wide * high - common))
    assert len(overlaps) > 50 and np.median(overlaps) > 0.9 and np.percentile(overlaps, 10) > 0.7  # those at the rim are bent by the lens
