"""L5Kit's semantic map: hand-made ones of known answer, damaged ones, and one that L5Kit's own messages wrote, where they are installed."""

import importlib.util
import json
from pathlib import Path

import l5kit_map_files as files
import numpy as np
import pytest
import shapely
from l5kit_files import HEADING, SPEED, arrays, at
from l5kit_files import write as write_scenes

from drive.core.errors import DataError
from drive.core.roadmap import Layer
from drive.core.types import Command, LightState
from drive.datasets.convert import convert
from drive.datasets.inspect import inspect
from drive.datasets.l5kit import L5KitReader
from drive.datasets.l5kit_map import counts, ecef_of_enu, lights, map_files, read_map, road_map
from drive.datasets.logged import LogDataset
from drive.datasets.scenarionet_map import SPEED_LIMIT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return files.write(tmp_path_factory.mktemp("l5kit_map"))


@pytest.fixture(scope="module")
def chart(folder):
    return read_map(folder)


@pytest.fixture(scope="module")
def built(chart):
    drive = np.array([[*at(s), HEADING] for s in np.arange(0.0, 60.0, 0.6)])
    return road_map("toy", chart, drive, np.array(at(0.0)))


def along(points):
    """(along, left) of points in the frame of `built`."""
    c, s = np.cos(HEADING), np.sin(HEADING)
    return np.column_stack([points[:, 0] * c + points[:, 1] * s, -points[:, 0] * s + points[:, 1] * c])


def test_what_the_map_holds(chart):
    assert counts(chart) == {
        "lanes": 7, "lanes of junctions": 2, "segments": 2, "junctions": 1, "crosswalks": 1, "parking zones": 1, "faces of lights": 2, "boundaries reversed": 1,
    }  # fmt: skip
    assert chart.faces == {"red": LightState.RED, "green": LightState.GREEN} and "bike" not in chart.lanes
    np.testing.assert_allclose(chart.crosswalks["zebra"], [at(28, -4), at(30, -4), at(30, 4), at(28, 4)], atol=0.01)


def test_lanes_lie_where_they_were_put(built):
    assert set(built.lanes) == {"near", "beside", "oncoming", "ahead", "left", "far"}  # `away` lies beyond the reach
    near = built.lanes["near"]
    np.testing.assert_allclose(along(near.centerline[[0, -1]]), [[-20, 0], [30, 0]], atol=0.011)
    np.testing.assert_allclose(near.centerline[:, 2], HEADING, atol=0.002)
    np.testing.assert_allclose(along(near.left)[:, 1], files.WIDTH / 2, atol=0.011)
    np.testing.assert_allclose(along(near.right)[:, 1], -files.WIDTH / 2, atol=0.011)
    assert np.diff(near.s).max() <= 1.001


def test_a_lane_against_its_segment_is_turned(built):
    oncoming = built.lanes["oncoming"]
    np.testing.assert_allclose(along(oncoming.centerline[[0, -1]]), [[30, 2 * files.WIDTH], [-20, 2 * files.WIDTH]], atol=0.011)
    np.testing.assert_allclose(along(oncoming.left)[:, 1], 1.5 * files.WIDTH, atol=0.011)  # the driver's left, towards the middle
    assert oncoming.speed_limit == pytest.approx(5.0) and built.lanes["near"].speed_limit == pytest.approx(files.LIMIT)


def test_links_turns_and_junctions(built):
    near, ahead, left, far, beside = (built.lanes[key] for key in ("near", "ahead", "left", "far", "beside"))
    assert near.successors == ("ahead", "left") and ahead.successors == ("far",) and left.successors == ()  # `gone` is in no map
    assert far.predecessors == ("ahead",) and ahead.predecessors == ("near",)
    assert (near.left_neighbor, near.right_neighbor, beside.right_neighbor) == ("beside", "", "near")
    assert (near.is_connector, ahead.is_connector, ahead.turn, left.turn, ahead.junction) == (False, True, "straight", "left", "cross")
    assert near.roadblock == beside.roadblock != far.roadblock and near.junction == ""
    assert ahead.speed_limit == pytest.approx(files.LIMIT) and far.speed_limit == SPEED_LIMIT  # a connector's is that of the lane before it


