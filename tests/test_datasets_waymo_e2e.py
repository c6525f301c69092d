"""Waymo End-to-End frames as Scenarios: hand-made records, as no public one is to be had."""

import numpy as np
import pytest
from waymo_files import CAMERAS, FUTURE, HEIGHT, PAST, SPEED, WIDTH, colour, damaged, e2e, jpeg, put, states, write

from drive.core.errors import DataError
from drive.core.types import Command
from drive.datasets.logged import LogDataset
from drive.datasets.logs import LogScenes
from drive.datasets.waymo import Kind, inspect, kind_of
from drive.datasets.waymo_e2e import WaymoE2EReader, drive_of, path_headings
from drive.metrics.rater_feedback import rater_feedback_score


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("e2e")
    # the records of a drive are spread over the files, in no order
    write(root / "val_2025.tfrecord-00000-of-00002", e2e(50, scores=(8.0, 5.0, 2.5)), e2e(45), e2e(40))
    write(root / "val_2025.tfrecord-00001-of-00002", e2e(35), e2e(47, scores=(-1.0, -1.0, -1.0)), e2e(48, scores=(7.0,)), e2e(50, "drive-2", intent=3))
    return root


@pytest.fixture(scope="module")
def data(root):
    return LogDataset(WaymoE2EReader(), root, "val")


def named(data, name):
    """The Scenario of one record."""
    return data[data.ids.index(f"{name}-0015")]


def scene_of(tmp_path, *records, **options):
    """The Scenario of the first record of a file."""
    write(tmp_path / "val.tfrecord", *records)
    reader = WaymoE2EReader(**options)
    log = reader.read(reader.find(tmp_path)[0])
    assert log.presents is not None
    return LogScenes(log).scenario(log.presents[0])


def refused(tmp_path, record, match):
    with pytest.raises(DataError, match=match) as caught:
        scene_of(tmp_path, record)
    assert "val.tfrecord: record 0 at byte 0" in str(caught.value) and "\n" not in str(caught.value)


def painted(image, camera, frame):
    """Whether the middle of an image has the colour of a camera and frame."""
    return np.abs(image[8, 30].astype(int) - colour(camera, frame)).max() < 6


def test_frames_by_stride_and_those_that_were_rated(data):
    assert data.ids == tuple(f"{name}-0015" for name in ("drive-1-035", "drive-1-040", "drive-1-045", "drive-1-048", "drive-1-050", "drive-2-050"))
    assert data.faults == [] and data.expected == 6 and {scene.log_id for scene in data} == {"drive-1", "drive-2"}
    assert len(LogDataset(WaymoE2EReader(stride_s=0.1), data.root, "val")) == 7


def test_ego_command_and_future(data):
    scene = named(data, "drive-1-050")
    assert (scene.source, scene.split, scene.dt, scene.present) == ("waymo_e2e", "val", 0.25, 6)
    assert scene.command is Command.LEFT and named(data, "drive-2-050").command is Command.RIGHT
    assert scene.teacher is not None and scene.reference_world is None and len(scene.agents) == 0
    np.testing.assert_allclose(scene.teacher.poses, [[SPEED * t, 0.0, 0.0] for t in 0.5 * np.arange(1, 11)], atol=1e-5)
    now = scene.ego.state(scene.present)
    assert now.speed == pytest.approx(SPEED) and now.acceleration_ego.tolist() == [0.5, 0.0]  # as recorded
    np.testing.assert_allclose(scene.ego.poses_world[:, 0], SPEED * 0.25 * np.arange(-6, 21), atol=1e-5)
    assert scene.notes["map"] == "corridor" and scene.notes["sequence"] == "drive-1" and scene.notes["frame"] == 50


def test_eight_cameras_of_one_size_read_lazily_and_earlier_frames_of_the_drive(data):
    scene = named(data, "drive-1-050")
    assert tuple(camera.name for camera in scene.cameras) == CAMERAS
    assert {(camera.width, camera.height) for camera in scene.cameras} == {(WIDTH, HEIGHT)}
    seen = scene.observation().images
    assert seen.shape == (8, 4, HEIGHT, WIDTH, 3) and scene.notes["repeated_frames"] == 0
    assert all(painted(seen[c, f], camera, number) for c, camera in enumerate(CAMERAS) for f, number in enumerate((35, 40, 45, 50)))
    assert (seen[CAMERAS.index("SIDE_LEFT"), :, 24:] == 0).all() and (seen[CAMERAS.index("FRONT"), :, 39] > 0).any()
    later = named(data, "drive-1-045")  # 45: 40 and 35 are there, 30 is not
    seen = later.observation().images[0]
    assert [painted(seen[f], "FRONT", number) for f, number in enumerate((35, 35, 40, 45))] == [True] * 4
    assert later.notes["repeated_frames"] == 8


