"""Routes on hand-made lanes of known answer, and random walks in the shipped towns."""

import numpy as np
import pytest

from drive.core.errors import DataError
from drive.core.geometry import polyline_with_heading, project, wrap_angle
from drive.core.roadmap import Lane, Polygons, RoadMap
from drive.core.seeds import numpy_rng
from drive.core.types import Command
from drive.simulators.routes import (
    COMMANDS,
    Route,
    command_at,
    nearest_index,
    route_along,
    route_window,
    sample_route,
    shortest_route,
)
from drive.simulators.towns import load_town, town_names


def straight(lane_id: str, start, end, **more) -> Lane:
    start, end = np.asarray(start, float), np.asarray(end, float)
    count = int(np.hypot(*(end - start))) + 1
    centre = polyline_with_heading(start + np.linspace(0.0, 1.0, count)[:, None] * (end - start))
    side = 1.75 * np.array([-np.sin(centre[0, 2]), np.cos(centre[0, 2])])
    return Lane(lane_id, centre, centre[:, :2] + side, centre[:, :2] - side, more.pop("speed_limit", 10.0), **more)


def arc(lane_id: str, start, radius: float, turn: float, **more) -> Lane:
    """A quarter turn: turn +1 left, -1 right, from heading 0."""
    angle = np.linspace(0.0, np.pi / 2.0, 20)
    centre = np.column_stack([start[0] + radius * np.sin(angle), start[1] + turn * radius * (1.0 - np.cos(angle)), turn * angle])
    return Lane(
        lane_id, centre, centre[:, :2], centre[:, :2], 5.0, is_connector=True, turn="left" if turn > 0 else "right", **more
    )


def town(*lanes: Lane) -> RoadMap:
    return RoadMap("hand", {v.id: v for v in lanes}, Polygons.from_rings([]))


@pytest.fixture
def crossing() -> RoadMap:
    """Lane a heads east for 100 m to a junction: left, right or straight on for 100 m each."""
    return town(
        straight("a", (0, 0), (100, 0), successors=("left", "right", "on")),
        arc("left", (100, 0), 12.0, 1.0, successors=("north",)),
        arc("right", (100, 0), 8.0, -1.0, successors=("south",)),
        straight("on", (100, 0), (120, 0), is_connector=True, turn="straight", successors=("east",)),
        straight("north", (112, 12), (112, 112)),
        straight("south", (108, -8), (108, -108)),
        straight("east", (120, 0), (220, 0), speed_limit=20.0),
    )


@pytest.fixture
def parallel() -> RoadMap:
    """Two lanes of 200 m, 3.5 m apart, each going on to its own lane of 50 m."""
    return town(
        straight("right", (0, 0), (200, 0), left_neighbor="left", successors=("r2",)),
        straight("left", (0, 3.5), (200, 3.5), right_neighbor="right", successors=("l2",)),
        straight("r2", (200, 0), (250, 0)),
        straight("l2", (200, 3.5), (250, 3.5)),
    )


def spans(route: Route) -> list[tuple[Command, float, float]]:
    """(command, first s, last s) of each run."""
    edges = np.flatnonzero(np.diff(route.command)) + 1
    return [
        (COMMANDS[route.command[p[0]]], float(route.s[p[0]]), float(route.s[p[-1]]))
        for p in np.split(np.arange(len(route)), edges)
    ]


@pytest.mark.parametrize(
    ("ids", "word", "end"),
    [
        (("a", "left", "north"), Command.LEFT, 100 + 12 * np.pi / 2),
        (("a", "right", "south"), Command.RIGHT, 100 + 8 * np.pi / 2),
        (("a", "on", "east"), Command.STRAIGHT, 120),
    ],
)
def test_turn_is_announced_40_m_before_the_connector_until_its_end(crossing, ids, word, end):
    runs = spans(route_along(crossing, ids))
    assert [r[0] for r in runs] == [Command.LANEFOLLOW, word, Command.LANEFOLLOW]
    assert runs[1][1] == pytest.approx(60.0, abs=1.5)
    assert runs[1][2] == pytest.approx(end, abs=1.5)