def test_layers(built):
    found = {layer: [built.polygons.tokens[i] for i in np.flatnonzero(built.polygons.layers == layer)] for layer in Layer}
    assert found[Layer.LANE_CONNECTOR] == ["ahead", "left"] and found[Layer.CARPARK] == ["parking"] and found[Layer.INTERSECTION] == ["cross"]
    drivable = shapely.union_all([shapely.Polygon(built.polygons.ring(i)) for i in np.flatnonzero(built.polygons.layers == Layer.DRIVABLE_AREA)])
    origin = np.array(at(0.0))
    assert all(drivable.contains(shapely.Point(np.array(at(s)) - origin)) for s in range(-15, 100, 5))
    assert not drivable.contains(shapely.Point(np.array(at(0.0, -4.0)) - origin))


def test_lights_show_the_strictest_face_that_is_lit(chart, built):
    shown = lights(chart, built.lanes, [("red",), ("green",), ("green", "red"), (), ("sign", "elsewhere")])
    assert shown.lane_ids == ("near",)
    assert shown.states.tolist() == [[LightState.RED, LightState.GREEN, LightState.RED, LightState.UNKNOWN, LightState.UNKNOWN]]


def test_scenes_stand_on_the_map(folder, tmp_path):
    write_scenes(tmp_path / "validate.zarr")
    data = LogDataset(L5KitReader(folder), tmp_path, "val")
    scene = data[3]
    assert "map" not in scene.notes and scene.route_lane_ids[:3] == ("near", "ahead", "far") and data.faults == []
    assert scene.command is Command.STRAIGHT and scene.notes["active_light_faces"] == ("red",)
    assert scene.lights is not None and scene.lights.lane_ids == ("near",) and scene.lights.states[0, scene.present] == LightState.RED
    plain = LogDataset(L5KitReader(), tmp_path, "val")
    assert plain[3].lights is None and plain.fingerprint != data.fingerprint
    np.testing.assert_array_equal(plain[3].ego.poses_world, scene.ego.poses_world)
    assert scene.ego.state(scene.present).speed == pytest.approx(SPEED)


def test_a_changed_matrix_converts_again_and_is_another_fingerprint(tmp_path):
    folder = files.write(tmp_path / "maps")
    write_scenes(tmp_path / "scenes" / "validate.zarr")

    def done():
        return convert(L5KitReader(folder), tmp_path / "scenes", tmp_path / "cache", progress=False).converted

    def scenes():
        return LogDataset(L5KitReader(folder), tmp_path / "scenes", "val")

    before, lane = scenes().fingerprint, scenes()[0].road_map.lanes["near"].centerline
    assert done() == 2 and done() == 0 and scenes().logs[0].log.files[-1].name == "semantic_map.pb"
    matrix = files.world_to_ecef()
    matrix[:3, 3] += matrix[:3, 0]  # the world's zero lies a metre to the east
    (folder / "meta.json").write_text(json.dumps({"world_to_ecef": matrix.tolist()}))
    assert done() == 2 and scenes().fingerprint != before
    assert scenes()[0].road_map.lanes["near"].centerline[0, 0] == pytest.approx(lane[0, 0] - 1.0, abs=0.01)


def test_a_map_of_another_place_is_told(folder, tmp_path):
    content = arrays(1)
    content["frames"]["ego_translation"][:, 0] += 20_000.0
    content["agents"]["centroid"][:, 0] += 20_000.0
    write_scenes(tmp_path / "validate.zarr", content)
    with pytest.raises(DataError, match=r"no lane within 150 m of validate-00000"):
        LogDataset(L5KitReader(folder), tmp_path, "val")


