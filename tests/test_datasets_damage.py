"""Every reader against every kind of damage: one line that names file and record, the other logs untouched, the loss counted.

The matrix is SOURCES (damage_sources.py) by the kinds below: cut off at several points, empty, gone, flipped bytes, and, in CASES, a table or
column short, NaN of the ego and of an agent. CANNOT holds the cells that do not exist, with the reason.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage_cases import CANNOT, CASES, NOTED
from damage_flips import flipped
from damage_sources import SOURCES, Fate, Outcome, Source, files_of, judge, outcome

from drive.core.errors import DataError
from drive.core.roadmap import Lane, Polygons, RoadMap
from drive.core.types import AgentType, Camera, EgoTrack, Tracks
from drive.datasets.logged import Entry, LogDataset
from drive.datasets.logs import Log, LogScenes

pytest.importorskip("pyarrow")
CUTS = {"empty": 0.0, "cut off at a tenth": 0.1, "cut off in the middle": 0.5, "cut off near the end": 0.9, "a byte short": 1.0}
FLIPS = 20  # of each group of files
KINDS = ("cut off", "flipped bytes", "gone", "table or column", "image", "NaN of the ego", "NaN of an agent")


@pytest.fixture(scope="module", params=SOURCES)
def undamaged(request, tmp_path_factory) -> tuple[Source, Path, Outcome]:
    """A set as it was written, and what it gives."""
    source = SOURCES[request.param]
    if "blosc" in source.name:
        pytest.importorskip("numcodecs")
    root = tmp_path_factory.mktemp(source.name)
    source.write(root)
    before = outcome(source, root)
    assert not before.refused and not before.faults and before.expected == len(before.scenes) > 0
    assert any(key.startswith(source.hurt) for key in before.scenes) and not all(key.startswith(source.hurt) for key in before.scenes)
    return source, root, before


def told(source: Source, root: Path, before: Outcome, names: tuple[str, ...], shared: bool = False) -> Outcome:
    """Opens a damaged set; asserts that its loss is told by `names`, counted, and no other log's."""
    after = outcome(source, root)
    assert judge(source, before, after, shared) is Fate.TOLD
    lines = [after.refused] if after.refused else list(after.faults)
    assert all(any(name in line for name in names) for line in lines), lines
    assert all(len(line.replace(str(root), "")) < 500 and "Traceback" not in line for line in lines), lines
    return after


def cut(content: bytes, kind: str) -> bytes:
    """The start of a file; never up to the end of a record, where nothing tells that others followed."""
    share = CUTS[kind]
    return content[: min(int(share * len(content)) + bool(share), len(content) - 1)]


def whole_log(source: Source, before: Outcome, after: Outcome) -> None:
    """One fault, which costs the damaged log and counts all of it."""
    lost = [key for key in before.scenes if key.startswith(source.hurt)]
    assert len(after.faults) == 1, after.faults
    assert after.expected - len(after.scenes) == len(lost) and not any(key in after.scenes for key in lost)


def damage_each(paths: list[Path], change):
    """Each file changed, one at a time, and put back."""
    for path in paths:
        content = path.read_bytes()
        change(path, content)
        try:
            yield path
        finally:
            path.write_bytes(content)


@pytest.mark.parametrize("kind", [*CUTS, "gone"])
def test_a_file_of_one_log_that_is_cut_off_or_gone_costs_that_log_alone(undamaged, kind):
    source, root, before = undamaged

    def change(path, content):
        path.unlink() if kind == "gone" else path.write_bytes(cut(content, kind))

    cells = 0
    for path in damage_each(files_of(source, root, source.own), change):
        if (source.name, kind, path.name) in CANNOT:
            continue
        whole_log(source, before, told(source, root, before, (path.name, str(path.parent))))
        cells += 1
    assert cells or not source.own or kind == "gone"


@pytest.mark.parametrize("kind", CUTS)
def test_a_file_of_records_that_is_cut_off_loses_what_is_behind_the_cut(undamaged, kind):
    source, root, before = undamaged

    def change(path, content):
        path.write_bytes(cut(content, kind))

    for path in damage_each(files_of(source, root, source.records), change):
        if (source.name, kind, path.name) not in CANNOT:
            told(source, root, before, (path.name, str(path.parent)))


@pytest.mark.parametrize("kind", [*CUTS, "gone"])
def test_a_file_of_all_logs_that_is_cut_off_or_gone_is_told(undamaged, kind):
    source, root, before = undamaged

    def change(path, content):
        path.unlink() if kind == "gone" else path.write_bytes(cut(content, kind))

    for path in damage_each(files_of(source, root, source.shared), change):
        if (source.name, kind, path.name) not in CANNOT:
            told(source, root, before, (path.name,), shared=True)


