# pyright: reportOptionalMemberAccess=false, reportArgumentType=false
"""The parts of py123d's layout: its MessagePack, and maps that other data sets make."""

import numpy as np
import pytest
import shapely

from drive.core.errors import DataError
from drive.core.roadmap import Layer
from drive.datasets import py123d_layout as layout
from drive.datasets.py123d_arrow import pack, unpack, write_table
from drive.datasets.py123d_map import numbered, read_road_map
from drive.datasets.scenarionet_map import SPEED_LIMIT

pa = pytest.importorskip("pyarrow")
NAN = float("nan")


def test_ids_of_lanes_are_numbers():
    assert numbered(["42", "7"]) == {"42": 42, "7": 7}
    assert numbered(["42", "07"]) == {"42": 0, "07": 1} and numbered(["42", str(2**31)]) == {"42": 0, str(2**31): 1} and numbered(["a", "a", "b"]) == {"a": 0, "b": 1}
    assert numbered(["9" * 5000, str(2**31 - 1)]) == {"9" * 5000: 0, str(2**31 - 1): 1}


VALUES = [None, True, False, 0, -1, -32, -33, 127, 128, 2**40, -(2**40), 1.5, NAN, "", "é" * 40, b"\x00\xff", [], [1, [2, "x"]], {"a": {b"b": None}, 3: [1.0]}]


def test_messagepack_both_ways():
    for value in VALUES:
        back = unpack(pack(value), "x")
        assert back == value or (value != value and back != back)
    array = np.arange(12.0).reshape(4, 3)
    back = unpack(pack({"line": array}), "x")["line"]
    assert back.dtype == array.dtype and back.tolist() == array.tolist()
    with pytest.raises(TypeError, match="set cannot be packed"):
        pack({1, 2})


# by the specification's tables: what other writers choose and ours does not
WIRE = [
    (b"\x93\x01\xa2hi\xc0", [1, "hi", None]), (b"\x81\xa1k\xcc\xff", {"k": 255}), (b"\xcd\x01\x00", 256), (b"\xce\x00\x01\x00\x00", 65536), (b"\xd0\x80", -128),
    (b"\xd1\xff\x00", -256), (b"\xd2\xff\xff\xff\x00", -256), (b"\xca\x3f\xc0\x00\x00", 1.5), (b"\xd9\x02ab", "ab"), (b"\xda\x00\x02ab", "ab"), (b"\xc4\x01z", b"z"),
    (b"\xc5\x00\x01z", b"z"), (b"\xdc\x00\x01\x05", [5]), (b"\xde\x00\x01\x05\x06", {5: 6}), (b"\xcf" + b"\x00" * 7 + b"\x09", 9), (b"\xe0", -32),
]  # fmt: skip


@pytest.mark.parametrize(("data", "value"), WIRE)
def test_messagepack_of_other_writers(data, value):
    assert unpack(data, "x") == value


def _nested(depth):
    return b"\x91" * depth + b"\x00"


BROKEN = [b"", b"\xc1", b"\xd4\x01\x00", b"\xa5abc", b"\xdd\xff\xff\xff\xff", b"\x01\x02", b"\xcb\x00", b"\xa1\xff", _nested(100), pack(np.arange(3.0))[:-1], b"\x81\x90\x01"]


@pytest.mark.parametrize("data", [*BROKEN, pack({b"__ndarray__": True, b"dtype": "|O8", b"shape": [1], b"data": b"\0" * 8}),
                                  pack({b"__ndarray__": True, b"dtype": "<f8", b"shape": [4], b"data": b"\0" * 8}), pack({b"__ndarray__": True})])  # fmt: skip
def test_broken_messagepack_is_one_line(data):
    with pytest.raises(DataError, match="here is no MessagePack"):
        unpack(data, "here")


def test_messagepack_cut_anywhere_is_told():
    whole = pack({"a": [1, 2.5, "text"], "line": np.arange(4.0)})
    for at in range(len(whole)):
        with pytest.raises(DataError):
            unpack(whole[:at], "x")


def _objects(path, objects):
    """A map file of (id, layer, features, shape)."""
    schema = pa.schema([("object_id", pa.int64()), ("map_layer", pa.int8()), ("features", pa.binary()), ("wkb", pa.binary())])
    columns = [[o[0] for o in objects], [o[1] for o in objects], [pack(o[2]) if isinstance(o[2], dict) else o[2] for o in objects], [shapely.to_wkb(o[3]) if o[3] is not None else None for o in objects]]
    write_table(path, schema, {}, [dict(zip(schema.names, columns))])
    return path


def _plain(begin, end, points=3, **changes):
    x = np.linspace(begin, end, points)
    line = np.column_stack([x, np.zeros((points, 2))])
    return {"lane_type": 2, "lane_group_id": None, "centerline": line, "left_boundary": line + [0, 2, 0], "right_boundary": line[[0, -1]] - [0, 2, 0], "left_lane_id": None,
            "right_lane_id": None, "predecessor_ids": [], "successor_ids": [], "speed_limit_mps": None, **changes}  # fmt: skip