def test_the_older_name_of_the_matrix_and_files_beside_each_other(tmp_path, chart):
    older = files.write(tmp_path / "older", key="pose_to_ecef")
    np.testing.assert_array_equal(read_map(older).lanes["near"].left, chart.lanes["near"].left)
    (older / "semantic_map" / "semantic_map.pb").rename(older / "semantic_map.pb")
    assert map_files(older)[0] == older / "semantic_map.pb"
    found = inspect(older / "semantic_map.pb")
    assert found is not None and found.kind == "L5Kit semantic map" and found.counts["lanes"] == 7


def test_points_of_the_globe():
    """The equator, the pole, and a point whose coordinates are published: WGS 84 of 48.8566 N, 2.3522 E lies at X 4200.9, Y 172.6, Z 4780.1 km."""
    for lat, lon, wanted in ((0.0, 0.0, (6378137.0, 0, 0)), (90.0, 0.0, (0, 0, 6356752.3142)), (0.0, 90.0, (0, 6378137.0, 0))):
        np.testing.assert_allclose(ecef_of_enu(np.zeros((1, 3)), *np.radians((lat, lon)))[0], wanted, atol=1e-3)
    np.testing.assert_allclose(ecef_of_enu(np.zeros((1, 3)), *np.radians((48.8566, 2.3522)))[0] / 1e3, [4200.9, 172.6, 4780.1], atol=0.1)
    np.testing.assert_allclose(ecef_of_enu(np.array([[1.0, 2.0, 3.0]]), 0.0, 0.0)[0], [6378140.0, 1.0, 2.0], atol=1e-6)


def _cut(folder):
    path = folder / "semantic_map" / "semantic_map.pb"
    path.write_bytes(path.read_bytes()[:-9])


def _put(key, kind, body):
    def change(folder):
        files.write(folder, {**files.elements(), key: (kind, body)})

    return change


SHORT = files.lane([at(0, 1)], [at(0, -1), at(5, -1)], "road")
TORN = [(1, files.name("road")), (2, files.frame()), (3, files.deltas([at(0, 1), at(9, 1)])[:2]), (4, files.deltas([at(0, -1), at(9, -1)]))]
NOWHERE = [(1, files.name("road")), (2, files.frame(lat=123.0)), (3, files.deltas([at(0, 1), at(9, 1)])), (4, files.deltas([at(0, -1), at(9, -1)]))]
FAULTS = {
    "cut off": (_cut, "semantic_map.pb: no such message"),
    "no file": (lambda folder: (folder / "semantic_map" / "semantic_map.pb").unlink(), "lacks semantic_map/semantic_map.pb"),
    "no matrix": (lambda folder: (folder / "meta.json").unlink(), "lacks meta.json"),
    "a matrix of nonsense": (lambda folder: (folder / "meta.json").write_text('{"world_to_ecef": [[1, 2], [3, 4]]}'), r"meta.json holds no usable"),
    "a matrix that cannot be turned around": (lambda folder: (folder / "meta.json").write_text(json.dumps({"world_to_ecef": np.zeros((4, 4)).tolist()})), "meta.json"),
    "a boundary of one point": (_put("short", "lane", SHORT), "element short: a lane with a boundary of fewer than two points"),
    "a coordinate short": (_put("torn", "lane", TORN), "element torn: 2, 2, 0 differences"),
    "an origin off the globe": (_put("lost", "lane", NOWHERE), "element lost: its origin lies at 123.0"),
    "no lanes": (lambda folder: files.write(folder, {"road": ("segment", [])}), "holds no lane"),
}


@pytest.mark.parametrize("case", FAULTS.values(), ids=FAULTS)
def test_faulty_maps_are_told_by_file_and_element(tmp_path, case):
    change, words = case
    change(files.write(tmp_path))
    with pytest.raises(DataError, match=words):
        read_map(tmp_path)


