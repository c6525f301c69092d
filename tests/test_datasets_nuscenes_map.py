"""nuScenes' map expansion: arcline paths by hand, a small city of the published schema, damaged ones."""

import json
import math

import numpy as np
import pytest
import shapely
from nuscenes_files import SAMPLES, VERSION, tables, write
from nuscenes_maps import HEADING, LENGTH, RADIUS, at, expansion, write_map

from drive.benchmarks.pdms import evaluate_pdms
from drive.core.errors import DataError
from drive.core.roadmap import Layer
from drive.core.types import Command
from drive.datasets.nuscenes import NuScenesDataset
from drive.datasets.nuscenes_map import REACH, arc_points, map_around
from drive.planners.pdm import PdmExpert

ONE = ("scene-0103",)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write(tmp_path_factory.mktemp("nuscenes"), tables(ONE), steady=True)
    write_map(root)
    return NuScenesDataset(root, "test", VERSION)


def test_arcs_of_known_ends():
    def end(shape, lengths, radius=10.0):
        return arc_points(None, "lane", [{"start_pose": [1.0, 2.0, 0.0], "shape": shape, "radius": radius, "segment_length": lengths}])[-1]  # type: ignore[arg-type]

    quarter = 10.0 * math.pi / 2
    np.testing.assert_allclose(end("LSR", [quarter, 0.0, 0.0]), [11.0, 12.0], atol=1e-9)
    np.testing.assert_allclose(end("RSL", [quarter, 0.0, 0.0]), [11.0, -8.0], atol=1e-9)
    np.testing.assert_allclose(end("LSR", [quarter, 5.0, 0.0]), [11.0, 17.0], atol=1e-9)
    np.testing.assert_allclose(end("LRL", [quarter, quarter, 0.0]), [21.0, 22.0], atol=1e-9)
    np.testing.assert_allclose(end("RLR", [quarter, quarter, quarter]), [31.0, -28.0 + 0.0], atol=1e-9)
    points = arc_points(None, "lane", [{"start_pose": [0.0, 0.0, 0.0], "shape": "LSL", "radius": 10.0, "segment_length": [quarter, 0.0, quarter]}])  # type: ignore[arg-type]
    np.testing.assert_allclose(np.hypot(points[:, 0], points[:, 1] - 10.0), 10.0, atol=1e-9)  # every point lies on the circle
    assert np.hypot(*np.diff(points, axis=0).T).max() <= 1.0


def test_lanes_links_neighbours_and_areas(data):
    road = data[0].road_map
    assert set(road.lanes) == {"right", "middle", "far", "turn"}  # the one without a path is left out
    right, turn = road.lanes["right"], road.lanes["turn"]
    origin = np.array(data[0].notes["origin_world"])
    np.testing.assert_allclose(right.centerline[0], [*(np.array(at(-20.0)) - origin), HEADING], atol=1e-9)
    assert right.length == pytest.approx(LENGTH, abs=1e-6) and turn.length == pytest.approx(RADIUS * math.pi / 2 + 5.0, rel=1e-3)
    assert right.successors == ("turn",) and turn.predecessors == ("right",) and turn.successors == ()  # elsewhere is no lane of this map
    assert turn.is_connector and turn.turn == "left" and not right.is_connector
    assert (right.left_neighbor, road.lanes["middle"].right_neighbor) == ("middle", "right")  # a dashed line between
    assert road.lanes["middle"].left_neighbor == road.lanes["far"].right_neighbor == ""  # a solid one
    np.testing.assert_allclose(np.hypot(*(right.left - right.right).T), 3.5, atol=1e-6)
    layers = [Layer(int(layer)) for layer in road.polygons.layers]
    area = shapely.union_all([shapely.Polygon(road.polygons.ring(i)) for i, layer in enumerate(layers) if layer is Layer.DRIVABLE_AREA])
    assert area.area == pytest.approx(180.0 * 50.0 - 10.0 * 4.0, rel=1e-6)  # the island is no road


def test_the_route_is_that_of_the_lanes_and_the_score_has_a_map(data):
    scene = data[3]
    assert scene.route_lane_ids == ("right",) and scene.command is Command.LANEFOLLOW and "map" not in scene.notes
    assert len(data) == SAMPLES and scene.notes["location"] == "boston-seaport"
    result = evaluate_pdms([scene], PdmExpert())
    assert result.coverage == 1.0 and result.mean("dac") == 1.0


def test_without_the_file_the_corridor_stays(tmp_path):
    scene = NuScenesDataset(write(tmp_path, tables(ONE)), "test", VERSION)[3]
    assert scene.notes["map"] == "corridor" and scene.route_lane_ids == ("driven",)


