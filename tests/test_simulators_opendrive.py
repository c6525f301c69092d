"""OpenDRIVE to RoadMap: hand-made roads of known answer, and CARLA's own towns where they are at hand."""

import math
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import shapely

from drive.core.errors import DataError, DriveError
from drive.core.roadmap import Lane, Layer
from drive.simulators.map_polygons import build_polygons
from drive.simulators.opendrive import DEFAULT_SPEED, load_map, road_map_from_opendrive

CARLA_MAPS = (
    Path(__file__).resolve().parents[1].parent
    / "shared/data/real/autonomousvision__py123d/src/py123d/parser/opendrive/carla_maps"
)
MARK = '<roadMark sOffset="0" type="broken" width="0.15" laneChange="{}"/>'


def lane(number: int, kind: str = "driving", width: float = 3.5, change: str = "none", extra: str = "") -> str:
    links = f'<link><predecessor id="{number}"/><successor id="{number}"/></link>'
    shape = f'<width sOffset="0" a="{width}" b="0" c="0" d="0"/>{MARK.format(change)}{extra}'
    return f'<lane id="{number}" type="{kind}">{links}{shape}</lane>'


def road(
    number: int, geometry: str, length: float, left: str, right: str, link: str = "", speed: str = "", at=(0.0, 0.0, 0.0)
) -> str:
    x, y, heading = at
    return f"""<road id="{number}" length="{length}" junction="-1"><link>{link}</link>{speed}
    <planView><geometry s="0" x="{x}" y="{y}" hdg="{heading}" length="{length}">{geometry}</geometry></planView>
    <lanes><laneSection s="0"><left>{left}</left><center><lane id="0" type="none">{MARK.format("none")}</lane></center>
    <right>{right}</right></laneSection></lanes></road>"""


def opendrive(*roads: str) -> str:
    return '<?xml version="1.0"?><OpenDRIVE><header revMajor="1" revMinor="5" name="t"/>' + "".join(roads) + "</OpenDRIVE>"


def layer_rings(road_map, layer: Layer) -> list[shapely.Polygon]:
    polygons = road_map.polygons
    return [shapely.Polygon(polygons.ring(i)) for i in np.flatnonzero(polygons.layers == layer).tolist()]


@pytest.fixture
def wheel():
    pytest.importorskip("carla")


def test_straight_two_way_road_is_right_handed_and_right_hand_traffic(wheel):
    speed = '<type s="0" type="town"><speed max="30" unit="mph"/></type>'
    text = opendrive(road(7, "<line/>", 100.0, lane(1), lane(-1), speed=speed, at=(10.0, 20.0, math.pi / 2.0)))
    lanes = road_map_from_opendrive(text, "t").lanes
    assert set(lanes) == {"7_0_-1", "7_0_1"}
    along, against = lanes["7_0_-1"], lanes["7_0_1"]
    np.testing.assert_allclose(along.centerline[0], (11.75, 20.0, math.pi / 2.0), atol=2e-4)
    np.testing.assert_allclose(along.centerline[-1, :2], (11.75, 120.0), atol=2e-4)
    np.testing.assert_allclose(against.centerline[0, :2], (8.25, 120.0), atol=2e-4)
    np.testing.assert_allclose(against.centerline[0, 2], -math.pi / 2.0, atol=1e-5)
    np.testing.assert_allclose(along.left[0], (10.0, 20.0), atol=2e-4)
    np.testing.assert_allclose(along.right[0], (13.5, 20.0), atol=2e-4)
    np.testing.assert_allclose(against.left[0], (10.0, 120.0), atol=2e-4)
    assert along.speed_limit == pytest.approx(30 * 0.44704)
    assert np.diff(along.s).max() <= 1.0
    assert along.left_neighbor == along.right_neighbor == ""


def test_left_arc_turns_left_and_the_outer_lane_is_sampled_finely(wheel):
    text = opendrive(road(1, '<arc curvature="0.05"/>', 20.0 * math.pi / 2.0, "", lane(-1) + lane(-2)))
    outer = road_map_from_opendrive(text, "t").lanes["1_0_-2"]
    radius = np.hypot(outer.centerline[:, 0], outer.centerline[:, 1] - 20.0)
    np.testing.assert_allclose(radius, 20.0 + 1.5 * 3.5, atol=1e-3)
    assert outer.centerline[-1, 2] - outer.centerline[0, 2] == pytest.approx(math.pi / 2.0, abs=1e-3)
    assert np.diff(outer.s).max() <= 1.0


def test_neighbours_follow_the_lane_marking(wheel):
    open_mark = opendrive(road(1, "<line/>", 50.0, "", lane(-1, change="both") + lane(-2)))
    closed = opendrive(road(1, "<line/>", 50.0, "", lane(-1) + lane(-2)))
    lanes = road_map_from_opendrive(open_mark, "t").lanes
    assert (lanes["1_0_-1"].right_neighbor, lanes["1_0_-2"].left_neighbor) == ("1_0_-2", "1_0_-1")
    assert lanes["1_0_-1"].roadblock == lanes["1_0_-2"].roadblock
    assert all(not v.right_neighbor and not v.left_neighbor for v in road_map_from_opendrive(closed, "t").lanes.values())