def _messages():
    """L5Kit's own messages, without the rest of the package, which wants another zarr."""
    found = importlib.util.find_spec("l5kit")
    if found is None or found.origin is None:
        pytest.skip("l5kit is not installed")
    spec = importlib.util.spec_from_file_location("road_network_pb2", Path(found.origin).parent / "data/proto/road_network_pb2.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, TypeError) as error:  # its code was generated for protobuf 3
        pytest.skip(f"l5kit's messages want protobuf 3.20: {str(error).splitlines()[0]}")
    return module


def test_what_l5kits_own_messages_write_is_read_as_l5kit_places_it(tmp_path):
    """Random lanes in frames all over the town, written by road_network_pb2 and placed by pymap3d, as data/map_api.py does it."""
    messages, pymap3d = _messages(), pytest.importorskip("pymap3d", reason="pymap3d is not installed")
    rng = np.random.default_rng(3)
    folder, world = files.write(tmp_path), np.linalg.inv(files.world_to_ecef())
    fragment, wanted = messages.MapFragment(), {}
    for k in range(40):
        element = fragment.elements.add()
        element.id.id = f"lane{k}".encode()
        lane = element.element.lane
        lane.parent_segment_or_junction.id = b"j" if k % 2 else b"s"
        lane.geo_frame.origin.lat_e7, lane.geo_frame.origin.lng_e7 = (int(v) for v in (374_000_000 + rng.integers(-500_000, 500_000), -1_221_000_000 + rng.integers(-500_000, 500_000)))
        lane.access_restriction.type, lane.turn_type_in_parent_junction = 1, 4
        lane.lanes_ahead.add().id = f"lane{(k + 1) % 40}".encode()
        lane.traffic_controls.add().id = b"face"
        sides = []
        for side, boundary in ((3.0, lane.left_boundary), (0.0, lane.right_boundary)):
            points = np.cumsum(np.column_stack([rng.integers(50, 9000, 9), np.full(9, 0), rng.integers(-20, 20, 9)]), axis=0) + [0, int(side * 100), 0]
            steps = np.diff(points, axis=0, prepend=0)
            for field, column in zip(("x", "y", "z"), steps.T):
                getattr(boundary, f"vertex_deltas_{field}_cm").extend(column.tolist())
            x, y, z = (points / 100.0).T
            sides.append(np.stack(pymap3d.enu2ecef(x, y, z, lane.geo_frame.origin.lat_e7 / 1e7, lane.geo_frame.origin.lng_e7 / 1e7, 0), -1) @ world[:3, :3].T + world[:3, 3])
        wanted[f"lane{k}"] = sides
    for key, field in (("face", "signal_left_arrow_yellow_face"), ("zebra", "pedestrian_crosswalk"), ("j", "junction"), ("s", "segment")):
        element = fragment.elements.add()
        element.id.id = key.encode()
        if key in "js":
            getattr(element.element, field).SetInParent()
        else:
            getattr(element.element.traffic_control_element, field).SetInParent()
    element.element.segment.speed_limit_meters_per_second = 13.5
    for field in "xyz":
        getattr(fragment.elements[41].element.traffic_control_element, f"points_{field}_deltas_cm").extend([100, 200, -300])
    (folder / "semantic_map" / "semantic_map.pb").write_bytes(fragment.SerializeToString())
    chart = read_map(folder)
    for key, (left, right) in wanted.items():
        np.testing.assert_allclose(chart.lanes[key].left, left[:, :2], atol=1e-6)
        np.testing.assert_allclose(chart.lanes[key].right, right[:, :2], atol=1e-6)
    one = chart.lanes["lane3"]
    assert (one.parent, one.turn, one.ahead, one.controls, one.beside) == ("j", 4, ("lane4",), ("face",), ("", ""))
    assert chart.faces == {"face": LightState.YELLOW} and chart.limits["s"][0] == pytest.approx(13.5) and chart.junctions == {"j"} and list(chart.crosswalks) == ["zebra"]