def test_a_camera_looks_where_its_calibration_says(data):
    front, left, _, side = named(data, "drive-1-050").cameras[:4]
    np.testing.assert_allclose(front.ego_from_camera[:3, 2], [1, 0, 0], atol=1e-9)  # depth is ahead
    np.testing.assert_allclose(front.ego_from_camera[:3, 1], [0, 0, -1], atol=1e-9)  # rows go down
    np.testing.assert_allclose(left.ego_from_camera[:3, 2], [np.sqrt(0.5), np.sqrt(0.5), 0], atol=1e-9)
    np.testing.assert_allclose(side.ego_from_camera[:3, 3], [1.5, 0.0, 2.0])
    assert front.intrinsics[0, 0] == 50.0 and side.intrinsics[1, 2] == 12.0  # of the recorded size
    assert named(data, "drive-1-050").notes["distortion"]["FRONT"] == [0.04, -0.3, 0.001, -0.002, 0.0]


def test_rated_trajectories_feed_the_metric(data):
    rated = named(data, "drive-1-050").notes["rater_trajectories"]
    assert [item["score"] for item in rated] == [8.0, 5.0, 2.5] and np.shape(rated[0]["poses"]) == (20, 2)
    best = np.array(rated[0]["poses"])[None]
    score = rater_feedback_score(best, [item["poses"] for item in rated], [item["score"] for item in rated], SPEED)
    assert score.tolist() == [8.0]
    assert named(data, "drive-1-045").notes["rater_trajectories"] == [] and named(data, "drive-1-045").notes["unrated_trajectories"] == 0
    everything = LogDataset(WaymoE2EReader(stride_s=0.1), data.root, "val")
    assert next(scene for scene in everything if scene.notes["frame"] == 47).notes["unrated_trajectories"] == 3


def test_another_future_changes_no_byte_of_the_observation(tmp_path):
    one = scene_of(tmp_path / "a", e2e(50))
    braked = put(e2e(50, scores=(9.0,)), 5, states(FUTURE, speed=2.0, left=1.0))
    two = scene_of(tmp_path / "b", braked)
    assert one.logged_future(4).poses[-1, 0] - two.logged_future(4).poses[-1, 0] > 10.0
    a, b = one.observation(), two.observation()
    assert a.images.tobytes() == b.images.tobytes() and a.ego_history.tobytes() == b.ego_history.tobytes()
    assert (a.speed, a.acceleration, a.yaw_rate, a.command) == (b.speed, b.acceleration, b.yaw_rate, b.command)


def test_cameras_can_be_chosen_and_one_that_is_missing_is_told(tmp_path):
    chosen = scene_of(tmp_path / "a", e2e(50), cameras=("FRONT_LEFT", "SIDE_LEFT"))
    assert [camera.name for camera in chosen.cameras] == ["FRONT_LEFT", "SIDE_LEFT"] and painted(chosen.observation().images[1, 3], "SIDE_LEFT", 50)
    with pytest.raises(DataError, match="record 0 at byte 0 has no calibration of camera REAR: it has FRONT"):
        scene_of(tmp_path / "b", e2e(50, cameras=CAMERAS[:3]), cameras=("REAR",))
    record = e2e(50)
    inner = [item for item in record[0][1] if item[0] != 4 or item[1][0] != (1, 1)]
    blind = scene_of(tmp_path / "c", put(record, 1, inner))
    with pytest.raises(DataError, match="has no image of FRONT at step 9"):
        blind.observation()
    assert painted(blind.image_source.image(1, blind.present), "FRONT_LEFT", 50)


def test_an_image_that_is_none_or_of_another_size_is_told(tmp_path):
    record = e2e(50)
    for content, match in ((b"no jpeg", "no image can be read at byte"), (jpeg("FRONT", size=(32, 16)), "is 32 x 16, its calibration 64 x 40")):
        inner = [(4, [(1, 1), (2, content)]) if item[0] == 4 and item[1][0] == (1, 1) else item for item in record[0][1]]
        scene = scene_of(tmp_path, put(record, 1, inner))
        with pytest.raises(DataError, match=match):
            scene.observation()