def test_successors_run_with_the_traffic(wheel):
    first = road(1, "<line/>", 50.0, lane(1), lane(-1), '<successor elementType="road" elementId="2" contactPoint="start"/>')
    before = '<predecessor elementType="road" elementId="1" contactPoint="end"/>'
    lanes = road_map_from_opendrive(
        opendrive(first, road(2, "<line/>", 30.0, lane(1), lane(-1), before, at=(50.0, 0.0, 0.0))), "t"
    ).lanes
    assert lanes["1_0_-1"].successors == ("2_0_-1",)
    assert lanes["2_0_1"].successors == ("1_0_1",)
    assert lanes["1_0_1"].predecessors == ("2_0_1",)
    assert lanes["2_0_-1"].successors == ()


def test_speed_of_the_lane_beats_the_road_and_nonsense_gives_the_default(wheel):
    own = '<speed sOffset="0" max="20" unit="m/s"/>'
    speed = '<type s="0" type="town"><speed max="36" unit="km/h"/></type>'
    lanes = road_map_from_opendrive(opendrive(road(1, "<line/>", 50.0, lane(1), lane(-1, extra=own), speed=speed)), "t").lanes
    assert lanes["1_0_-1"].speed_limit == 20.0
    assert lanes["1_0_1"].speed_limit == pytest.approx(10.0)
    unlimited = '<type s="0" type="motorway"><speed max="no limit"/></type>'
    lanes = road_map_from_opendrive(opendrive(road(1, "<line/>", 50.0, "", lane(-1), speed=unlimited)), "t").lanes
    assert lanes["1_0_-1"].speed_limit == DEFAULT_SPEED


def test_drivable_area_has_shoulders_short_pieces_and_no_scenery(wheel):
    scenery = road(9, "<line/>", 80.0, "", lane(-1, "shoulder"), at=(0.0, 500.0, 0.0))
    road_map = road_map_from_opendrive(
        opendrive(road(1, "<line/>", 130.0, lane(1), lane(-1) + lane(-2, "shoulder", 1.0)), scenery), "t"
    )
    pieces = layer_rings(road_map, Layer.DRIVABLE_AREA)
    assert len(pieces) == 3
    assert max(p.bounds[2] - p.bounds[0] for p in pieces) < 60.2
    paved = shapely.union_all(pieces)
    assert paved.geom_type == "Polygon"  # the seams overlap
    np.testing.assert_allclose(paved.bounds, (-0.05, -4.55, 130.05, 3.55), atol=1e-3)
    blocks = layer_rings(road_map, Layer.ROADBLOCK)
    assert sorted(round(b.area) for b in blocks) == [455, 455]  # one a direction, without the shoulder


def ring_lane(lane_id: str, radius: float, start: float, end: float) -> Lane:
    angle = np.linspace(start, end, 60)
    unit = np.column_stack([np.cos(angle), np.sin(angle)])
    centre = np.column_stack([radius * unit, angle + math.pi / 2.0])
    return Lane(lane_id, centre, (radius - 1.75) * unit, (radius + 1.75) * unit, 10.0, True, "left", lane_id, "5")


def test_island_of_a_roundabout_in_one_junction_is_not_paved_but_a_small_hole_is():
    for radius, paved in ((15.0, False), (5.0, True)):
        halves = [ring_lane("a", radius, 0.0, math.pi), ring_lane("b", radius, math.pi, 2.0 * math.pi)]
        polygons = build_polygons({h.id: h for h in halves}, [])
        shapes = [shapely.Polygon(polygons.ring(i)) for i in np.flatnonzero(polygons.layers == Layer.INTERSECTION).tolist()]
        area = shapely.union_all(shapes)
        assert area.contains(shapely.Point(0.0, 0.0)) == paved
        assert all(s.is_valid for s in shapes)
        assert area.contains(shapely.Point(0.0, radius)) and area.contains(shapely.Point(0.0, -radius))


def test_broken_input_is_a_data_error(wheel, tmp_path):
    with pytest.raises(DataError, match=r"carla\.Map cannot read"):
        road_map_from_opendrive("<OpenDRIVE>", "broken")
    with pytest.raises(DataError, match="no driving lanes"):
        road_map_from_opendrive(opendrive(road(1, "<line/>", 50.0, "", lane(-1, "sidewalk"))), "walk")
    with pytest.raises(DataError, match="cannot read the OpenDRIVE file"):
        load_map(tmp_path / "absent.xodr")


def test_without_the_wheel_the_error_names_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "carla", None)
    with pytest.raises(DriveError, match=r"pip install carla==0\.9\.16"):
        road_map_from_opendrive(opendrive(), "t")


@pytest.mark.parametrize(("town", "lanes", "connectors"), [("Town01", 124, 72), ("Town03", 417, 245), ("Town10HD", 168, 82)])
def test_carla_towns_load(wheel, town, lanes, connectors):
    path = CARLA_MAPS / f"{town}.xodr.gz"
    if not path.exists():
        pytest.skip("CARLA's maps are not at hand")
    start = time.monotonic()
    road_map = load_map(path)
    assert time.monotonic() - start < 10.0
    assert road_map.name == town
    assert len(road_map.lanes) == lanes
    assert sum(v.is_connector for v in road_map.lanes.values()) == connectors
    for v in road_map.lanes.values():
        assert v.successors and v.predecessors
        assert all(k in road_map.lanes for k in (*v.successors, *v.predecessors))
        assert np.isfinite(v.centerline).all() and np.isfinite(v.left).all() and np.isfinite(v.right).all()
        assert 5.0 < v.speed_limit < 40.0
        assert v.is_connector == bool(v.turn) == bool(v.junction)
    if town == "Town03":  # the island of its big roundabout
        area = shapely.union_all(layer_rings(road_map, Layer.INTERSECTION) + layer_rings(road_map, Layer.DRIVABLE_AREA))
        assert not area.contains(shapely.Point(0.0, 0.0))
