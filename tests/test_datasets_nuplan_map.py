"""nuPlan maps: GeoPackages of known content, in metres and in degrees, with holes, far features, and damage."""

import json
import shutil
import struct

import numpy as np
import pytest
import shapely
from nuplan_files import CITY, edit, geometry, map_rows, write_map

from drive.core.errors import DataError
from drive.core.geometry import polyline_with_heading
from drive.core.roadmap import Lane, Layer, Polygons, RoadMap
from drive.datasets.nuplan_gpkg import decode
from drive.datasets.nuplan_map import inspect, map_file, read_road_map, route_lanes

ORIGIN = np.array([585000.0, 4477000.0])  # Pittsburgh, UTM zone 17 north
DRIVE = np.column_stack([np.linspace(0.0, 60.0, 50), np.zeros(50), np.zeros(50)])
WORLD = DRIVE + [*ORIGIN, 0.0]


def lane(key, points, connector=False, **fields):
    points = np.asarray(points, float)
    line = polyline_with_heading(points)
    side = 1.75 * np.column_stack([-np.sin(line[:, 2]), np.cos(line[:, 2])])
    return Lane(key, line, points + side, points - side, fields.pop("speed_limit", 11.0), connector, **fields)


def road():
    """Two lanes side by side, a left turn and a way straight on, a block inside of an intersection that is no road, a lane 2 km away."""
    bend = [(50 + 15 * np.sin(a), 15 - 15 * np.cos(a)) for a in np.linspace(0, np.pi / 2, 20)]
    lanes = [
        lane("1", [(-60, 0), (50, 0)], roadblock="11", successors=("2", "3"), left_neighbor="6"),
        lane("6", [(-60, 3.5), (50, 3.5)], roadblock="11", right_neighbor="1"),
        lane("7", [(-60, 7.0), (50, 7.0)], roadblock="11"),  # no change to or from it
        lane("2", bend, True, turn="left", roadblock="12", junction="21", predecessors=("1",), successors=("4",)),
        lane("3", [(50, 0), (80, 0)], True, turn="straight", roadblock="13", junction="22", predecessors=("1",), successors=("5",)),
        lane("4", [(65, 15), (65, 80)], roadblock="14", predecessors=("2",)),
        lane("5", [(80, 0), (150, 0)], roadblock="15", predecessors=("3",)),
        lane("9", [(2000, 0), (2050, 0)], roadblock="19"),
    ]
    rings = [(k.id, Layer.LANE_CONNECTOR if k.is_connector else Layer.LANE, np.concatenate([k.left, k.right[::-1]])) for k in lanes]
    rings += [("11", Layer.ROADBLOCK, np.array([(-60, -1.75), (50, -1.75), (50, 8.75), (-60, 8.75)])), ("22", Layer.INTERSECTION, np.array([(50, -5), (80, -5), (80, 5), (50, 5)], float))]
    rings.append(("21", Layer.INTERSECTION, np.array([(50, -5), (80, -5), (80, 20), (50, 20)], float)))
    return RoadMap("road", {k.id: k for k in lanes}, Polygons.from_rings(rings))


def rows():
    found = map_rows(road())
    found["generic_drivable_areas"] = [(1, shapely.box(0, -30, 60, -10).difference(shapely.box(20, -22, 40, -18)), 0), (2, shapely.box(2000, -5, 2050, 5), 0)]
    found["carpark_areas"] = [(31, shapely.box(0, 20, 20, 40), 0)]
    found["crosswalks"] = [(41, shapely.box(45, -5, 48, 5), 0)]
    return found


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    root = tmp_path_factory.mktemp("map")
    path = write_map(root / "map.gpkg", rows(), ORIGIN)
    edit(path, "UPDATE intersections SET intersection_type_fid = 5 WHERE fid = 22", "UPDATE lanes_polygons SET speed_limit_mps = NULL WHERE fid = 5")
    edit(path, "UPDATE boundaries SET boundary_type_fid = 0 WHERE fid = 10000012")  # from 6 to 7, not back
    return path