def test_records_that_lack_something_are_refused_by_name(tmp_path):
    refused(tmp_path, put(e2e(50), 6, None), "lacks past_states")
    refused(tmp_path, put(e2e(50), 1, [(2, 0)]), "no calibration|lacks frame.context.name")
    refused(tmp_path, put(e2e(50), 6, states(PAST[-1:])), "1 past positions")
    refused(tmp_path, put(e2e(50), 6, states(PAST - 1.0)), "10.00 m from the origin")
    refused(tmp_path, put(e2e(50), 6, [(1, PAST.astype(np.float32))]), "16 x and 0 y")
    nan = PAST.copy()
    nan[3] = np.nan
    refused(tmp_path, put(e2e(50), 6, states(nan)), "past positions have NaN at step 3")
    refused(tmp_path, put(e2e(50), 5, states(np.full(20, np.inf), left=1.0)), "future positions have NaN at step 0")
    refused(tmp_path, [*e2e(50), (8, [(8, np.float32(5.0))])], "scored trajectory has no positions")
    bent = e2e(50)
    camera = [(1, 1), *[(2, v) for v in (50.0, 50.0, 32.0, 20.0)], (3, [(1, 1.0)] * 16), (4, 64), (5, 40)]
    refused(tmp_path, put(bent, 1, put(bent[0][1], 1, [(1, "d-050"), (2, camera)])), "no rotation and translation")
    refused(tmp_path, put(bent, 1, put(bent[0][1], 1, [(1, "d-050"), (2, camera[:3])])), "calibration of camera FRONT is incomplete")


def test_the_test_split_has_no_future_and_states_without_motion(tmp_path):
    record = put(put(e2e(50, future=False), 6, states(PAST)), 7, None)
    write(tmp_path / "test_2025.tfrecord", record)
    data = LogDataset(WaymoE2EReader(), tmp_path, "test", short_futures=True)
    scene = named(data, "drive-1-050")
    assert scene.teacher is None and scene.command is Command.LANEFOLLOW and len(scene.ego.poses_world) == 7
    assert scene.ego.state(scene.present).speed == pytest.approx(SPEED, abs=1e-4)  # from positions


def test_a_bad_record_among_good_ones_is_counted_and_the_rest_is_read(tmp_path):
    path = write(tmp_path / "val.tfrecord", e2e(50), e2e(45), e2e(40))
    damaged(path, path.stat().st_size // 2)
    data = LogDataset(WaymoE2EReader(), tmp_path, "val")
    assert [scene.notes["frame"] for scene in data] == [40, 50] and data.expected == 3
    assert len(data.faults) == 1 and "record 1 at byte" in data.faults[0]
    found = inspect(path)
    assert found.counts["records"] == 2 and len(found.faults) == 1
    damaged(path, 0)  # the first length: nothing behind it can be found
    with pytest.raises(DataError, match="checksum of its length is wrong"):
        LogDataset(WaymoE2EReader(), tmp_path, "val")


def test_counts(root, tmp_path):
    assert kind_of(root / "val_2025.tfrecord-00000-of-00002") is Kind.E2E
    path = write(tmp_path / "a.tfrecord", e2e(50, scores=(8.0, -1.0)))
    wanted = {"records": 1, "frame": "drive-1-050", "camera images": 8, "camera calibrations": 8, "past states": 16, "future states": 20}
    assert inspect(path).counts == wanted | {"rated trajectories": 1, "unrated trajectories": 1}


def test_names_of_frames():
    assert drive_of("ab-12-045") == ("ab-12", 45) and drive_of("plain") == ("plain", -1) and drive_of("ab-x") == ("ab-x", -1)


def test_headings_follow_the_path_and_hold_where_it_stands():
    angle = np.linspace(-0.5, 0.8, 36)
    circle = 20.0 * np.column_stack([np.sin(angle) - np.sin(angle[15]), np.cos(angle[15]) - np.cos(angle)])
    turn = np.array([[np.cos(angle[15]), np.sin(angle[15])], [-np.sin(angle[15]), np.cos(angle[15])]])
    np.testing.assert_allclose(path_headings(circle @ turn.T, 15)[1:-1], (angle - angle[15])[1:-1], atol=1e-9)
    assert (path_headings(np.zeros((36, 2)), 15) == 0.0).all()
    backing = np.column_stack([-np.arange(-15.0, 21.0), np.zeros(36)])
    np.testing.assert_allclose(path_headings(backing, 15), 0.0, atol=1e-9)