def test_maps_without_groups_or_areas_are_made_whole(tmp_path):
    """As Waymo's: coarse points, boundaries of other counts, no groups, no speed limit; a bike lane, and a lane that turns behind a fork."""
    arc = np.linspace(0.0, np.pi / 2, 9)
    bend = np.column_stack([40 + 10 * np.sin(arc), 10 - 10 * np.cos(arc), np.zeros(9)])
    box = shapely.box(0, -2, 40, 2)
    path = _objects(tmp_path / "map.arrow", [
        (1, layout.LANE, _plain(0, 40, successor_ids=[2, 3]), box), (2, layout.LANE, _plain(40, 80, predecessor_ids=[1]), shapely.box(40, -2, 80, 2)),
        (3, layout.LANE, _plain(0, 1, centerline=bend, left_boundary=bend - [1, 0, 0], right_boundary=bend + [1, 0, 0], predecessor_ids=[1], successor_ids=[77]), shapely.LineString(bend).buffer(1)),
        (4, layout.LANE, _plain(0, 40, lane_type=layout.BIKE_LANE), box), (5, layout.CROSSWALK, {}, box),
    ])  # fmt: skip
    found = read_road_map("x", path, np.zeros(2))
    assert list(found.lanes) == ["1", "2", "3"] and [found.lanes[k].is_connector for k in "123"] == [False, False, True] and found.lanes["3"].turn == "left"
    assert found.lanes["1"].centerline.shape == (41, 3) and found.lanes["1"].right.shape == (41, 2) and found.lanes["3"].successors == ()
    assert {Layer.LANE, Layer.LANE_CONNECTOR, Layer.ROADBLOCK, Layer.DRIVABLE_AREA} == {Layer(int(k)) for k in found.polygons.layers}
    holed = shapely.box(-10, -10, 90, 10).difference(shapely.box(10, 4, 20, 8))
    path = _objects(tmp_path / "holed.arrow", [(1, layout.LANE, _plain(0, 40, lane_group_id=1), box), (1, layout.LANE_GROUP, {"intersection_id": None}, box), (1, layout.GENERIC_DRIVABLE, {}, holed)])
    rings = read_road_map("x", path, np.zeros(2)).polygons
    area = shapely.union_all([shapely.Polygon(rings.ring(i)) for i in np.flatnonzero(rings.layers == Layer.DRIVABLE_AREA)])
    assert area.area == pytest.approx(holed.area) and not area.contains(shapely.Point(15, 6))


MAP_FAULTS = {
    "no geometry": ((1, layout.LANE, _plain(0, 9), None), "object 1 of layer 0 has no geometry"),
    "NaN in a polygon": ((1, layout.LANE, _plain(0, 9), shapely.Polygon([(0, 0), (NAN, 1), (1, 1)])), "object 1 of layer 0 has no geometry, or NaN"),
    "NaN in a line": ((1, layout.LANE, _plain(0, NAN), shapely.box(0, 0, 1, 1)), "object 1 of layer 0: a line of the lane has NaN"),
    "a lane without a line": ((1, layout.LANE, {"lane_group_id": None}, shapely.box(0, 0, 1, 1)), "lacks something"),
    "a line that is text": ((1, layout.LANE, _plain(0, 9, centerline="here"), shapely.box(0, 0, 1, 1)), "lacks something"),
    "a link to nowhere": ((1, layout.LANE, _plain(0, 9, successor_ids=[float("inf")]), shapely.box(0, 0, 1, 1)), "object 1 of layer 0: a lane lacks something"),
    "a lane to the stars": ((1, layout.LANE, _plain(0, 1e300), shapely.box(0, 0, 1, 1)), "object 1 of layer 0: a line of the lane is longer than 100 km"),
    "features that are none": ((1, layout.LANE, b"\xc1", shapely.box(0, 0, 1, 1)), "object 1 of layer 0 is no MessagePack"),
    "features that are a number": ((1, layout.LANE, b"\x05", shapely.box(0, 0, 1, 1)), "has no features"),
}


@pytest.mark.parametrize("case", MAP_FAULTS.values(), ids=MAP_FAULTS)
def test_faulty_objects_of_a_map_are_told(tmp_path, case):
    record, words = case
    with pytest.raises(DataError, match=words):
        read_road_map("x", _objects(tmp_path / "map.arrow", [record]), np.zeros(2))


@pytest.mark.parametrize(("recorded", "read"), [(8.0, 8.0), (float("inf"), SPEED_LIMIT), (NAN, SPEED_LIMIT), (-3.0, SPEED_LIMIT), (None, SPEED_LIMIT)])
def test_speed_limits_that_are_none_are_not_taken(tmp_path, recorded, read):
    path = _objects(tmp_path / "map.arrow", [(1, layout.LANE, _plain(0, 9, speed_limit_mps=recorded), shapely.box(0, -2, 9, 2))])
    assert read_road_map("x", path, np.zeros(2)).lanes["1"].speed_limit == read