@pytest.fixture(scope="module")
def found(archive):
    return read_road_map("road", archive, WORLD, ORIGIN)


def shapes(road_map, layer):
    polygons = road_map.polygons
    return {token: shapely.union_all([shapely.Polygon(polygons.ring(i)) for i, t in enumerate(polygons.tokens) if t == token and polygons.layers[i] == layer])
            for i, token in enumerate(polygons.tokens) if polygons.layers[i] == layer}  # fmt: skip


def test_lanes_links_borders_and_limits(found):
    wanted = road()
    assert set(found.lanes) == set(wanted.lanes) - {"9"}  # 2 km away
    for key, ours in found.lanes.items():
        theirs = wanted.lanes[key]
        assert (ours.successors, ours.predecessors, ours.is_connector, ours.turn, ours.roadblock) == (
            theirs.successors, theirs.predecessors, theirs.is_connector, theirs.turn, theirs.roadblock,
        )  # fmt: skip
        line = shapely.LineString(theirs.centerline[:, :2])
        assert shapely.hausdorff_distance(shapely.LineString(ours.centerline[:, :2]), line) < 0.05
        assert len(ours.left) == len(ours.right) == len(ours.centerline)
        assert np.median(np.hypot(*(ours.left - ours.right).T)) == pytest.approx(3.5, abs=0.05)
        side = ours.left[0] - ours.centerline[0, :2]  # stored against the lane's direction or along it, left is left
        assert np.cos(ours.centerline[0, 2]) * side[1] - np.sin(ours.centerline[0, 2]) * side[0] > 1.0
    assert found.lanes["1"].speed_limit == 11.0 and found.lanes["5"].speed_limit == pytest.approx(50 / 3.6)


def test_neighbours_are_those_of_a_group_without_a_solid_line_between(found):
    assert (found.lanes["1"].left_neighbor, found.lanes["6"].right_neighbor) == ("6", "1")
    assert found.lanes["7"].right_neighbor == "" and found.lanes["1"].right_neighbor == ""
    assert found.lanes["6"].left_neighbor == "7"  # its boundary is dashed on this side alone


def test_junctions_are_intersections_but_not_plain_passages(found):
    assert found.lanes["2"].junction == "21" and found.lanes["3"].junction == ""


def test_layers_are_navsims_and_holes_stay_holes(archive, found):
    assert set(shapes(found, Layer.LANE)) == {"1", "4", "5", "6", "7"} and set(shapes(found, Layer.LANE_CONNECTOR)) == {"2", "3"}
    assert set(shapes(found, Layer.INTERSECTION)) == {"21", "22"} and set(shapes(found, Layer.ROADBLOCK)) == {"11"}
    assert shapes(found, Layer.CARPARK)["31"].equals(shapely.box(0, 20, 20, 40))
    areas = shapes(found, Layer.DRIVABLE_AREA)
    assert set(areas) == {"1"} and areas["1"].area == pytest.approx(60 * 20 - 20 * 4)
    assert not shapely.contains_xy(areas["1"], 30.0, -20.0)
    assert not shapes(read_road_map("road", archive, WORLD, ORIGIN, generic_areas=False), Layer.DRIVABLE_AREA)


def test_degrees_become_the_same_metres(tmp_path, found):
    pytest.importorskip("pyproj", reason="pyproj is not installed")
    degrees = write_map(tmp_path / "map.gpkg", rows(), ORIGIN, code=4326)
    edit(degrees, "UPDATE intersections SET intersection_type_fid = 5 WHERE fid = 22")
    other = read_road_map("road", degrees, WORLD, ORIGIN)
    assert set(other.lanes) == set(found.lanes) and other.polygons.tokens == found.polygons.tokens
    np.testing.assert_allclose(other.polygons.vertices, found.polygons.vertices, atol=1e-4)
    for key, ours in found.lanes.items():
        np.testing.assert_allclose(other.lanes[key].centerline[:, :2], ours.centerline[:, :2], atol=1e-4)