def test_a_flipped_byte_is_told_or_read_and_never_anything_else(undamaged):
    source, root, before = undamaged
    for pattern in (*source.own, *source.records, *source.shared):
        fates = flipped(source, root, pattern, FLIPS, before)
        assert len(fates) == FLIPS
        if source.checksum and pattern not in source.shared:
            assert set(fates) == {Fate.TOLD}, "a checksum tells every byte"


@pytest.mark.parametrize("kind", ["gone", "empty", "cut off in the middle"])
def test_an_image_that_is_gone_or_torn_costs_the_scenes_that_show_it(undamaged, kind):
    source, root, before = undamaged
    if not source.images:
        assert source.cameras or (source.name, "image") in CANNOT
        return
    found = sorted(root.glob(source.images), key=lambda image: (len(image.name), image.name))
    path = found[20 if len(found) >= 80 else len(found) // 3]  # of 80 images at 10 Hz every fifth is shown

    def change(path, content):
        path.unlink() if kind == "gone" else path.write_bytes(content[: int(CUTS[kind] * len(content))])

    for _ in damage_each([path], change):
        after = outcome(source, root)
        assert judge(source, before, after) is Fate.TOLD
        named = [path.name, source.hurt] if kind == "gone" else [path.name]  # a list of a folder's images has no line for one that is gone
        assert all(any(name in line for name in named) for line in after.faults), after.faults
        assert 0 < len(before.scenes) - len(after.scenes) == after.expected - len(after.scenes)


@pytest.mark.parametrize("name", CASES)
def test_a_table_short_and_nan_are_told_by_file_and_record(undamaged, name):
    source, root, before = undamaged
    if source.name not in CASES[name]:
        assert (source.name, name) in CANNOT, "a cell is tested, or stands in CANNOT with its reason"
        return
    case = CASES[name][source.name]
    saved = {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.suffix not in (".jpg", ".png")}
    try:
        case.damage(root)
        after = outcome(source, root)
    finally:
        for path, content in saved.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    if (source.name, name) in NOTED:
        return  # the log itself counts it: NOTED's own test
    assert judge(source, before, after, case.shared) is Fate.TOLD
    lines = [after.refused] if after.refused else list(after.faults)
    assert all(word in lines[0] for word in case.words) and len(lines[0]) < 500, lines
    if case.partly:  # a lost frame of a segment has a second line: how many scenarios stand beside it
        assert len(lines) == 1 or (len(lines) == 2 and "beside missing frames" in lines[1]), lines
    elif not after.refused:
        whole_log(source, before, after)


@pytest.mark.parametrize(("source", "name"), NOTED)
def test_broken_agents_that_cost_no_log_are_counted_in_its_notes(tmp_path, source, name):
    SOURCES[source].write(tmp_path)
    CASES[name][source].damage(tmp_path)
    data = SOURCES[source].open(tmp_path)
    lost = [log.log.notes for log in data.logs if log.log.log_id.startswith(SOURCES[source].hurt)]
    assert any(NOTED[source, name](notes) for notes in lost), lost


def test_every_cell_is_tested_or_has_its_reason():
    for (source, *_), reason in CANNOT.items():
        assert source in SOURCES and len(reason) > 10
    assert len(SOURCES) == 15 and set(CASES) | {"cut off", "flipped bytes", "gone", "image"} == set(KINDS)


# ---- what no drive can hold


def drive(poses: Any = None, **changes) -> Log:
    """A log of 20 steps at 6 m/s, an agent 10 m ahead."""
    poses = bent(0, 0, 0.0) if poses is None else poses
    ego = EgoTrack(poses, np.tile([6.0, 0.0], (20, 1)), np.zeros((20, 2)), np.zeros(20))
    agent = Tracks(("car",), np.array([AgentType.VEHICLE]), np.array([[4.5, 1.9, 1.6]]), (poses + [10.0, 0.0, 0.0])[None], np.zeros((1, 20, 2)), np.ones((1, 20), bool))
    return Log(**{"log_id": "x", "source": "test", "split": "val", "files": (Path("f.db"),), "dt": 0.1, "ego": ego, "ego_size": (5.0, 2.0, 1.5), "agents": agent,
                  "origin": np.zeros(2), **changes})  # fmt: skip


def bent(row, column, value):
    poses = np.column_stack([0.6 * np.arange(20), np.zeros((20, 2))])
    poses[row, column] = value
    return poses


def agents(**changes):
    return {"agents": replace(drive().agents, **changes)}


STRANGE = {
    "NaN": ({"poses": bent(7, 0, np.nan)}, "pose of step 7 is NaN"),
    "a jump": ({"poses": bent(7, 1, 10.5)}, "jumps 10.5"),
    "a spin": ({"poses": bent(7, 2, 1.0)}, "turns by 1.00 rad"),
    "time that stands still": ({"times": np.array([0.1 * k for k in range(7)] + [0.6] + [0.1 * k for k in range(8, 20)])}, "step 7 is not later"),
    "an ego of no size": ({"ego_size": (5.0, 0.0, 1.5)}, "5 x 0 x 1.5 m large"),
    "a box of a kilometre": (agents(size=np.array([[1000.0, 2.0, 1.6]])), "agent car is 1000 x 2 x 1.6 m large"),
    "a box far away": (agents(poses_world=np.full((1, 20, 3), 5000.0)), "agent car at step 0 is"),
    "a box that flies": (agents(velocity_world=np.full((1, 20, 2), 1e9)), "m/s fast"),
    "a camera without a lens": ({"cameras": (Camera("F", 64, 36, np.zeros((3, 3)), np.eye(4)),)}, "calibration of camera F"),
    "a camera that is skewed": ({"cameras": (Camera("F", 64, 36, np.diag([40.0, 40.0, 1.0]), np.diag([2.0, 1.0, 1.0, 1.0])),)}, "calibration of camera F"),
}


@pytest.mark.parametrize("case", STRANGE.values(), ids=STRANGE)
def test_what_no_drive_can_hold_is_no_log(case):
    changes, words = case
    assert drive().steps == 20 and drive(bent(7, 1, 5.0)).steps == 20, "50 m/s aside is a bound that is not broken"
    with pytest.raises(DataError, match=words) as caught:
        drive(**changes)
    assert str(caught.value).startswith("f.db: log x: ") and "\n" not in str(caught.value)


def test_motion_that_is_recorded_is_looked_at_too():
    ego = drive().ego
    with pytest.raises(DataError, match="yaw rate of step 3"):
        drive(ego=replace(ego, yaw_rate=np.where(np.arange(20) == 3, 1e30, 0.0)))
    with pytest.raises(DataError, match="velocity of step 0"):
        drive(ego=replace(ego, velocity_ego=np.full((20, 2), np.nan)))


@pytest.mark.parametrize("case", STRANGE.values(), ids=STRANGE)
def test_of_a_sound_log_nan_and_time_alone_are_refused(case):
    changes, words = case
    if "NaN" in words or "not later" in words:
        with pytest.raises(DataError, match=words):
            drive(sound=True, **changes)
    else:
        assert drive(sound=True, **changes).steps == 20


def test_a_log_without_files_is_not_told_to_fetch_any():
    line = np.column_stack([np.arange(-10.0, 30.0), np.zeros(40), np.zeros(40)])
    far = RoadMap("m", {"a": Lane("a", line, line[:, :2] + [0.0, 2e4], line[:, :2], 15.0)}, Polygons.from_rings([]))
    for files, cure in (((), "mend what gave it"), ((Path("f.db"),), "fetch it again")):
        for changes, _ in STRANGE.values():
            with pytest.raises(DataError, match=f"^{'f.db' if files else 'test'}: log x: .*{cure}$"):
                drive(files=files, **changes)
        with pytest.raises(DataError, match=f"lane a has a point at NaN, or more than 10 km from the drive: .*{cure}$"):
            _ = LogScenes(drive(files=files, make_map=lambda: far)).road_map
    assert LogScenes(drive(sound=True, make_map=lambda: far)).road_map is far


class Two:
    """A long log, and a short one that `changes` describe."""

    name = "two"

    def __init__(self, **changes):
        self.changes = changes

    def find(self, root):
        return [Entry(name, root, "val") for name in ("long", "short")]

    def read(self, entry):
        size, changes = (60, {}) if entry.log_id == "long" else (20, self.changes)
        poses = np.zeros((size, 3))
        poses[:, 0] = 0.6 * np.arange(size)
        ego = EgoTrack(poses, np.tile([6.0, 0.0], (size, 1)), np.zeros((size, 2)), np.zeros(size))
        return drive(log_id=entry.log_id, ego=ego, agents=Tracks.empty(size), **changes)


def test_a_fault_costs_no_coverage_where_no_scenario_is_lost(tmp_path):
    def expected(**changes):
        data = LogDataset(Two(**changes), tmp_path, "val", short_futures=True)
        assert data.faults == list(changes.get("faults", ())) and len(data) == 9 + 1
        return data.expected

    assert expected() == expected(faults=("f.db: row 7 is no box",)) == 10
    assert expected(faults=("f.db: cut off",), cut=True) == 2 * 9