def test_the_cut_depends_on_where_a_drive_starts_alone(data):
    path = data.root / "maps" / "expansion" / "boston-seaport.json"
    origin = np.array(data[0].notes["origin_world"])
    start = data.logs[0].log.ego.poses_world[0, :2] + origin
    again = map_around("again", path, start, origin)
    np.testing.assert_array_equal(again.polygons.vertices, data[0].road_map.polygons.vertices)
    with pytest.raises(DataError, match="no lane within 400 m"):
        map_around("far", path, start + [3 * REACH, 0.0], origin)


def test_the_future_changes_no_byte_of_the_observation_on_a_map(tmp_path, data):
    changed = tables(ONE)
    for record in changed["ego_pose"] + changed["sample_annotation"]:
        if int(record["token"].rsplit("-", 1)[1]) > 5:
            record["translation"] = [record["translation"][0] + 0.5, record["translation"][1] - 0.4, 0.0]
            if "size" in record:
                record["size"] = [3.0, 9.0, 3.0]
    write_map(write(tmp_path, changed, steady=True))
    plain, other = data[5].observation(), NuScenesDataset(tmp_path, "test", VERSION)[5].observation()
    np.testing.assert_array_equal(plain.images, other.images)
    np.testing.assert_array_equal(plain.ego_history, other.ego_history)
    assert (plain.speed, plain.acceleration, plain.yaw_rate, plain.command) == (other.speed, other.acceleration, other.yaw_rate, other.command)


def test_the_maps_are_part_of_the_fingerprint(tmp_path):
    write(tmp_path, tables(ONE))
    before = NuScenesDataset(tmp_path, "test", VERSION).fingerprint
    write_map(tmp_path)
    assert NuScenesDataset(tmp_path, "test", VERSION).fingerprint != before


def _drop(content, layer, token):
    content[layer] = [record for record in content[layer] if record["token"] != token]


DAMAGE = {
    "no layer of lanes": (lambda m: m.pop("lane"), ["lacks the layers lane"]),
    "no arcline paths": (lambda m: m.pop("arcline_path_3"), ["lacks the layers arcline_path_3"]),
    "a polygon that is not there": (lambda m: _drop(m, "polygon", "p-right"), ["record 0 of lane", "p-right"]),
    "a node that is not there": (lambda m: _drop(m, "node", "right-1"), ["lane right", "right-1"]),
    "NaN in a node": (lambda m: m["node"][0].update(x=float("nan")), ["lane right", "NaN"]),
    "a node without a place": (lambda m: m["node"][0].pop("y"), ["node", "'y'"]),
    "a lane without a token": (lambda m: m["lane"][1].pop("token"), ["record 1 of lane"]),
    "a shape of four letters": (lambda m: m["arcline_path_3"]["turn"][0].update(shape="LSRL"), ["arcline path of turn", "LSRL"]),
    "a letter that is no bend": (lambda m: m["arcline_path_3"]["turn"][0].update(shape="LXR"), ["arcline path of turn"]),
    "a radius of 0": (lambda m: m["arcline_path_3"]["turn"][0].update(radius=0.0), ["arcline path of turn", "radius"]),
    "NaN in a length": (lambda m: m["arcline_path_3"]["turn"][0].update(segment_length=[float("nan"), 0.0, 0.0]), ["arcline path of turn"]),
    "a line that is not there": (lambda m: _drop(m, "line", "l-solid"), ["record 1 of lane_divider", "l-solid"]),
    "an area of no polygon": (lambda m: m["drivable_area"][0].pop("polygon_tokens"), ["record 0 of drivable_area"]),
}


@pytest.mark.parametrize("case", DAMAGE.values(), ids=DAMAGE)
def test_a_faulty_map_is_a_fault_of_its_scenes(tmp_path, case):
    damage, words = case
    content = expansion()
    damage(content)
    write(tmp_path, tables())
    write_map(tmp_path, content)
    with pytest.raises(DataError) as error:  # both scenes are of one city
        NuScenesDataset(tmp_path, "test", VERSION)
    assert "boston-seaport.json" in str(error.value) and all(word in str(error.value) for word in words), error.value


def test_a_torn_map_takes_the_scenes_of_its_city_alone(tmp_path):
    content = tables()
    content["log"].append({"token": "log-2", "logfile": "n001", "location": "singapore-onenorth"})
    content["scene"][1]["log_token"] = "log-2"
    path = write_map(write(tmp_path, content))
    path.write_text(json.dumps(expansion())[:4000])
    data = NuScenesDataset(tmp_path, "test", VERSION)
    assert {scene.log_id for scene in data} == {"scene-0916"} and data.expected == 2 * SAMPLES
    assert "boston-seaport.json" in data.faults[0] and "JSON" in data.faults[0]


def test_a_location_that_leads_out_of_the_folder_is_refused(tmp_path):
    content = tables(ONE)
    content["log"][0]["location"] = "../../elsewhere"
    with pytest.raises(DataError, match="is no location"):
        NuScenesDataset(write(tmp_path, content), "test", VERSION)
