from collections.abc import Sequence
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image

from drive.core.errors import DataError
from drive.core.types import Observation, Plan, PlanStatus, RolloutStatus, Trajectory
from drive.planners.constant_velocity import ConstantVelocity
from drive.planners.pdm import PdmExpert
from drive.report.drive_pictures import busiest_step, drive_picture, drive_pictures
from drive.report.drive_town import RUN_UP, closed_loop, drive_town, make_video
from drive.report.video import write_mp4


def decode(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return frames, float(stream.average_rate or 0), stream.pix_fmt


def bars(count, height=48, width=64):
    """Frame k is white left of column 4 k."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    for k in range(count):
        frames[k, :, : 4 * k] = 255
    return list(frames)


def test_mp4_holds_every_frame_in_order(tmp_path):
    frames, rate, pixels = decode(write_mp4(iter(bars(12)), tmp_path / "new" / "a.mp4", 10))
    assert len(frames) == 12 and rate == 10.0 and pixels == "yuv420p" and frames[0].shape == (48, 64, 3)
    for k, frame in enumerate(frames):
        assert abs((frame[..., 0] > 127).sum(1).mean() - 4 * k) < 1.0
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.mp4"]


def test_odd_sizes_lose_a_row_and_a_column(tmp_path):
    frames, _, _ = decode(write_mp4([np.zeros((33, 51, 3), np.uint8)] * 3, tmp_path / "a.mp4", 5))
    assert len(frames) == 3 and frames[0].shape == (32, 50, 3)


@pytest.mark.parametrize("available", [{"mpeg4"}, {"mpeg4", "libx264"}])
def test_falls_back_to_mpeg4(tmp_path, monkeypatch, available):
    monkeypatch.setattr(av, "codecs_available", available)
    frames, _, _ = decode(write_mp4(bars(5), tmp_path / "a.mp4", 10))
    assert len(frames) == 5


def test_a_failed_film_leaves_the_old_one(tmp_path):
    path = write_mp4(bars(3), tmp_path / "a.mp4", 10)
    before = path.read_bytes()
    with pytest.raises(DataError, match="one size"):
        write_mp4([*bars(2), np.zeros((10, 10, 3), np.uint8)], path, 10)
    with pytest.raises(DataError, match="at least one frame"):
        write_mp4([], path, 10)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_expert_drives_the_test_town():
    drive = closed_loop(PdmExpert(), "test_c", "free", 0, 8.0)
    assert drive.rollout.status is RolloutStatus.COMPLETED and drive.rollout.events == () and not drive.fault
    assert drive.end == "TIME IS UP" and 40.0 < drive.distance < 8.0 * 25.0
    assert [step for step, _ in drive.rollout.plans] == [RUN_UP + 5 * k for k in range(16)]
    assert len(drive.rollout.ego.poses_world) == RUN_UP + 81 and drive.steps == range(RUN_UP, RUN_UP + 81)
    again = closed_loop(PdmExpert(), "test_c", "free", 0, 8.0)
    assert np.array_equal(drive.rollout.ego.poses_world, again.rollout.ego.poses_world)
    assert len(drive.commands) == 16 and all(plan.reasoning for _, plan in drive.rollout.plans)
    assert busiest_step(drive) in [step for step, _ in drive.rollout.plans]


def test_pictures_show_the_plan_and_change_as_the_car_moves():
    rollout, pictures = drive_town(PdmExpert(), "test_c", "follow", 3, 1.0)
    shown = list(pictures)
    assert len(shown) == 11 + 15 and all(picture.shape == (576, 960, 3) for picture in shown)
    assert np.array_equal(shown[11], shown[-1]) and not np.array_equal(shown[0], shown[5])
    blue = shown[0][300:470, 180:300].astype(int)
    assert ((blue[..., 2] - blue[..., 0]) > 60).mean() > 0.3
    assert rollout.scenario_id == "test_c-follow-3"


def test_straight_ahead_leaves_the_road_and_the_film_ends_there():
    drive = closed_loop(ConstantVelocity(), "test_c", "free", 0, 20.0)
    assert drive.fault and drive.end == "OFF THE ROAD" and drive.rollout.status is RolloutStatus.COMPLETED
    assert drive.steps[-1] == drive.rollout.events[0][0] <= len(drive.rollout.ego.poses_world) - 1
    *_, last = drive_pictures(replace(drive, start=drive.steps[-1]))
    assert not np.array_equal(last[22:66], drive_picture(drive, drive.steps[-1])[22:66])  # the banner


class Mute:
    """Answers with no plan at its second turn."""

    name = "mute"

    def __init__(self, status: PlanStatus) -> None:
        self.status, self.turn = status, 5

    def reset(self) -> None:
        self.turn = 0

    def plan(self, observations: Sequence[Observation]) -> list[Plan]:
        self.turn += 1
        assert observations[0].images.shape == (1, 4, 112, 112, 3) and not np.array_equal(*observations[0].images[0, [0, -1]])
        if self.turn == 2:
            return [Plan(None, self.status, mode="slow", generated_tokens=9)]
        poses = np.zeros((10, 3))
        poses[:, 0] = 5.0 * np.arange(1, 11)
        return [Plan(Trajectory(poses))]


@pytest.mark.parametrize(
    ("given", "wanted"), [(PlanStatus.UNDECODABLE, RolloutStatus.UNDECODABLE), (PlanStatus.FAILED, RolloutStatus.PLANNER_FAILED)]
)
def test_a_planner_without_a_plan_ends_the_drive(given, wanted):
    drive = closed_loop(Mute(given), "test_c", "free", 0, 10.0)
    assert drive.rollout.status is wanted and drive.fault and drive.end == f"PLAN {given.value.upper()}"
    assert len(drive.rollout.plans) == 2 and drive.steps[-1] == RUN_UP + 5
    assert len(list(drive_pictures(drive))) == 6 + 15


def test_make_video_writes_film_and_still(tmp_path):
    path = make_video(PdmExpert(), tmp_path / "drive.mp4", seconds=1.0)
    frames, rate, _ = decode(path)
    assert path == tmp_path / "drive.mp4" and len(frames) == 26 and rate == 10.0 and frames[0].shape == (576, 960, 3)
    assert Image.open(tmp_path / "drive.png").size == (960, 576)
