"""What keeps a conversion's memory bounded: boxes are not spread over steps, shards are not mapped whole, an index is read line by line."""

import json
import tracemalloc
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from waymo_files import scenario, write

from drive.core.types import Command, EgoState, Tracks
from drive.datasets import av2, l5kit
from drive.datasets.box_tracks import BoxTracks
from drive.datasets.convert import INDEX, CacheReader, Record, _records, end_line
from drive.datasets.motion import central_velocity
from drive.datasets.recording import LogRecorder
from drive.datasets.waymo_motion import peeked

STEPS, SEEN = 2000, 5  # of a long log: a new agent comes at each step and is seen for five
SPREAD = STEPS * STEPS * 24  # bytes that its poses would take as (A, S, 3)


@contextmanager
def at_most(size: int):
    """Fails where the block takes more than `size` bytes at once."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size, f"{peak / 1e6:.1f} MB at once, at most {size / 1e6:.1f}"


def lives():
    """Agent and step of each box, in order of step."""
    step = np.repeat(np.arange(STEPS - SEEN), SEEN) + np.tile(np.arange(SEEN), STEPS - SEEN)
    agent = np.repeat(np.arange(STEPS - SEEN), SEEN)
    order = np.argsort(step, kind="stable")
    return agent[order], step[order]


@pytest.mark.parametrize("seed", range(5))
def test_velocities_of_boxes_are_those_of_whole_tracks(seed):
    random = np.random.default_rng(seed)
    valid = random.random((7, 12)) < 0.6
    valid[:, 0] |= ~valid.any(axis=1)
    poses = np.where(valid[..., None], random.normal(size=(7, 12, 3)), 0.0)
    whole = BoxTracks.of(Tracks(tuple("abcdefg"), np.arange(7), np.ones((7, 3)), poses, central_velocity(poses[..., :2], valid, 0.25), valid))
    row, step = np.nonzero(valid)
    order = random.permutation(len(row))
    row, step = row[order], step[order]
    boxes = BoxTracks.moving(whole.ids, whole.types, whole.size, step, row, poses[row, step], 0.25)
    for name in ("step", "row", "poses_world", "velocity_world"):
        np.testing.assert_array_equal(getattr(boxes, name), getattr(whole, name))


def test_no_boxes_and_one_box_have_no_velocity():
    for count in (0, 1):
        at = np.zeros(count, np.int64)
        boxes = BoxTracks.moving(("a",) * count, at, np.ones((count, 3)), at, at, np.ones((count, 3)), 0.1)
        assert boxes.velocity_world.shape == (count, 2) and not boxes.velocity_world.any()


def test_a_long_argoverse_log_is_not_spread_over_its_steps():
    agent, step = lives()
    ones, zeros = np.ones(len(agent)), np.zeros(len(agent))
    rows = {"timestamp_ns": step * 100_000_000, "track_uuid": np.array([f"{a:036d}" for a in agent], object), "category": np.full(len(agent), "BUS", object)}
    rows |= {**dict.fromkeys(av2.SIZE, ones), "qw": ones, **dict.fromkeys(("qx", "qy", "qz"), zeros), "tx_m": 1.0 * step, "ty_m": zeros, "tz_m": zeros}
    with at_most(SPREAD // 4):
        boxes = av2._agents(Path("log"), rows, np.arange(STEPS) * 100_000_000, np.tile(np.eye(3), (STEPS, 1, 1)), np.zeros((STEPS, 3)), np.zeros(2))
    assert len(boxes) == STEPS - SEEN and len(boxes.step) == len(agent)
    np.testing.assert_allclose(boxes.velocity_world, np.tile([10.0, 0.0], (len(agent), 1)), atol=1e-9)


def test_of_two_argoverse_boxes_of_one_track_in_a_frame_the_later_counts():
    rows = {"timestamp_ns": np.array([0, 0]), "track_uuid": np.array(["a", "a"], object), "category": np.array(["BUS", "BUS"], object)}
    rows |= {**dict.fromkeys(av2.SIZE, np.ones(2)), "qw": np.ones(2), **dict.fromkeys(("qx", "qy", "qz", "ty_m", "tz_m"), np.zeros(2)), "tx_m": np.array([1.0, 2.0])}
    boxes = av2._agents(Path("log"), rows, np.array([0, 100_000_000]), np.tile(np.eye(3), (2, 1, 1)), np.zeros((2, 3)), np.zeros(2))
    assert boxes.poses_world[:, 0].tolist() == [2.0]


def test_a_long_l5kit_scene_is_not_spread_over_its_steps(tmp_path):
    import l5kit_files

    agent, step = lives()
    rows = np.zeros(len(agent), np.dtype(l5kit_files.DTYPES["agents"]))
    rows["centroid"][:, 0], rows["extent"], rows["track_id"], rows["label_probabilities"][:, l5kit_files.CAR] = step, 1.0, agent + 1, 1.0
    l5kit_files.write(tmp_path, {"agents": rows}, chunk=len(rows))
    spans = np.searchsorted(step, np.arange(STEPS + 1))
    frames = np.zeros(STEPS, np.dtype(l5kit_files.DTYPES["frames"]))
    frames["agent_index_interval"] = np.column_stack([spans[:-1], spans[1:]])
    records = l5kit.Records(tmp_path / "agents", l5kit.FIELDS["agents"])
    with at_most(SPREAD // 4):
        boxes = l5kit._agents(records, frames, np.zeros(2), l5kit.LABELS)
    assert len(boxes) == STEPS - SEEN and np.array_equal(boxes.step, step)


def test_a_long_recording_is_not_spread_over_its_steps(tmp_path):
    agent, step = lives()
    cuts = np.searchsorted(step, np.arange(STEPS + 1))
    with at_most(SPREAD // 4):
        recorder = LogRecorder(tmp_path, "long", "embedded", "val", 0.1, (4.9, 1.9, 1.6))
        for k in range(STEPS):
            ids = tuple(f"agent-{a}" for a in agent[cuts[k] : cuts[k + 1]])
            count = len(ids)
            poses, valid = np.zeros((count, 1, 3)) + [0.6 * k, 5.0, 0.0], np.ones((count, 1), bool)
            tracks = Tracks(ids, np.zeros(count, np.int64), np.ones((count, 3)), poses, np.zeros((count, 1, 2)), valid)
            recorder.add(EgoState(np.array([0.6 * k, 0.0, 0.0]), np.array([6.0, 0.0]), np.zeros(2), time_s=0.1 * k), tracks, Command.LANEFOLLOW)
        recorder.close()
    (entry,) = CacheReader().find(tmp_path)
    boxes = CacheReader().read(entry).agents
    assert isinstance(boxes, BoxTracks) and len(boxes) == STEPS - SEEN and np.array_equal(boxes.step, step)


def test_of_a_shard_one_record_is_mapped_at_a_time(tmp_path):
    path = write(tmp_path / "val.tfrecord", scenario("scene-a"), scenario("scene-b"))
    found = peeked(path)
    lengths = [(record.length, len(message.data), message.text(5)) for record, message in found if message is not None]
    assert [name for _, _, name in lengths] == ["scene-a", "scene-b"] and all(length == mapped for length, mapped, _ in lengths)
    assert sum(length for length, _, _ in lengths) < path.stat().st_size


def test_an_index_is_read_line_by_line_and_the_last_line_of_a_log_counts(tmp_path):
    count = 5000
    record = Record("train/shard", "", [["train/shard", 1, 2]], "", "", "train", 91, 0.1, [10], [], "d" * 64, 3, faults=["f" * 500])
    with (tmp_path / INDEX).open("w") as index:
        for number, k in enumerate([*range(count), *range(count)]):
            index.write(json.dumps({**asdict(record), "key": str(k), "steps": number}) + "\n")
    with at_most(count * 500):  # a line is longer than that
        steps = [found.steps for found in _records(tmp_path)]
    assert steps == list(range(count, 2 * count))


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("torn", [b"", '{"path": "ä'.encode(), b'{"path": "\xc3', b'\xff\xfe{"', b"\n"])
def test_a_torn_last_line_is_cut_off_and_nothing_else(tmp_path, torn, end):
    whole = '{"a": "ü"}'.encode() + end + b"{}" + end
    (tmp_path / INDEX).write_bytes(whole + torn)
    with (tmp_path / INDEX).open("ab+") as index:
        end_line(index)
        index.write(b"next\n")
    assert (tmp_path / INDEX).read_bytes() == whole + (b"\n" if torn == b"\n" else b"") + b"next\n"


def test_a_map_without_a_junction_is_one(tmp_path):
    from waymo_files import at, lane

    from drive.datasets.waymo_motion import WaymoMotionReader

    message = [item for item in scenario("straight") if item[0] not in (7, 8)]
    write(tmp_path / "val.tfrecord", [*message, (8, lane(1, at(np.arange(-50.0, 150.0, 0.5))))])
    (entry,) = WaymoMotionReader().find(tmp_path)
    log = WaymoMotionReader().read(entry)
    assert log.make_map is not None and set(log.make_map().lanes) == {"1"}
