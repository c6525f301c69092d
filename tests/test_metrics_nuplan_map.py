# pyright: reportArgumentType=false, reportCallIssue=false
"""nuPlan's map metrics on a hand-made street: two lanes, a junction with two connectors, one lane after it; all along x.

    y 3.5   left    0..50
    y 0     right   0..50   through 50..70   after 70..150      a second connector, "swerve", leads from right to the side
"""

import math

import numpy as np
import pytest
from world_maps import lane, straight

from drive.core.errors import DataError
from drive.core.geometry import box_corners
from drive.core.roadmap import Layer, Polygons, RoadMap
from drive.core.types import AgentType, Tracks
from drive.core.vehicle import PACIFICA
from drive.metrics.nuplan_map import (
    centers,
    closed_loop_score,
    drivable_area_compliance,
    driving_direction_compliance,
    expert_progress_ratio,
    nuplan_closed_loop,
    overspeeds,
    progress_along_lanes,
    progress_along_route,
    speed_limit_compliance,
)
from drive.metrics.nuplan_route import LaneIndex, driven_route, in_one_lane, lane_changes, simplified

DT = 0.1


def street():
    """The map."""
    lanes = {
        "right": lane("right", straight((0, 0), (50, 0)), 10.0, roadblock="before", successors=("through", "swerve")),
        "left": lane("left", straight((0, 3.5), (50, 3.5)), 10.0, roadblock="before"),
        "through": lane("through", straight((50, 0), (70, 0)), 5.0, is_connector=True, successors=("after",), predecessors=("right",)),
        "swerve": lane("swerve", straight((50, 0), (70, 1)), 5.0, is_connector=True, predecessors=("right",)),
        "after": lane("after", straight((70, 0), (150, 0)), 14.0, roadblock="beyond", predecessors=("through",)),
    }
    rings = [(k, Layer.LANE_CONNECTOR if v.is_connector else Layer.LANE, np.vstack([v.left, v.right[::-1]])) for k, v in lanes.items()]
    rings += [("before", Layer.ROADBLOCK, np.array([[0, -1.75], [50, -1.75], [50, 5.25], [0, 5.25]]))]
    rings += [("beyond", Layer.ROADBLOCK, np.array([[70, -1.75], [150, -1.75], [150, 1.75], [70, 1.75]]))]
    rings += [("crossing", Layer.INTERSECTION, np.array([[50, -4.0], [70, -4.0], [70, 8.0], [50, 8.0]]))]
    return RoadMap("street", lanes, Polygons.from_rings(rings))


@pytest.fixture(scope="module")
def index():
    return LaneIndex(street())


def points(x, y=0.0):
    x = np.asarray(x, float)
    return np.column_stack([x, np.broadcast_to(y, x.shape)])


def corners_at(poses):
    """Boxes of rear axles (T, 3)."""
    return box_corners(np.asarray(poses, float), PACIFICA.length, PACIFICA.width, PACIFICA.rear_to_center)


def names(route):
    return [",".join(part) for part in route]


def test_a_route_follows_lanes_and_settles_connectors_by_where_it_ends(index):
    route = driven_route(index, points(np.arange(40.5, 80.0, 3.0)))
    assert names(route)[:4] == ["right"] * 4 and set(names(route)[4:10]) == {"through"} and names(route)[10:] == ["after"] * 4
    assert simplified(route) == [["right"], ["through"], ["after"]]
    both = driven_route(index, points([45.0, 52.0, 55.0]))  # not yet told: the history ends inside
    assert names(both) == ["right", "through,swerve", "through,swerve"]
    assert driven_route(index, points([10.0, 20.0], 30.0)) == [[], []] and simplified([[], []]) == []


def test_a_point_that_leaves_its_connector_within_the_junction_belongs_to_it_still(index):
    route = driven_route(index, np.array([[52.0, 0.0], [56.0, 0.0], [58.0, -3.0], [62.0, 0.0], [75.0, 0.0]]))
    assert names(route) == ["through"] * 4 + ["after"]
    far = driven_route(index, np.array([[52.0, 0.0], [56.0, 0.0], [58.0, 7.9]]))
    assert names(far)[-1] == ""  # 5 m and more from it


def test_corners_in_lanes_that_follow_one_another_are_in_one_lane(index):
    poses = [[20.0, 0.0, 0.0], [48.0, 0.0, 0.0], [20.0, 1.75, 0.0], [60.0, 0.0, 0.0], [20.0, 40.0, 0.0], [20.0, 3.5, 0.0]]
    for pose, wanted in zip(poses, [True, True, False, True, False, True]):
        assert in_one_lane(index, corners_at([pose])).tolist() == [wanted], pose


