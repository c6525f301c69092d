"""PDMS v1.1: every part of the score on a road whose answer is worked out by hand.

The road runs along x: the ego's lane is y in [-1.75, 1.75], to its left a second lane of the route, then an oncoming lane.
The ego drives at 10 m/s; its front is 4.049 m ahead of the rear axle, its half width 1.1485 m.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from drive.core.errors import DataError
from drive.core.roadmap import Layer, Polygons, RoadMap
from drive.core.types import AgentType, Command, EgoTrack, Scenario, Tracks
from drive.metrics.pdms import normalised_progress, score_pdms
from drive.metrics.pdms_scene import PdmScene

CAR, CONE = AgentType.VEHICLE, AgentType.TRAFFIC_CONE


def band(low, high, end=200.0):
    return np.array([[-50.0, low], [end, low], [end, high], [-50.0, high]])


ROAD = Polygons.from_rings(
    [
        ("right", Layer.LANE, band(-1.75, 1.75)),
        ("left", Layer.LANE, band(1.75, 5.25)),
        ("oncoming", Layer.LANE, band(5.25, 8.75)),
        ("road", Layer.ROADBLOCK, band(-1.75, 8.75)),
    ]
)


def agent(x, y, vx=0.0, vy=0.0, kind=CAR, size=(4.0, 2.0), heading=0.0, seen=slice(0, 51)):
    """(pose (51, 3), velocity (51, 2), valid (51,), size, kind) of an agent that keeps its speed."""
    time = 0.1 * np.arange(51)
    pose = np.column_stack([x + vx * time, y + vy * time, np.full(51, heading)])
    valid = np.zeros(51, bool)
    valid[seen] = True
    return pose, np.tile([vx, vy], (51, 1)), valid, size, kind


def scene(*agents, speed=10.0, y=0.0, polygons=ROAD):
    """The ego at (0, y) heading along x, and a reference that keeps its speed."""
    columns = [np.array([a[i] for a in agents]) for i in range(5)] if agents else None
    pose, velocity, valid, size, kind = columns or (
        np.zeros((0, 51, 3)),
        np.zeros((0, 51, 2)),
        np.zeros((0, 51), bool),
        np.zeros((0, 2)),
        [],
    )
    reference = np.array([0.0, y, 0.0]) + np.arange(51.0)[:, None] * np.array([0.1 * speed, 0.0, 0.0])
    return PdmScene(
        polygons=polygons,
        on_route=np.isin(polygons.tokens, ("right", "left")),
        centerline=np.array([[-50.0, 0.0], [200.0, 0.0]]),
        initial=np.array([0.0, y, 0.0, speed, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        agent_pose=pose,
        agent_velocity=velocity,
        agent_valid=valid,
        agent_size=size,
        agent_types=np.array(kind, np.int64),
        reference_poses=reference,
        id="road",
    )


def keep(speed=10.0, final=None):
    """(1, 40, 3) plan straight on, at one speed or changing it evenly to `final` over 4 s."""
    time = 0.1 * np.arange(1, 41)
    x = speed * time + (0.0 if final is None else (final - speed) / 8.0) * time**2
    return np.column_stack([x, np.zeros(40), np.zeros(40)])[None]


def score(situation, plan=None, against: Literal["reference", "group"] = "reference"):
    return score_pdms([situation], [keep() if plan is None else plan], 0.1, against)[0]


def test_free_road_scores_one():
    got = score(scene())
    assert (got.nc, got.dac, got.ddc, got.ttc, got.comfort, got.ep, got.score) == (1.0,) * 7
    assert got.progress_raw == pytest.approx(40.0)
    assert np.isinf(got.collision_time).all()
    assert np.isinf(got.ttc_time).all()


def test_front_collision_is_at_fault_and_zeroes_the_score():
    got = score(scene(agent(30.0, 0.0, vx=0.5)))
    assert got.nc == 0.0
    assert got.score == 0.0
    assert got.ep == 0.0
    assert got.collision_time == pytest.approx(2.6), "(28 - 4.049) m at 9.5 m/s is 2.52 s"
    assert got.ttc_time == pytest.approx(1.7), "0.9 s earlier, on the next step: 1.62 s"


def test_agent_that_runs_into_the_rear_is_its_own_fault():
    got = score(scene(agent(-15.0, 0.0, vx=8.0), speed=2.0), keep(2.0))
    assert (got.nc, got.ttc) == (1.0, 1.0)
    assert got.score == pytest.approx(1.0)


def test_standing_ego_is_never_at_fault():
    got = score(scene(agent(30.0, 0.0, vx=-10.0), speed=0.0), keep(0.0))
    assert (got.nc, got.ttc) == (1.0, 1.0)
    assert got.ep == 1.0, "a set that moves 5 m at most is not compared by progress"


def test_stopped_track_is_at_fault_also_from_the_side():
    beside = agent(20.0, 1.9, vx=0.01, size=(4.0, 2.0))
    assert score(scene(beside)).nc == 0.0


def test_class_of_a_track_comes_from_its_first_sample():
    moving = agent(1.461, 3.0, vx=10.0, vy=-1.0)
    first_stopped = (moving[0], np.where(np.arange(51)[:, None] == 0, 0.0, moving[1]), *moving[2:])
    assert score(scene(moving)).nc == 1.0
    assert score(scene(first_stopped)).nc == 0.0


def test_static_objects_cost_half_however_many():
    cone = agent(30.0, 0.3, kind=CONE, size=(0.4, 0.4))
    barrier = agent(32.0, 0.5, kind=AgentType.BARRIER, size=(0.4, 1.0))
    plans = np.concatenate([keep(), keep()])
    plans[1, :, 1] = 3.5 * np.minimum(np.arange(1, 41) / 15.0, 1.0)
    hit = score(scene(cone), plans, "group")
    np.testing.assert_array_equal(hit.nc, [0.5, 1.0])
    assert hit.ep[0] == pytest.approx(0.5 * hit.progress_raw[0] / hit.progress_raw[1]), "progress is gated by the half"
    assert hit.score[0] == pytest.approx(0.5 * (5 * hit.ep[0] + 0.0 + 2.0) / 12.0)
    assert score(scene(cone, barrier)).nc == 0.5
    assert score(scene(cone, agent(35.0, 0.0, vx=0.5))).nc == 0.0, "a car after a cone still counts in full"


def test_lateral_contact_is_at_fault_only_outside_one_lane():
    assert score(scene(agent(1.461, 3.0, vx=10.0, vy=-1.0))).nc == 1.0
    straddling = score(scene(agent(1.461, 4.75, vx=10.0, vy=-1.0), y=1.75))
    assert straddling.areas[0, :, 0].all()
    assert straddling.nc == 0.0


def test_contact_without_fault_is_forgiven_for_good():
    drifting = agent(1.461, 3.0, vx=10.0, vy=-1.0)
    drifting[0][25:, 0] += 4.0
    assert score(scene(drifting)).nc == 1.0, "touched sideways first, so its later place in front is ignored"
    only_later = (*drifting[:2], np.arange(51) >= 25, *drifting[3:])
    assert score(scene(only_later)).nc == 0.0


def test_overlap_at_the_start_counts():
    got = score(scene(agent(5.0, 0.0, vx=10.0)))
    assert (got.nc, got.collision_time) == (0.0, 0.0)


def test_touching_boxes_intersect():
    contact = 1.1485 + 1.0
    assert score(scene(agent(20.0, contact, size=(4.0, 2.0)))).nc == 0.0
    assert score(scene(agent(20.0, contact + 1e-6, size=(4.0, 2.0)))).nc == 1.0


@pytest.mark.parametrize(("y", "want"), [(-0.6, 1.0), (-0.61, 0.0)])
def test_one_corner_off_the_road_fails_the_area(y, want):
    got = score(scene(y=y))
    assert got.dac == want
    assert got.score == want


def test_a_corner_on_the_border_is_outside():
    polygons = Polygons.from_rings([("right", Layer.LANE, band(-2.0, 2.0)), ("road", Layer.ROADBLOCK, band(-1.1485, 3.0))])
    assert score(scene(polygons=polygons)).dac == 0.0


def test_lanes_alone_are_not_drivable():
    polygons = Polygons.from_rings([("right", Layer.LANE, band(-2.0, 2.0)), ("car park", Layer.CARPARK, band(-2.0, 0.0))])
    got = score(scene(polygons=polygons))
    assert got.dac == 0.0
    assert not got.areas[..., 0].any()


@pytest.mark.parametrize(("speed", "want"), [(1.5, 1.0), (5.0, 0.5), (10.0, 0.0)])
def test_oncoming_lane_is_judged_by_the_distance_in_eleven_steps(speed, want):
    got = score(scene(speed=speed, y=7.0), keep(speed))
    assert got.areas[..., 2].all()
    assert got.ddc == want
    assert got.score == pytest.approx(1.0), "reported, not part of the score"


def test_time_to_collision_fails_without_a_collision():
    got = score(scene(agent(20.0, 0.0, vx=7.0)))
    assert (got.nc, got.ttc) == (1.0, 0.0)
    assert got.ttc_time == pytest.approx(3.8), "contact at 13.951 m / 3 m/s = 4.65 s is seen 0.9 s ahead"
    assert got.score == pytest.approx(7.0 / 12.0)
    assert score(scene(agent(20.0, 0.0, vx=8.0))).ttc == 1.0


def test_time_to_collision_takes_agents_at_their_logged_pose():
    leaves = agent(20.0, 0.0, vx=7.0, seen=slice(0, 45))
    assert score(scene(leaves)).ttc == 1.0


def test_side_contact_counts_only_where_no_lane_protects():
    """At 1 m/s the projection meets the agent 2.4 m ahead of the rear axle and 2.1 m to its side: 42 degrees, not ahead."""

    def beside(y):
        return agent(1.461, y + 3.0, vx=1.0, vy=-0.3)

    box = [(ROAD.tokens[i], Layer(int(ROAD.layers[i])), ROAD.ring(i)) for i in range(4)] + [
        ("box", Layer.INTERSECTION, band(-9, 9))
    ]
    assert score(scene(beside(0.0), speed=1.0), keep(1.0)).ttc == 1.0
    assert score(scene(beside(1.75), speed=1.0, y=1.75), keep(1.0)).ttc == 0.0, "straddling two lanes"
    assert score(scene(beside(0.0), speed=1.0, polygons=Polygons.from_rings(box)), keep(1.0)).ttc == 0.0, "in an intersection"


def test_progress_is_relative_to_the_reference_and_clipped_at_one():
    slow, fast = score(scene(), keep(10.0, 6.0)), score(scene(), keep(10.0, 13.0))
    assert slow.ep == pytest.approx(slow.progress_raw / 40.0)
    assert slow.progress_raw == pytest.approx(32.0, abs=1.0)
    assert (fast.ep, fast.progress_raw > 44.0) == (1.0, True)


def test_progress_within_a_group_is_relative_to_its_best():
    plans = np.concatenate([keep(), keep(10.0, 13.0), keep(10.0, 6.0)])
    got = score(replace(scene(), reference_poses=None), plans, "group")
    np.testing.assert_allclose(got.ep, got.progress_raw / got.progress_raw[1])
    np.testing.assert_allclose(score(scene(), plans).ep[:2], 1.0)


def test_failing_reference_leaves_a_proposal_alone_in_its_set():
    blocked = scene(agent(38.0, 0.0, vx=0.5))
    assert blocked.reference_progress == 0.0
    assert score(blocked, keep(10.0, 4.0)).ep == 1.0


def test_small_progress_is_not_compared():
    np.testing.assert_array_equal(normalised_progress(np.array([4.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0]), 5.0), [1.0, 1.0, 0.0])
    np.testing.assert_allclose(normalised_progress(np.array([4.0, 6.0]), np.ones(2), 5.1), [4.0 / 5.1, 1.0])


def test_harsh_braking_costs_the_comfort_alone():
    got = score(scene(), keep(10.0, -8.0))
    assert got.comfort == 0.0
    assert not got.comfort_components[0, 0]
    assert got.score < 10.0 / 12.0


def test_scenes_keep_their_order_and_their_numbers():
    scenes = [scene(), scene(agent(30.0, 0.0, vx=0.5)), scene(y=-0.7)]
    plans = [keep(), np.concatenate([keep(), keep(10.0, 2.0)]), keep()]
    together = score_pdms(scenes, plans, 0.1)
    assert [len(part) for part in together] == [1, 2, 1]
    for situation, plan, part in zip(scenes, plans, together):
        np.testing.assert_array_equal(part.score, score(situation, plan).score)


def test_no_scene_and_no_proposal_give_nothing():
    assert score_pdms([], [], 0.1) == []
    assert len(score(scene(), np.zeros((0, 40, 3)), "group")) == 0


def test_map_without_polygons_is_off_the_road():
    assert score(scene(polygons=Polygons.from_rings([]))).dac == 0.0


@pytest.mark.parametrize("plan", [np.full((1, 40, 3), np.nan), np.zeros((40, 3)), np.zeros((1, 40, 2))])
def test_bad_proposals_name_their_scene(plan):
    with pytest.raises(DataError, match="'road'"):
        score(scene(), plan)


def test_bad_calls_say_what_to_do():
    with pytest.raises(DataError, match="no reference"):
        score(replace(scene(), reference_poses=None))
    with pytest.raises(DataError, match="one array of proposals per scene"):
        score_pdms([scene()], [], 0.1)
    with pytest.raises(DataError, match="agent_pose"):
        replace(scene(agent(30.0, 0.0)), agent_pose=np.zeros((1, 41, 3)))
    with pytest.raises(DataError, match="centreline"):
        replace(scene(), centerline=np.zeros((1, 2)))


def scenario(dt=0.1, steps=60, present=5, valid=None):
    """A drive at 10 m/s behind an agent at 12 m/s, and one beside that is seen where `valid` (S,) says."""
    time = dt * np.arange(-float(present), steps - present)
    along = np.array([1.0, 0.0, 0.0])
    ego = EgoTrack(10 * time[:, None] * along, np.tile([10.0, 0.0], (steps, 1)), np.zeros((steps, 2)), np.full(steps, 0.2))
    poses = np.stack([20 * along + 12 * time[:, None] * along, np.array([60.0, 3.0, 0.0]) + 8 * time[:, None] * along])
    velocity = np.broadcast_to(np.array([[12.0, 0.0], [8.0, 0.0]])[:, None], (2, steps, 2))
    seen = np.ones((2, steps), bool)
    if valid is not None:
        seen[1] = valid
    tracks = Tracks(("a", "b"), np.array([0, 0]), np.array([[4.0, 2.0, 1.5]] * 2), poses, velocity, seen)
    far = ("far", Layer.LANE, band(-2.0, 2.0) + 1000.0)
    rings = [(ROAD.tokens[i], Layer(int(ROAD.layers[i])), ROAD.ring(i)) for i in range(4)]
    road = RoadMap("road", {}, Polygons.from_rings([*rings, far]))

    class NoImages:
        def image(self, camera, step):
            raise AssertionError("the score reads no images")

    return Scenario(
        "s1", "embedded", "test", "log", "follow", dt, present, road, ("right",), band(0.0, 0.0)[:2],
        Command.LANEFOLLOW, ego, tracks, (), NoImages(), (0,),
    )  # fmt: skip


def test_scenario_becomes_a_scene_from_its_present_on():
    got = PdmScene.from_scenario(scenario())
    assert got.polygons.tokens == ("right", "left", "oncoming", "road"), "the map is cut to 100 m"
    assert got.on_route.tolist() == [True, False, False, False]
    np.testing.assert_array_equal(got.initial, [0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(got.agent_pose[0, [0, 50], 0], [20.0, 80.0])
    assert got.reference_poses is not None
    np.testing.assert_allclose(got.reference_poses[[0, 40], 0], [0.0, 40.0], atol=1e-9)
    assert score_pdms([got], [keep()], 0.1)[0].score == pytest.approx(1.0)


def test_agents_are_absent_beyond_the_log_and_a_short_log_has_no_reference():
    got = PdmScene.from_scenario(scenario(steps=35))
    assert got.agent_valid[0].sum() == 30
    assert got.reference_poses is None


def test_slow_clock_is_interpolated_between_first_and_last_sample():
    valid = np.zeros(16, bool)
    valid[[7, 9]] = True
    got = PdmScene.from_scenario(scenario(dt=0.5, steps=16, present=5, valid=valid))
    np.testing.assert_allclose(got.agent_pose[0, :, 0], 20.0 + 1.2 * np.arange(51), atol=1e-9)
    assert np.flatnonzero(got.agent_valid[1]).tolist() == list(range(10, 21))
    np.testing.assert_allclose(got.agent_pose[1, 15, 0], 72.0)


def test_agent_seen_once_on_a_slow_clock_stands_in_all_frames():
    valid = np.zeros(16, bool)
    valid[8] = True
    got = PdmScene.from_scenario(scenario(dt=0.5, steps=16, present=5, valid=valid))
    assert got.agent_valid[1].all()
    np.testing.assert_allclose(got.agent_pose[1, :, 0], 72.0)


def test_planner_scores_on_its_own_forecast():
    privileged = scenario().privileged()
    pose = np.stack([agent(20.0, 0.0, vx=1.0)[0], agent(60.0, 3.0, vx=8.0)[0]])
    velocity = np.stack([np.tile([1.0, 0.0], (51, 1)), np.tile([8.0, 0.0], (51, 1))])
    got = PdmScene.from_privileged(privileged, pose, velocity, np.ones((2, 51), bool))
    assert score(got, keep(), "group").nc == 0.0
    assert got.initial[9] == 0.2, "the yaw rate it has"
