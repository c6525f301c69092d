# pyright: reportOptionalMemberAccess=false
"""What is computed over whole histories and grids at once equals plain loops over steps, tracks, corners and cells, bit for bit."""

import math

import numpy as np
import pytest
import shapely
from test_metrics_nuplan_map import street

from drive.core.geometry import box_corners
from drive.core.types import AgentType, Tracks
from drive.core.vehicle import PACIFICA
from drive.metrics import nuscenes_collision
from drive.metrics.nuplan_map import (
    OFF_ROAD_TOLERANCE,
    centers,
    drivable_area_compliance,
    progress_along_lanes,
    progress_along_route,
)
from drive.metrics.nuplan_route import LaneIndex, driven_route, simplified
from drive.metrics.nuplan_safety import _contact, _ego_box, _matters, find_collisions, times_to_collision
from drive.metrics.pdms_contacts import TTC_STOPPED_SPEED, boxes_meet

T, CAR = 41, PACIFICA


@pytest.fixture(scope="module")
def index():
    return LaneIndex(street())


def drives(count):
    """States (T, 11) that wander over the street and off it, forwards and backwards."""
    rng = np.random.default_rng(5)
    for _ in range(count):
        speed = np.full(T, rng.uniform(-3.0, 15.0)) + rng.normal(0.0, 0.3, T)
        heading = np.cumsum(rng.normal(0.0, 0.02, T))
        states = np.zeros((T, 11))
        states[:, 0] = rng.uniform(5.0, 90.0) + 0.1 * np.cumsum(speed * np.cos(heading))
        states[:, 1] = rng.uniform(-2.0, 5.0) + 0.1 * np.cumsum(speed * np.sin(heading))
        states[:, 2], states[:, 3] = heading, speed
        yield states


def crowd(seed, count=40):
    """Tracks of all classes about the street; some stand, some are there for a part of the time, one has no number for its speed."""
    rng = np.random.default_rng(seed)
    start = np.column_stack(
        [rng.uniform(-10.0, 120.0, count), rng.uniform(-8.0, 12.0, count), rng.uniform(-math.pi, math.pi, count)]
    )
    speed = np.where(rng.random(count) < 0.3, 0.0, rng.uniform(0.0, 12.0, count))
    velocity = np.repeat((speed[:, None] * np.column_stack([np.cos(start[:, 2]), np.sin(start[:, 2])]))[:, None], T, axis=1)
    poses = np.repeat(start[:, None], T, axis=1)
    poses[..., :2] += 0.1 * np.arange(T)[:, None] * velocity
    velocity[0] = np.nan
    size = np.column_stack([rng.uniform(0.5, 12.0, count), rng.uniform(0.5, 2.5, count), np.ones(count)])
    return Tracks(tuple(map(str, range(count))), rng.integers(0, 6, count), size, poses, velocity, rng.random((count, T)) > 0.1)


def first_contacts(states, tracks):
    """(step, track, kind) by looking at every pair."""
    found, done = [], set()
    for step, state in enumerate(states):
        x, y, c, s = _ego_box(state, CAR)
        for a in range(len(tracks)):
            px, py, heading = tracks.poses_world[a, step]
            sides = tracks.size[a, :2] / 2.0
            if (
                tracks.valid[a, step]
                and a not in done
                and boxes_meet(px - x, py - y, c, s, CAR.length / 2, CAR.width / 2, math.cos(heading), math.sin(heading), *sides)
            ):
                done.add(a)
                found.append((step, tracks.ids[a], _contact(state, tracks, a, step, CAR)))
    return found


def times_of_all(states, tracks, collisions, outside, crossing):
    """Times to collision by looking at every pair, at every tenth of a second."""
    times = np.full(T, np.inf)
    gone = {collision.track: collision.step for collision in collisions}
    for step, state in enumerate(states):
        speed = math.hypot(state[3], state[4])
        if any(collision.at_fault and collision.step == step for collision in collisions):
            times[step] = 0.0
        elif speed > TTC_STOPPED_SPEED:
            x, y, c, s = _ego_box(state, CAR)
            for a, name in enumerate(tracks.ids):
                px, py, heading = tracks.poses_world[a, step]
                if (
                    not tracks.valid[a, step]
                    or step >= gone.get(name, T)
                    or not _matters(state, tracks.poses_world[a, step], bool(outside[step] or crossing[step]))
                ):
                    continue
                other = 0.0 if tracks.types[a] >= AgentType.TRAFFIC_CONE else np.hypot(*tracks.velocity_world[a, step])
                oc, os, sides = np.cos(heading), np.sin(heading), tracks.size[a, :2] / 2.0
                for t in (k * 0.1 for k in range(1, 30)):
                    if boxes_meet(
                        px + oc * other * t - (x + c * speed * t),
                        py + os * other * t - (y + s * speed * t),
                        c,
                        s,
                        CAR.length / 2,
                        CAR.width / 2,
                        oc,
                        os,
                        *sides,
                    ):
                        times[step] = min(times[step], t)
                        break
    return times


