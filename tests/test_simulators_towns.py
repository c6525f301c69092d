"""The shipped towns: connected, right-hand traffic, wide enough for the car, and rebuilt byte for byte."""

import sys
from functools import cache

import numpy as np
import pytest
import shapely

from drive.core.errors import DataError
from drive.core.geometry import box_corners, wrap_angle
from drive.core.roadmap import Layer, RoadMap
from drive.simulators.routes import COMMANDS, route_along
from drive.simulators.towns import TOWN_SPLITS, TOWNS, load_town, town_names

LENGTH, WIDTH, REAR_TO_CENTER = 5.18, 2.30, 1.461
town = pytest.mark.parametrize("name", town_names())
cached_town = cache(load_town)


@cache
def drivable(name: str):
    polygons = cached_town(name).polygons
    layers = (Layer.ROADBLOCK, Layer.INTERSECTION, Layer.CARPARK, Layer.DRIVABLE_AREA)
    return shapely.union_all(
        [shapely.Polygon(polygons.ring(i)) for i in np.flatnonzero(np.isin(polygons.layers, layers)).tolist()]
    )


def test_splits_share_no_town():
    assert len(town_names()) == len(set(town_names())) == sum(map(len, TOWN_SPLITS.values()))
    assert town_names("val") == ("val_b",)
    with pytest.raises(DataError, match="train, val, test"):
        town_names("dev")
    with pytest.raises(DataError, match="urban_a"):
        load_town("atlantis")


@town
def test_every_lane_goes_on_and_the_whole_town_is_one_loop(name):
    lanes = cached_town(name).lanes
    for lane in lanes.values():
        assert lane.successors and lane.predecessors
        for other in lane.successors:
            assert lane.id in lanes[other].predecessors
            assert np.hypot(*(lanes[other].centerline[0, :2] - lane.centerline[-1, :2])) < 1e-3
            assert abs(wrap_angle(lanes[other].centerline[0, 2] - lane.centerline[-1, 2])) < 1e-3

    def reached(start: str, backward: bool) -> set[str]:
        seen, todo = {start}, [start]
        while todo:
            lane = lanes[todo.pop()]
            beside = tuple(k for k in (lane.left_neighbor, lane.right_neighbor) if k)
            fresh = set((lane.predecessors if backward else lane.successors) + beside) - seen
            seen |= fresh
            todo += fresh
        return seen

    first = next(iter(lanes))
    everything = set(lanes)
    if name == "highway_a":  # its two carriageways never meet
        everything = reached(first, False)
        assert len(everything) == len(lanes) / 2
    assert reached(first, False) == reached(first, True) == everything


@town
def test_lanes_are_sane(name):
    for lane in cached_town(name).lanes.values():
        assert 5.0 < lane.speed_limit <= 25.0
        assert np.diff(lane.s).min() > 0.0 and np.diff(lane.s).max() <= 1.0
        width = np.hypot(*(lane.left - lane.right).T)
        assert width.min() > 3.2 and width.max() < 3.6
        normal = np.column_stack([-np.sin(lane.centerline[:, 2]), np.cos(lane.centerline[:, 2])])
        assert (((lane.left - lane.centerline[:, :2]) * normal).sum(1) > 1.6).all()
        step = np.diff(lane.centerline[:, :2], axis=0)
        assert np.abs(wrap_angle(np.arctan2(step[:, 1], step[:, 0]) - lane.centerline[:-1, 2])).max() < 0.08
        radius = np.diff(lane.s) / np.maximum(np.abs(wrap_angle(np.diff(lane.centerline[:, 2]))), 1e-9)
        assert radius.min() > 7.0


@town
def test_oncoming_traffic_is_on_the_left(name):
    road_map = cached_town(name)
    inner = [v for v in road_map.lanes.values() if not v.is_connector and v.id.endswith("_1")]
    for lane in inner:
        opposite = road_map.lanes[lane.id[:-1] + "-1"]
        np.testing.assert_allclose(lane.left[0], opposite.left[-1], atol=2e-3)
        assert np.hypot(*(lane.right[0] - opposite.right[-1])) > 6.0