def test_points_know_their_lane_limit_and_connector(crossing):
    route = route_along(crossing, ("a", "on", "east"))
    assert len(route) == 221 and route.length == pytest.approx(220.0)
    np.testing.assert_allclose(route.path[:, 0], np.arange(221.0), atol=1e-9)
    assert [route.lane_id(i) for i in (0, 99, 101, 119, 121, 220)] == ["a", "a", "on", "on", "east", "east"]
    assert route.speed_limit[50] == 10.0 and route.speed_limit[200] == 20.0
    assert route.is_connector.sum() == pytest.approx(20, abs=1)


def test_nearest_junction_speaks_where_two_announcements_overlap():
    road_map = town(
        straight("a", (0, 0), (60, 0), successors=("c",)),
        straight("c", (60, 0), (80, 0), is_connector=True, turn="straight", successors=("b",)),
        straight("b", (80, 0), (100, 0), successors=("d",)),
        arc("d", (100, 0), 10.0, 1.0),
    )
    runs = spans(route_along(road_map, ("a", "c", "b", "d")))
    assert [r[0] for r in runs] == [Command.LANEFOLLOW, Command.STRAIGHT, Command.LEFT]
    assert runs[1][2] == pytest.approx(80.0, abs=1.0)


@pytest.mark.parametrize(
    ("ids", "word", "shift"),
    [(("right", "left", "l2"), Command.CHANGELANELEFT, 3.5), (("left", "right", "r2"), Command.CHANGELANERIGHT, -3.5)],
)
def test_lane_change_is_a_smooth_step_of_30_m_in_the_middle_of_the_lane(parallel, ids, word, shift):
    route = route_along(parallel, ids)
    y = route.path[:, 1] - route.path[0, 1]
    x = route.path[:, 0]
    assert np.abs(y[x < 84.9]).max() < 1e-9
    np.testing.assert_allclose(y[x > 115.1], shift, atol=1e-9)
    assert y[np.argmin(np.abs(x - 100.0))] == pytest.approx(shift / 2, abs=0.15)
    assert (np.diff(y) * np.sign(shift) >= -1e-9).all()
    step = np.diff(route.path[:, :2], axis=0)
    assert np.abs(wrap_angle(np.arctan2(step[:, 1], step[:, 0]) - route.path[:-1, 2])).max() < 0.02
    runs = spans(route)
    assert [r[0] for r in runs] == [Command.LANEFOLLOW, word, Command.LANEFOLLOW]
    assert (runs[1][1], runs[1][2]) == (pytest.approx(65.0, abs=2.0), pytest.approx(115.0, abs=2.0))
    assert route.lane_id(80) == ids[0] and route.lane_id(120) == ids[1]


def test_fork_without_turn_is_told_as_a_lane_change():
    road_map = town(
        straight("a", (0, 0), (60, 0), successors=("on", "exit")),
        straight("on", (60, 0), (110, 0), is_connector=True, turn="straight"),
        straight("exit", (60, 0), (110, -4), is_connector=True, turn="straight"),
    )
    assert COMMANDS[route_along(road_map, ("a", "on")).command[-1]] is Command.STRAIGHT
    assert COMMANDS[route_along(road_map, ("a", "exit")).command[-1]] is Command.CHANGELANERIGHT


def test_shortest_route_takes_the_short_way_and_changes_lanes_when_it_must(parallel):
    assert shortest_route(parallel, "right", "r2").lane_ids == ("right", "r2")
    assert shortest_route(parallel, "right", "l2").lane_ids == ("right", "left", "l2")
    two_ways = town(
        straight("a", (0, 0), (10, 0), successors=("long", "short")),
        straight("long", (10, 0), (110, 0), successors=("b",)),
        straight("short", (10, 0), (40, 0), successors=("b",)),
        straight("b", (110, 0), (120, 0)),
    )
    assert shortest_route(two_ways, "a", "b").lane_ids == ("a", "short", "b")
    assert shortest_route(two_ways, "a", "a").lane_ids == ("a",)