def test_degrees_without_pyproj_name_the_extra(tmp_path, monkeypatch):
    path = write_map(tmp_path / "map.gpkg", rows(), ORIGIN)
    with_code = geometry(shapely.box(-80.0, 40.4, -79.9, 40.5), 4326)
    edit(path, ("UPDATE lanes_polygons SET geom = ?", (with_code,)))
    monkeypatch.setitem(__import__("sys").modules, "pyproj", None)
    with pytest.raises(DataError, match=r"pip install 'drive-vla\[nuplan\]'"):
        read_road_map("road", path, WORLD, ORIGIN)


def test_ids_of_every_storage_class(tmp_path, archive, found):
    shutil.copy(archive, tmp_path / "map.gpkg")
    edit(tmp_path / "map.gpkg", "UPDATE lane_connectors SET exit_lane_fid = exit_lane_fid || '.0'", "UPDATE baseline_paths SET lane_fid = CAST(lane_fid AS INTEGER)")
    other = read_road_map("road", tmp_path / "map.gpkg", WORLD, ORIGIN)
    assert {k: v.predecessors for k, v in other.lanes.items()} == {k: v.predecessors for k, v in found.lanes.items()}


def test_the_route_goes_on_through_the_recorded_roadblocks(found):
    assert route_lanes(found, ["11", "12", "14"], DRIVE[:40]) == ("1", "2", "4")
    assert route_lanes(found, ["11", "13", "15"], DRIVE[:40]) == ("1", "3", "5")
    assert route_lanes(found, ["11"], DRIVE[:40]) == ("1",)
    assert route_lanes(found, ["14"], DRIVE[:40]) == route_lanes(found, [], DRIVE) == route_lanes(found, ["999"], DRIVE) == ()


def test_decode_reads_headers_of_either_byte_order_and_no_other():
    shape = shapely.box(1.0, 2.0, 3.0, 4.0)
    wkb = shapely.to_wkb(shape)
    assert decode(geometry(shape, 4326)) == (4326, (1.0, 3.0, 2.0, 4.0), wkb)
    assert decode(b"GP\0\x00" + struct.pack(">i", 32617) + wkb) == (32617, (), wkb)
    for blob in (None, "text", b"", b"GP\0", b"XX" + geometry(shape, 1)[2:], b"GP\0\x0f" + struct.pack("<i", 1) + wkb, geometry(shape, 1)[:30]):
        with pytest.raises(ValueError, match="header"):
            decode(blob)


def nan_line():
    """A line whose first x is NaN, with a sound header."""
    blob = geometry(shapely.LineString([ORIGIN, ORIGIN + 1.0]), 32617)
    return blob[:49] + struct.pack("<d", float("nan")) + blob[57:]  # 40 bytes of header, 9 before the points