def test_lane_changes(index):
    def poses(*y):
        return corners_at([[10.0 + 2.0 * i, value, 0.0] for i, value in enumerate(y)])

    done = lane_changes(index, poses(0.0, 0.0, 1.2, 2.0, 3.5, 3.5))
    assert [(c.start, c.stop, c.success) for c in done] == [(2, 4, True)]
    assert [c.success for c in lane_changes(index, poses(0.0, 1.2, 0.0))] == [False]  # back again
    assert [(c.stop, c.success) for c in lane_changes(index, poses(0.0, 1.2, 1.5))] == [(2, False)]  # the end comes first
    assert [c.success for c in lane_changes(index, poses(0.0, 1.2, 40.0))] == [False]  # off the road
    assert lane_changes(index, corners_at([[x, 0.0, 0.0] for x in (40.0, 46.0, 50.0, 60.0, 68.0, 80.0)])) == []


@pytest.mark.parametrize(
    ("y", "wanted"),
    [
        (0.0, 1.0),
        (-1.75 + PACIFICA.width / 2.0 - 0.29, 1.0),  # corners 0.29 m off the road are forgiven
        (-1.75 + PACIFICA.width / 2.0 - 0.31, 0.0),
        (5.25 - PACIFICA.width / 2.0 + 0.31, 0.0),
        (1.75, 1.0),  # between two lanes
    ],
)
def test_drivable_area(index, y, wanted):
    poses = np.array([[10.0, 0.0, 0.0], [12.0, y, 0.0], [14.0, 0.0, 0.0]])
    assert drivable_area_compliance(index, corners_at(poses), driven_route(index, centers(poses))) == wanted


@pytest.mark.parametrize(("back", "wanted"), [(1.9, 1.0), (2.1, 0.5), (5.9, 0.5), (6.1, 0.0)])
def test_driving_direction(index, back, wanted):
    x = np.concatenate([np.full(5, 30.0), np.linspace(30.0, 30.0 - back, 11), np.full(15, 30.0 - back)])
    progress = progress_along_lanes(index, points(x), driven_route(index, points(x)), DT)
    assert progress.min() == pytest.approx(-back) and driving_direction_compliance(progress) == wanted


def test_driving_against_slowly_is_told_by_what_a_second_brings(index):
    x = 45.0 - 1.5 * DT * np.arange(80)  # 12 m at 1.5 m/s: 1.65 m in 11 increments
    progress = progress_along_lanes(index, points(x), driven_route(index, points(x)), DT)
    assert progress.min() == pytest.approx(-1.65) and driving_direction_compliance(progress) == 1.0
    off = progress_along_lanes(index, points(x, 40.0), driven_route(index, points(x, 40.0)), DT)
    assert not off.any()


def test_entering_a_lane_counts_no_progress_for_two_steps(index):
    x = 48.0 + 1.0 * np.arange(6)
    made = progress_along_lanes(index, points(x), [["right"], ["right"], ["through"], ["through"], ["through"], ["through"]], 100.0)
    np.testing.assert_allclose(made, [0.0, 1.0, 0.0, 0.0, 1.0, 1.0])


def test_progress_along_the_experts_route(index):
    expert = points(np.arange(10.5, 100.0, 2.0))
    route = simplified(driven_route(index, expert))
    assert progress_along_route(index, expert, route) == pytest.approx(88.0)
    assert progress_along_route(index, points([10.0, 45.0, 90.0]), route) == pytest.approx(80.0)  # the connector is skipped between two poses
    assert progress_along_route(index, points(np.arange(10.0, 40.0), 3.5), route) == pytest.approx(29.0)  # the other lane of the roadblock
    assert progress_along_route(index, points([10.0, 20.0, 30.0], [0.0, 30.0, 0.0]), route) == pytest.approx(20.0)  # away and back


@pytest.mark.parametrize(
    ("own", "expert", "wanted"),
    [
        ([10.0, 30.0], [10.0, 50.0], 0.5),
        ([10.0, 49.0], [10.0, 30.0], 1.0),
        ([10.0, 10.5], [10.0, 11.0], 1.0),  # both count as 2 m
        ([10.0, 10.5], [10.0, 30.0], 0.1),
        ([20.0, 17.9], [20.0, 30.0], 0.0),  # more than 2 m backwards
        ([20.0, 18.1], [20.0, 30.0], 0.2),
    ],
)
def test_progress_ratio(index, own, expert, wanted):
    expert_points = points(np.linspace(*expert, 30))
    ratio = expert_progress_ratio(index, points(np.linspace(*own, 30)), expert_points)
    assert ratio == pytest.approx(wanted, abs=0.02 if wanted == 0.5 else 1e-9)
    assert expert_progress_ratio(index, points([1.0, 2.0]), points([0.0, 9.0], 60.0)) == 1.0


