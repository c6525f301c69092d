"""Towns of the CARLA server: signals, heights, speed limits and spawn points of any OpenDRIVE, and how broken files are refused."""

import gzip
import math
import sys
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import shapely

from drive.core.errors import DataError
from drive.core.geometry import box_corners
from drive.simulators.towns import TOWNS, town_names

pytest.importorskip("carla")
pytest.importorskip("msgpack")

from drive.simulators.carla_server.lane_grid import LaneGrid
from drive.simulators.carla_server.layouts import ServerError
from drive.simulators.carla_server.town import Atlas, Town, py123d_maps

REAL = Path(__file__).resolve().parents[2] / "shared/data/real/autonomousvision__py123d/src/py123d/parser/opendrive/carla_maps"
SPEED = '<type s="0" type="town"><speed max="50" unit="km/h"/></type>'
MISSING = '<signalReference id="88" s="3" t="0" orientation="+"><validity fromLane="1" toLane="1"/></signalReference>'
CARLA_SPAWNS = {"Town01": 255, "Town02": 101, "Town03": 265, "Town07": 116, "Town10HD": 155}  # as the simulator has them
cached_atlas = cache(Atlas)


def road(number=1, x=0.0, y=0.0, heading=0.0, length=100.0, height="0 0 0 0", signals="", width=3.5) -> str:
    """A straight road with one lane each way."""
    a, b, c, d = height.split()
    lane = '<lane id="{}" type="driving"><width sOffset="0" a="{}" b="0" c="0" d="0"/></lane>'
    return f"""<road id="{number}" length="{length}" junction="-1" name="">{SPEED}
    <planView><geometry s="0" x="{x}" y="{y}" hdg="{heading}" length="{length}"><line/></geometry></planView>
    <elevationProfile><elevation s="0" a="{a}" b="{b}" c="{c}" d="{d}"/></elevationProfile>
    <lanes><laneSection s="0"><left>{lane.format(1, width)}</left><center><lane id="0" type="none"/></center>
    <right>{lane.format(-1, width)}</right></laneSection></lanes><signals>{signals}</signals></road>"""


def signal(kind, s, lane=-1, number=7, t=-5.0, value=-1.0, orientation="-", validity=True) -> str:
    inner = f'<validity fromLane="{lane}" toLane="{lane}"/>' if validity else ""
    return f"""<signal name="x" id="{number}" s="{s}" t="{t}" zOffset="2" hOffset="0" roll="0" pitch="0" orientation="{orientation}"
    dynamic="no" country="OpenDRIVE" type="{kind}" subtype="-1" value="{value}" text="" height="1" width="1">{inner}</signal>"""


def opendrive(*roads: str, rest: str = "") -> str:
    return f'<?xml version="1.0"?><OpenDRIVE><header revMajor="1" revMinor="4"/>{"".join(roads)}{rest}</OpenDRIVE>'


def test_box_and_stop_of_a_sign_stand_on_the_lane_that_it_rules():
    town = Town("t", opendrive(road(signals=signal("206", 60.0))))
    (sign,) = town.signals.signs
    assert (sign.type_id, sign.id, sign.lanes) == ("traffic.stop", "7", (("1_0_-1", 60.0),))
    np.testing.assert_allclose(sign.pose, [60.0, 5.0, 2.0, 0.0, 90.0, 0.0], atol=1e-3)
    np.testing.assert_allclose(sign.stops, [[60.0, 1.75, 0.0, 0.0]], atol=1e-3)
    np.testing.assert_allclose(sign.boxes, [[57.0, 1.75, 0.0, 0.0, 1.5, 0.875]], atol=1e-3)
    centre, extent, turn = sign.trigger()  # x of the actor points along y of the world, y against x
    np.testing.assert_allclose(centre, (-3.25, 3.0, -2.0), atol=1e-3)
    np.testing.assert_allclose(extent, (0.875, 1.5, 1.0), atol=1e-3)
    assert abs(turn) < 1e-3