LAYERS = ("lanes_polygons", "lane_connectors", "gen_lane_connectors_scaled_width_polygons", "baseline_paths", "boundaries", "intersections", "lane_groups_polygons", "generic_drivable_areas")
DAMAGE = {
    **{f"no layer {name}": (lambda p, name=name: edit(p, f"DROP TABLE {name}"), [f"lacks the table {name}"]) for name in LAYERS},
    "a layer not registered": (lambda p: edit(p, "DELETE FROM gpkg_geometry_columns WHERE table_name = 'boundaries'"), ["lacks the layer boundaries"]),
    "no list of layers": (lambda p: edit(p, "DROP TABLE gpkg_geometry_columns"), ["lacks the table gpkg_geometry_columns"]),
    "a column short": (lambda p: edit(p, "ALTER TABLE lanes_polygons DROP COLUMN lane_group_fid"), ["columns lane_group_fid"]),
    "a corrupt header": (lambda p: edit(p, ("UPDATE lanes_polygons SET geom = ? WHERE fid = 5", (b"XP" + bytes(60),))), ["lanes_polygons", "header"]),
    "a corrupt body": (lambda p: edit(p, "UPDATE lanes_polygons SET geom = substr(geom, 1, 60) WHERE fid = 5"), ["record", "of lanes_polygons"]),
    "no geometry": (lambda p: edit(p, "UPDATE intersections SET geom = NULL"), ["record 0 of intersections"]),
    "NaN in a line": (lambda p: edit(p, ("UPDATE baseline_paths SET geom = ? WHERE fid = 1", (nan_line(),))), ["baseline_paths", "NaN"]),
    "a lane without a line": (lambda p: edit(p, "DELETE FROM baseline_paths WHERE fid = 5"), ["lane 5 has no line"]),
    "a lane without a boundary": (lambda p: edit(p, "UPDATE lanes_polygons SET left_boundary_fid = NULL WHERE fid = 5"), ["boundary NULL of lane 5"]),
    "a lost boundary": (lambda p: edit(p, "DELETE FROM boundaries WHERE fid = 10000011"), ["boundary 10000011 of lane 5"]),
    "an unknown connector": (lambda p: edit(p, "DELETE FROM lane_connectors WHERE fid = 2"), ["connector 2 is not in lane_connectors"]),
    "an id for two": (lambda p: edit(p, "UPDATE gen_lane_connectors_scaled_width_polygons SET lane_connector_fid = 5", "UPDATE lane_connectors SET fid = 5 WHERE fid = 2"), ["connector 5 stands for a lane"]),
    "no projection": (lambda p: edit(p, "DELETE FROM meta WHERE key = 'projectedCoordSystem'"), ["projectedCoordSystem"]),
    "another projection": (lambda p: edit(p, "UPDATE meta SET value = 'epsg:32611'"), ["EPSG:32617 are not read"]),
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:30000]), ["cannot be read"]),
    "another file": (lambda p: p.write_bytes(b"GIF89a"), ["no SQLite file"]),
    "not there": (lambda p: p.unlink(), ["cannot be read"]),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE.values(), ids=DAMAGE)
def test_a_map_at_fault_is_told_with_file_and_record(archive, tmp_path, case):
    damage, words = case
    path = tmp_path / "map.gpkg"
    shutil.copy(archive, path)
    damage(path)
    with pytest.raises(DataError) as caught:
        read_road_map("road", path, WORLD, ORIGIN)
    assert "map.gpkg" in str(caught.value) and all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def test_far_records_are_not_decoded(archive, tmp_path):
    path = tmp_path / "map.gpkg"
    shutil.copy(archive, path)
    far = geometry(shapely.box(*ORIGIN + 2000.0, *ORIGIN + 2050.0), 32617)[:40] + b"no WKB at all"
    edit(path, ("UPDATE lanes_polygons SET geom = ? WHERE fid = 9", (far,)))
    assert "9" not in read_road_map("road", path, WORLD, ORIGIN).lanes


def test_the_file_of_a_city(tmp_path):
    with pytest.raises(DataError, match="holds 0 files"):
        map_file(tmp_path, CITY)
    for version in ("9.17.1937", "9.17.2000"):
        (tmp_path / CITY / version).mkdir(parents=True)
        (tmp_path / CITY / version / "map.gpkg").touch()
    with pytest.raises(DataError, match="holds 2 files"):
        map_file(tmp_path, CITY)
    index = tmp_path / "nuplan-maps-v1.0.json"
    index.write_text(json.dumps({CITY: {"version": "9.17.1937"}}))
    assert map_file(tmp_path, f"{CITY}.gpkg") == tmp_path / CITY / "9.17.1937" / "map.gpkg"
    index.write_text("{}")
    with pytest.raises(DataError, match="does not tell the version"):
        map_file(tmp_path, CITY)


def test_inspect_counts_layers(archive, tmp_path):
    found = inspect(archive)
    assert found.kind == "nuPlan map" and found.counts["projection"] == "epsg:32617"
    assert (found.counts["lanes polygons"], found.counts["lane connectors"], found.counts["boundaries"], found.counts["carpark areas"]) == (6, 2, 16, 1)
    edit(tmp_path / "other.gpkg", "CREATE TABLE x (y INTEGER)")
    with pytest.raises(DataError, match="no GeoPackage"):
        inspect(tmp_path / "other.gpkg")