def test_speed_limits(index):
    speeds, steps = np.full(11, 12.0), driven_route(index, points(np.linspace(10.0, 40.0, 11)))
    np.testing.assert_allclose(overspeeds(index, speeds, steps), 2.0)
    assert speed_limit_compliance(np.full(11, 2.0)) == pytest.approx(1.0 - 2.0 * 11 / (2.23 * 10))
    assert speed_limit_compliance(np.zeros(11)) == 1.0 and speed_limit_compliance(np.full(11, 9.0)) == 0.0
    # a connector takes the highest limit about it: 14 m/s, not its own 5
    np.testing.assert_allclose(overspeeds(index, np.array([12.0, 15.0]), [["through"], ["through"]]), [0.0, 1.0])
    np.testing.assert_allclose(overspeeds(index, np.array([30.0]), [[]]), 0.0)
    lanes = street().lanes
    lanes["right"] = lane("right", straight((0, 0), (50, 0)), math.nan)
    unknown = LaneIndex(RoadMap("x", lanes, street().polygons))
    np.testing.assert_allclose(overspeeds(unknown, np.array([30.0]), [["right"]]), 0.0)


def test_the_closed_loop_score_weighs_and_multiplies():
    parts = {"nc": 1.0, "dac": 1.0, "mp": 1.0, "ddc": 0.5, "ep": 0.8, "ttc": 1.0, "sl": 0.5, "comfort": 0.0}
    assert closed_loop_score(parts) == pytest.approx(0.5 * (5 * 0.8 + 5 + 4 * 0.5) / 16)
    assert closed_loop_score({**parts, "dac": 0.0}) == 0.0
    assert closed_loop_score({**parts, "sl": math.nan}) == pytest.approx(0.5 * (5 * 0.8 + 5) / 12)


def history(speed, steps=51, y=0.0):
    states = np.zeros((steps, 11))
    states[:, 0], states[:, 1], states[:, 3] = 5.0 + speed * DT * np.arange(steps), y, speed
    return states


def test_a_steady_drive_with_the_expert_is_perfect_and_each_fault_shows(index):
    expert = history(9.0)[:, :3]
    empty = Tracks.empty(51)
    assert set(nuplan_closed_loop(index, history(9.0), empty, expert, DT).values()) == {1.0}
    slow = nuplan_closed_loop(index, history(1.0), empty, expert, DT)
    assert slow["mp"] == 0.0 and slow["ep"] == pytest.approx(5.0 / 45.0) and slow["score"] == 0.0
    fast = nuplan_closed_loop(index, history(9.0, y=-0.95), empty, expert, DT)
    assert fast["dac"] == 0.0
    car = Tracks(
        ("car",), np.array([AgentType.VEHICLE]), np.array([[4.0, 2.0, 1.5]]), np.tile([40.0, 0.0, 0.0], (1, 51, 1)), np.zeros((1, 51, 2)), np.ones((1, 51), bool)
    )
    hit = nuplan_closed_loop(index, history(9.0), car, expert, DT)
    assert hit["nc"] == hit["ttc"] == hit["score"] == 0.0
    over = nuplan_closed_loop(index, history(11.0, steps=31), Tracks.empty(31), expert, DT)  # 33 m, all in "right": 1 m/s over its 10
    assert over["sl"] == pytest.approx(1.0 - 31 / (2.23 * 30)) and over["score"] == pytest.approx((5 * over["ep"] + 5 + 4 * over["sl"] + 2) / 16)


def test_maps_without_lanes_and_bad_histories_are_refused(index):
    with pytest.raises(DataError, match="no polygon of a lane"):
        LaneIndex(RoadMap("bare", {}, Polygons.from_rings([])))
    with pytest.raises(DataError, match="finite"):
        nuplan_closed_loop(index, np.full((9, 11), np.nan), Tracks.empty(9), np.zeros((9, 3)), DT)
    with pytest.raises(DataError, match="expert poses"):
        nuplan_closed_loop(index, history(1.0), Tracks.empty(51), np.zeros((0, 3)), DT)