def test_oncoming_lane_is_ruled_from_its_own_side():
    town = Town("t", opendrive(road(signals=signal("205", 60.0, lane=1, t=5.0, orientation="+"))))
    (sign,) = town.signals.signs
    assert sign.type_id == "traffic.yield"
    np.testing.assert_allclose(sign.boxes[0, :3], [63.0, -1.75, 0.0], atol=1e-3)
    assert abs(abs(sign.boxes[0, 3]) - math.pi) < 1e-6


def test_box_before_a_sign_at_the_beginning_of_a_road_stays_on_it():
    town = Town("t", opendrive(road(signals=signal("206", 1.0))))
    np.testing.assert_allclose(town.signals.signs[0].boxes[0, 0], 0.0, atol=1e-3)


def test_controllers_group_the_lights_of_a_junction_and_the_rest_are_alone():
    roads = road(signals="".join(signal("1000001", 50.0 + k, number=k) for k in range(1, 6)))
    controllers = "".join(
        f'<controller id="{k}" name="" sequence="0">{"".join(f"<control signalId={chr(34)}{s}{chr(34)} type={chr(34)}{chr(34)}/>" for s in ids)}</controller>'
        for k, ids in ((31, (4, 4)), (32, (1, 2)), (33, ()))
    )
    junction = '<junction id="9" name=""><controller id="31" sequence="2"/><controller id="32" sequence="1"/><controller id="33"/></junction>'
    signals = Town("t", opendrive(roads, rest=controllers + junction)).signals
    assert [light.id for light in signals.lights] == ["1", "2", "3", "4", "5"]
    assert signals.groups == (((0, 1), (3,)), ((2,),), ((4,),))


def test_unknown_signals_are_counted():
    text = opendrive(road(signals=signal("999", 50.0) + signal("roadMark", 60.0, number=8) + signal("999", 70.0, number=9)))
    signals = Town("t", text).signals
    assert signals.skipped == {"999": 2, "roadMark": 1} and not signals.signs and not signals.lights


def test_a_speed_sign_holds_behind_it_on_its_own_side():
    town = Town("t", opendrive(road(signals=signal("274", 40.0, value=30.0))))
    assert town.signals.signs[0].type_id == "traffic.speed_limit.30"
    limits = town.speed_limit(np.array([10.0, 38.0, 42.0, 90.0, 90.0]), np.array([1.75, 1.75, 1.75, 1.75, -1.75]))
    np.testing.assert_allclose(limits, [50.0, 50.0, 30.0, 30.0, 50.0])


def test_flat_towns_are_exactly_flat_and_hills_have_the_height_of_their_road():
    x, y = np.linspace(-20.0, 120.0, 57), np.full(57, 1.75)
    assert not Town("t", opendrive(road())).ground(x, y).any()
    hill = Town("t", opendrive(road(height="2 0.1 -0.0005 0")))
    inside = (x > 1.0) & (x < 99.0)
    np.testing.assert_allclose(hill.ground(x, y)[inside], (2 + 0.1 * x - 0.0005 * x**2)[inside], atol=0.01)
    np.testing.assert_allclose(hill.ground(x, y + 60.0)[inside], (2 + 0.1 * x - 0.0005 * x**2)[inside], atol=0.06)
    spawn = hill.spawn_points
    np.testing.assert_allclose(spawn[:, 2], hill.ground(spawn[:, 0], spawn[:, 1]) + 0.3, atol=0.06)


def test_a_bridge_is_above_the_road_below_it():
    below, above = road(), road(2, 50.0, -50.0, math.pi / 2.0, height="6 0 0 0")
    town = Town("t", opendrive(below, above))
    x, y = np.full(3, 50.0), np.full(3, 0.5)
    np.testing.assert_allclose(town.ground(x, y, np.array([0.3, 5.5, 9.0])), [0.0, 6.0, 6.0], atol=1e-3)
    heights = {round(float(p[2]), 1) for p in town.spawn_points}
    assert heights == {0.3, 6.3}