def test_impossible_routes_are_errors(parallel, crossing):
    with pytest.raises(DataError, match="cannot be reached"):
        shortest_route(parallel, "r2", "left")
    with pytest.raises(DataError, match="no lane 'x'"):
        shortest_route(parallel, "x", "left")
    with pytest.raises(DataError, match="neither follows"):
        route_along(crossing, ("a", "north"))
    with pytest.raises(DataError, match="at least one lane"):
        route_along(crossing, ())
    with pytest.raises(DataError, match="dead ends"):
        sample_route(crossing, numpy_rng(0), 100.0, "a")
    with pytest.raises(DataError, match="for ever"):
        sample_route(crossing, numpy_rng(0), 100.0)


def test_random_route_leaves_an_ending_lane_and_avoids_dead_ends():
    road_map = town(
        straight("ends", (0, 3.5), (50, 3.5), right_neighbor="goes"),
        straight("goes", (0, 0), (50, 0), left_neighbor="ends", successors=("dead", "loop")),
        straight("dead", (50, 0), (80, 0)),
        straight("loop", (50, 0), (90, 0), successors=("goes",)),
    )
    for seed in range(10):
        assert sample_route(road_map, numpy_rng(seed), 120.0, "ends").lane_ids[:3] == ("ends", "goes", "loop")


def test_command_at_and_window_follow_the_pose(crossing):
    route = route_along(crossing, ("a", "left", "north"))
    assert command_at(route, (30.0, 0.5, 0.0)) is Command.LANEFOLLOW
    assert command_at(route, (70.0, 0.5, 0.0)) is Command.LEFT
    assert command_at(route, (112.0, 60.0, np.pi / 2.0)) is Command.LANEFOLLOW
    window = route_window(route, (90.0, 0.0, 0.0), 5.0, 20.0)
    assert window.lane_ids == ("a", "left")
    assert window.path[0, 0] == pytest.approx(85.0, abs=1.0)
    assert window.length == pytest.approx(25.0, abs=1.5)
    assert set(window.lane_index) == {0, 1} and window.lane_id(0) == "a"
    assert command_at(window, (90.0, 0.0, 0.0)) is Command.LEFT
    ahead = route_window(route, (112.0, 111.0, np.pi / 2.0), 3.0, 50.0)
    assert ahead.lane_ids == ("north",) and len(ahead) >= 4


def test_hint_tells_two_passes_of_one_place_apart():
    road_map = town(straight("a", (0, 0), (100, 0), successors=("b",)), straight("b", (0, 0), (100, 0)))
    lap = route_along(road_map, ("a",))
    twice = Route(
        ("a", "b"),
        np.concatenate([lap.path, lap.path]),
        np.tile(lap.speed_limit, 2),
        np.tile(lap.command, 2),
        np.repeat(np.arange(2), len(lap)),
        np.tile(lap.is_connector, 2),
    )
    assert nearest_index(twice, (50.0, 0.0, 0.0)) == 50
    assert nearest_index(twice, (50.0, 0.0, 0.0), hint=140) == 151


@pytest.mark.parametrize("name", town_names())
def test_random_routes_in_towns_are_smooth_reproducible_and_on_their_lanes(name):
    road_map = load_town(name)
    words: set[Command] = set()
    for seed in range(12):
        route = sample_route(road_map, numpy_rng(seed, "route"), 400.0)
        np.testing.assert_array_equal(route.path, sample_route(road_map, numpy_rng(seed, "route"), 400.0).path)
        assert route.length == pytest.approx(400.0, abs=2.0)
        step = np.hypot(*np.diff(route.path[:, :2], axis=0).T)
        assert step.min() > 0.9 and step.max() < 1.1
        assert np.abs(wrap_angle(np.diff(route.path[:, 2]))).max() < 0.16
        for i in range(0, len(route), 25):
            assert abs(project(road_map.lanes[route.lane_id(i)].centerline, route.path[i, :2])[1]) < 1.9
        words |= {COMMANDS[c] for c in np.unique(route.command)}
    wanted = {Command.CHANGELANELEFT, Command.CHANGELANERIGHT} if name == "highway_a" else {Command.LEFT, Command.RIGHT}
    assert wanted <= words