@town
def test_car_on_a_centreline_stays_on_the_road(name):
    road_map = cached_town(name)
    area = drivable(name)
    for lane in road_map.lanes.values():
        for other in lane.successors:
            path = road_map.path((lane.id, other))
            for rear_to_center in (0.0, REAR_TO_CENTER):
                corners = box_corners(path, LENGTH, WIDTH, rear_to_center)
                corners = corners[5:-6]  # the ends of the path stick out into the lane after it
                assert shapely.contains_xy(area, corners[..., 0], corners[..., 1]).all(), (lane.id, other)


@pytest.mark.parametrize(("name", "island"), [("rural_a", (0.0, 0.0)), ("val_b", (275.0, 12.0)), ("test_c", (540.0, 150.0))])
def test_roundabouts_turn_left_round_an_island(name, island):
    road_map = cached_town(name)
    assert not drivable(name).intersects(shapely.Point(island).buffer(10.0))
    ring = [v for v in road_map.lanes.values() if v.turn == "left" and np.hypot(*(v.centerline[:, :2] - island).T).max() < 22.0]
    assert len(ring) in (3, 4)
    for lane in ring:
        toward = lane.centerline[:, :2] - island
        assert (np.cos(lane.centerline[:, 2]) * -toward[:, 1] + np.sin(lane.centerline[:, 2]) * toward[:, 0] > 0.0).all()


@town
def test_commands_tell_the_ways_of_a_fork_apart(name):
    road_map = cached_town(name)
    for lane in road_map.lanes.values():
        words = [COMMANDS[route_along(road_map, (lane.id, k)).command[-1]] for k in lane.successors]
        assert len(set(words)) == len(words), (lane.id, lane.successors, words)


@town
def test_polygons_are_simple(name):
    polygons = cached_town(name).polygons
    assert all(shapely.Polygon(polygons.ring(i)).is_valid for i in range(len(polygons)))
    drivable_pieces = polygons.subset(polygons.layers == Layer.DRIVABLE_AREA)
    assert np.diff(drivable_pieces.bounds.reshape(-1, 2, 2), axis=1).max() < 80.0
    present = set(polygons.layers.tolist())
    assert present == {Layer.LANE, Layer.LANE_CONNECTOR, Layer.ROADBLOCK, Layer.INTERSECTION, Layer.DRIVABLE_AREA}


def test_towns_load_without_the_carla_wheel(monkeypatch):
    monkeypatch.setitem(sys.modules, "carla", None)
    assert load_town("val_b").name == "val_b"


def test_towns_are_small():
    files = [*TOWNS.glob("*.xodr"), *TOWNS.glob("*.npz")]
    assert len(files) == 2 * len(town_names())
    assert sum(f.stat().st_size for f in files) < 3_000_000


def test_authoring_twice_gives_the_same_bytes_and_the_shipped_towns(tmp_path):
    pytest.importorskip("scenariogeneration")
    pytest.importorskip("carla")
    from drive.simulators.towns.author import build

    build(tmp_path)
    again = tmp_path / "again"
    again.mkdir()
    build(again, ("val_b",))
    for kind in ("xodr", "npz"):
        assert (tmp_path / f"val_b.{kind}").read_bytes() == (again / f"val_b.{kind}").read_bytes()
    for name in town_names():
        assert (tmp_path / f"{name}.xodr").read_bytes() == (TOWNS / f"{name}.xodr").read_bytes(), name
        built, shipped = (
            RoadMap.load(tmp_path / f"{name}.npz"),
            cached_town(name),
        )  # another zlib may pack the same arrays otherwise
        assert built.lanes.keys() == shipped.lanes.keys() and built.polygons.tokens == shipped.polygons.tokens
        np.testing.assert_allclose(built.polygons.vertices, shipped.polygons.vertices, atol=1e-3)


def test_builder_refuses_a_lane_that_does_not_exist():
    pytest.importorskip("scenariogeneration")
    from drive.simulators.towns.author_builder import TownBuilder

    builder = TownBuilder("t")
    first, second = builder.road([(0.0, 0.0), (50.0, 0.0)], (1, 1), 50.0), builder.road([(80.0, 0.0), (130.0, 0.0)], (1, 1), 50.0)
    with pytest.raises(DataError, match="no lane 2"):
        builder.connect(builder.junction(), first[1], 2, second[0], 1)
    with pytest.raises(DataError, match="overlap by"):
        builder.road([(0.0, 0.0), (20.0, 0.0, 50.0), (20.0, 30.0)], (1, 1), 50.0)