def test_the_nearest_point_is_the_one_of_a_full_search():
    rng = np.random.default_rng(3)
    points = np.column_stack([rng.uniform(0, 50, (400, 2)), rng.uniform(0, 9, 400), rng.uniform(-3, 3, 400), np.zeros((400, 2))])
    grid = LaneGrid(points, np.zeros(400, np.int64))
    place = rng.uniform(2, 48, (300, 3)) * (1.0, 1.0, 0.0)
    away = np.hypot(place[:, None, 0] - points[None, :, 0], place[:, None, 1] - points[None, :, 1])
    assert away.min(1).max() < 4.0  # as far as the cells around a place reach for certain
    assert (grid.nearest(place[:, 0], place[:, 1]) == away.argmin(1)).all()
    assert grid.nearest(np.array([1e4, np.nan]), np.array([1e4, 0.0])).min() >= 0


@pytest.mark.parametrize("name", town_names())
def test_spawn_points_of_the_towns_are_apart_and_outside_junctions(name):
    town = cached_atlas().town(name)
    points = town.spawn_points
    assert len(points) > 100
    poses = np.column_stack([points[:, 0], -points[:, 1], -np.radians(points[:, 4])])
    cars = np.asarray(shapely.polygons(box_corners(poses, 4.9, 2.0, 0.0)))
    first, second = shapely.STRtree(list(cars)).query(cars, predicate="intersects")
    assert (first == second).all()
    junctions = [lane for lane in town.road_map.lanes.values() if lane.is_connector]
    lines = shapely.union_all([shapely.LineString(lane.centerline[:, :2]) for lane in junctions])
    assert shapely.distance(shapely.points(poses[:, :2]), lines).min() > 2.5


@pytest.mark.parametrize(
    ("name", "lights", "stops", "yields"), [("urban_a", 22, 0, 6), ("rural_a", 0, 1, 3), ("val_b", 6, 2, 4), ("test_c", 7, 2, 6)]
)
def test_the_shipped_towns_have_lights_and_signs(name, lights, stops, yields):
    town = cached_atlas().town(name)
    signals, lanes = town.signals, town.road_map.lanes
    kinds = [sign.type_id for sign in signals.signs]
    assert (len(signals.lights), kinds.count("traffic.stop"), kinds.count("traffic.yield")) == (lights, stops, yields)
    assert all(len(group) > 1 for group in signals.groups)
    for light in signals.lights:
        assert len(light.boxes) == len(light.lanes) > 0
        for key, along in light.lanes:
            assert abs(along - lanes[key].length) < 0.6 and all(lanes[k].is_connector for k in lanes[key].successors)
    ruled = {key for light in signals.lights for key, _ in light.lanes}
    junctions = {lanes[k].junction for key in ruled for k in lanes[key].successors}
    entering = {
        k for lane in lanes.values() if lane.junction in junctions for k in lane.predecessors if not lanes[k].is_connector
    }
    assert entering == ruled  # no lane enters a junction with lights without one
    for group in signals.groups:
        for controller in group:
            yaws = [signals.lights[k].pose[4] for k in controller]
            assert all(abs(math.sin(math.radians(2 * (yaw - yaws[0])))) < 0.1 for yaw in yaws)  # those that face each other
    if name == "urban_a":
        assert max(len(c) for group in signals.groups for c in group) == 2


def test_client_sees_the_landmarks_of_the_shipped_towns():
    import carla

    world = carla.Map("urban_a", (TOWNS / "urban_a.xodr").read_text())
    assert {mark.type for mark in world.get_all_landmarks()} == {"1000001", "205", "274"}
    assert len(world.get_all_landmarks_of_type("1000001")) == 22
    for mark in world.get_all_landmarks_of_type("274"):
        assert (mark.value, mark.unit) == (50.0, "km/h")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not OpenDRIVE"),
        ("/etc/hostname", "not OpenDRIVE"),
        ("<OpenDRIVE>", "failed to generate map|well-formed"),
        (opendrive(road(signals=MISSING)), "check its references"),
        (opendrive(road().replace("<line/>", "")), "check its references"),
        (opendrive(), "no driving lanes"),
        (opendrive(road().replace('"driving"', '"sidewalk"')), "no driving lanes"),
        (opendrive(road()).replace("<OpenDRIVE>", "<!DOCTYPE x><OpenDRIVE>"), "document type"),
        (opendrive(road(height="x 0 0 0")), "cannot be read"),
        (opendrive(road().replace('length="100.0"', 'length="nan"')), "cannot read"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(text, words):
    atlas = Atlas()
    with pytest.raises(ServerError, match=words) as caught:
        atlas.upload("OpenDriveMap", text)
    assert "\n" not in str(caught.value) and "OpenDriveMap" not in atlas.names()


def test_signals_with_nonsense_do_not_stop_a_town():
    odd = (
        signal("1000001", 1e9, number=1) + signal("206", 50.0, lane=5, number=2) + signal("206", 50.0, lane=-1000000000, number=3)
    )
    town = Town("t", opendrive(road(signals=odd)))
    assert [len(sign.boxes) for sign in town.signals.signs] == [0, 0]
    np.testing.assert_allclose(
        town.signals.lights[0].boxes[:, 0], 97.0, atol=1e-2
    )  # a signal beyond the road's end is at its end
    assert town.signals.signs[0].trigger() == ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.0)