def test_collisions_and_times_equal_a_look_at_every_pair():
    met = near = 0
    for seed, states in enumerate(drives(25)):
        tracks, rng = crowd(seed), np.random.default_rng(seed)
        outside, crossing = rng.random(T) > 0.5, rng.random(T) > 0.7
        found = find_collisions(states, tracks, outside)
        assert [(c.step, c.track, c.contact) for c in found] == first_contacts(states, tracks)
        times = times_to_collision(states, tracks, found, outside, crossing)
        np.testing.assert_array_equal(times, times_of_all(states, tracks, found, outside, crossing))
        met, near = met + len(found), near + int(np.isfinite(times).sum())
    assert met > 50 and near > 100  # the cases are none of nothing


def test_lanes_of_points_equal_a_look_at_every_lane(index):
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.uniform(-5.0, 160.0, 500), rng.uniform(-4.0, 8.0, 500)])
    points[:4] = [[50.0, 0.0], [10.0, 1.75], [0.0, 0.0], [70.0, 0.0]]  # on borders, which no lane holds
    wanted = [[name for name in index.polygon if shapely.contains_xy(index.polygon[name], *xy)] for xy in points]
    assert index.inside(points) == wanted and index.inside(points[:0]) == []


def test_area_and_progress_equal_loops_over_steps(index):
    expert = np.column_stack([np.arange(5.0, 140.0, 3.0), np.zeros(45)])
    expert_route = simplified(driven_route(index, expert))
    values = set()
    for states in drives(60):
        middle, corners = centers(states[:, :3]), box_corners(states[:, :3], CAR.length, CAR.width, CAR.rear_to_center)
        route = driven_route(index, middle)
        wanted = 1.0
        for box, names in zip(corners, route):
            for corner in map(shapely.Point, box):
                held = any(shape.contains(corner) for shape in (*index.polygon.values(), index.drivable))
                if not held and all(
                    area.distance(corner) >= OFF_ROAD_TOLERANCE
                    for area in (index.drivable, *(index.polygon[name] for name in names))
                ):
                    wanted = 0.0
        assert drivable_area_compliance(index, corners, route) == wanted
        np.testing.assert_array_equal(progress_along_lanes(index, middle, route, 0.1), lane_progress(index, middle, route))
        assert progress_along_route(index, middle, expert_route) == route_progress(
            index, middle, [names[0] for names in expert_route]
        )
        values.add(wanted)
    assert values == {0.0, 1.0}


def lane_progress(index, points, route):
    made, before, lane = np.zeros(len(points)), None, route[0][0] if route[0] else ""
    for i, names in enumerate(route):
        if names and names[0] != lane:
            lane, before = names[0], None
        elif names:
            s = index.baseline[lane].project(shapely.Point(points[i]))
            made[i] = s - before if before is not None and s else 0.0
            before = s
    return np.array([made[max(0, i - 10) : i + 1].sum() for i in range(len(made))])


def route_progress(index, points, names):
    lines = [index.baseline[name] for name in names]
    ends = [(shapely.Point(line.coords[0]), shapely.Point(line.coords[-1])) for line in lines]
    at, total, before = 0, 0.0, lines[0].project(shapely.Point(points[0]))
    for point in map(shapely.Point, points[1:]):
        k = next((k for k in range(at, len(names)) if index.block(names[k]).contains(point)), None)
        if k is None:
            continue
        s = lines[k].project(point)
        if k == at:
            total += s - before
        else:
            total += lines[at].length - before + s - lines[k].project(ends[at][1])
            total += sum(lines[j].project(ends[j + 1][0]) - lines[j].project(ends[j - 1][1]) for j in range(at + 1, k))
        at, before = k, s
    return total


def test_the_warp_equals_numpys():
    rng = np.random.default_rng(2)
    grids = rng.random((6, 200, 200)) > 0.6
    poses = np.column_stack([rng.uniform(-60.0, 60.0, 6), rng.uniform(-60.0, 60.0, 6), rng.uniform(-3.0, 3.0, 6)])
    middle = (np.arange(200) + 0.5) / 200 * 2.0 - 1.0
    for grid, pose, found in zip(grids, poses, nuscenes_collision._warped(grids, poses)):
        c, s = np.cos(pose[2]), np.sin(pose[2])
        row, column = (s * middle + c * middle[:, None] - pose[0] / 50.0), (c * middle - s * middle[:, None] + pose[1] / 50.0)
        row, column = (np.round(((part + 1.0) * 200 - 1.0) / 2.0).astype(int) for part in (row, column))
        inside = (row >= 0) & (row < 200) & (column >= 0) & (column < 200)
        np.testing.assert_array_equal(found, grid[np.where(inside, row, 0), np.where(inside, column, 0)] & inside)