def test_atlas_names_what_it_has_and_reads_folders(tmp_path):
    (tmp_path / "mine.xodr").write_text(opendrive(road()))
    (tmp_path / "packed.xodr.gz").write_bytes(gzip.compress(opendrive(road()).encode()))
    (tmp_path / "broken.xodr.gz").write_bytes(gzip.compress(opendrive(road()).encode())[:-30])
    (tmp_path / "notes.txt").write_text("x")
    atlas = Atlas(tmp_path)
    assert {"mine", "packed", "broken", *town_names()} <= set(atlas.names()) and "notes" not in atlas.names()
    assert atlas.town("/Game/Carla/Maps/mine").path == "Carla/Maps/mine"
    assert len(atlas.town("packed").road_map.lanes) == 2
    with pytest.raises(ServerError, match="broken"):
        atlas.town("broken")
    with pytest.raises(ServerError, match="Map 'atlantis' not found"):
        atlas.town("atlantis")
    with pytest.raises(DataError, match="no folder"):
        Atlas(tmp_path / "nowhere")


def test_maps_of_an_installed_py123d_are_found_without_importing_it(tmp_path, monkeypatch):
    folder = tmp_path / "py123d" / "parser" / "opendrive" / "carla_maps"
    folder.mkdir(parents=True)
    (tmp_path / "py123d" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "Town99.xodr").write_text(opendrive(road()))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert py123d_maps() == folder and "py123d" not in sys.modules
    assert "Town99" in Atlas().names()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "Town99.xodr").write_text(opendrive(road(), road(2, y=30.0)))
    assert len(Atlas(mine).town("Town99").road_map.lanes) == 4  # what the user names comes first


@pytest.mark.skipif(not REAL.is_dir(), reason="no CARLA towns")
@pytest.mark.parametrize("name", ["Town01", "Town02", "Town03", "Town07", "Town10HD"])
def test_carla_towns(name):
    import carla

    town = Atlas(REAL).town(name)
    root = ElementTree.fromstring(town.opendrive)
    known = {s.get("id") for s in root.iter("signal") if s.get("type") == "1000001"}
    lights = town.signals.lights
    assert {light.id for light in lights} == known
    assert all(len(light.boxes) for light in lights)
    assert sorted(k for group in town.signals.groups for c in group for k in c) == list(range(len(lights)))
    assert len(town.spawn_points) >= CARLA_SPAWNS[name]
    world = carla.Map(name, town.opendrive)
    for light in lights:
        for x, y, z, yaw, *_ in light.boxes:
            waypoint = world.get_waypoint(carla.Location(x, y, z))
            assert waypoint.transform.location.distance(carla.Location(x, y, z)) < 0.3 and not waypoint.is_junction
            assert math.cos(math.radians(waypoint.transform.rotation.yaw) - yaw) > 0.99
    places = [w.transform.location for w in world.generate_waypoints(7.3)]
    x, y, z = np.array([(p.x, p.y, p.z) for p in places]).T
    wrong = np.abs(town.ground(x, y, z) - z)
    assert town.grid.flat == (name in ("Town01", "Town02", "Town10HD")) and np.quantile(wrong, 0.99) < 0.05 and wrong.max() < 0.5
