"""Route files of CARLA's benchmarks: hand-made ones, broken ones, hostile ones, and the published ones where they are at hand."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from drive.core.errors import DataError
from drive.simulators.carla_routes import read_routes, read_weathers

REAL = Path(__file__).resolve().parents[1].parent / "shared/data/real"
BENCH2DRIVE = "Thinklab-SJTU__Bench2Drive/leaderboard/data"
NEW = """<routes><route id="7" town="Town05"><weathers><weather route_percentage="100" wetness="3"/><weather route_percentage="0" wetness="1"/>
</weathers><waypoints><position x="1" y="-2" z="0.5"/><position x="3" y="-2" z="0.5"/></waypoints><scenarios>
<scenario name="Exit_1" type="ParkingExit"><trigger_point x="1" y="-2" z="0.5" yaw="90"/><direction value="right"/>
<frequency from="10" to="20"/></scenario></scenarios></route>
<route id="8" town="Town06"><waypoints><position x="1" y="1" z="0"/><position x="2" y="1" z="0"/></waypoints><scenarios/></route></routes>"""
OLD = """<routes><route id="0" town="Town01"><weather id="ClearNoon" cloudiness="15"/>
<waypoint pitch="0" roll="0" x="1" y="2" yaw="89.5" z="0"/><waypoint pitch="0" roll="0" x="1" y="5" yaw="90" z="0"/></route></routes>"""


@pytest.fixture
def write(tmp_path):
    def to_file(text, name="routes.xml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return to_file


def test_leaderboard_2_route(write):
    routes = read_routes(write(NEW, "mine.xml"))
    assert routes.name == "mine" and [r.id for r in routes.routes] == ["7", "8"]
    route = routes.routes[0]
    np.testing.assert_array_equal(route.keypoints, [[1, -2, 0.5], [3, -2, 0.5]])
    assert route.yaw is None and route.town == "Town05"
    assert [(w.percentage, w.values) for w in route.weather] == [(0.0, {"wetness": 1.0}), (100.0, {"wetness": 3.0})]
    scenario = route.scenarios[0]
    assert (scenario.name, scenario.type) == ("Exit_1", "ParkingExit")
    np.testing.assert_array_equal(scenario.trigger, [1, -2, 0.5, 90])
    assert scenario.value("direction") == "right" and scenario.value("frequency", "to") == "20"
    assert scenario.value("direction", "from") is None and scenario.value("speed") is None
    assert routes.routes[1].scenarios == () and routes.routes[1].weather == ()


def test_leaderboard_1_route(write):
    route = read_routes(write(OLD)).routes[0]
    np.testing.assert_array_equal(route.keypoints, [[1, 2, 0], [1, 5, 0]])
    assert route.yaw is not None
    np.testing.assert_array_equal(route.yaw, [89.5, 90.0])
    assert [(w.percentage, w.values) for w in route.weather] == [(0.0, {"cloudiness": 15.0})]


def test_routes_without_a_map_are_told_and_kept(write):
    routes = read_routes(write(NEW))
    here, missing = routes.by_towns({"Town05"})
    assert [r.id for r in here] == ["7"] and [r.id for r in missing] == ["8"]
    assert "1 of 2 routes" in routes.missing({"Town05"}) and "Town06 (1)" in routes.missing({"Town05"})
    assert routes.missing({"Town05", "Town06"}) == ""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('x="3"', 'x="nan"', "route 7.*x='nan'"),
        ('x="3"', 'x="far"', "route 7.*x='far'"),
        ('x="3" ', "", "route 7.*no x"),
        ('<position x="3" y="-2" z="0.5"/>', "", "route 7: 1 waypoints"),
        ('town="Town06"', "", "route 8.*no town"),
        ('id="7"', "", "route number 1.*no id"),
        ('id="8"', 'id="7"', "route 7: a second route"),
        ('yaw="90"', "", "scenario Exit_1.*no yaw"),
        ('<trigger_point x="1" y="-2" z="0.5" yaw="90"/>', "", "scenario Exit_1: 0 trigger points"),
        (' type="ParkingExit"', "", "route 7.*no type"),
        ('route_percentage="100"', 'route_percentage="101"', "route 7: a weather at 101"),
        ('wetness="3"', 'wetness="inf"', "route 7: wetness"),
        ("</routes>", "", "not well-formed"),
        ("</routes>", "<town/></routes>", "<town> stands among the routes"),
    ],
)
def test_faults_name_file_and_route(write, old, new, told):
    assert old in NEW
    path = write(NEW.replace(old, new, 1))
    with pytest.raises(DataError, match=told) as caught:
        read_routes(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "<routes/>", "<weathers/>", b"\xff\xfe\x00", '<?xml version="1.0" encoding="klingon"?><routes/>'])
def test_other_files_are_refused(write, text):
    with pytest.raises(DataError):
        read_routes(write(text))


def test_missing_file_and_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.xml", tmp_path):
        with pytest.raises(DataError, match="cannot read"):
            read_routes(path)


def test_hostile_files_are_refused_at_once(write, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("9")
    laughs = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 12))
    bombs = [
        f'<!DOCTYPE routes [<!ENTITY l0 "ha">{laughs}]><routes>&l11;</routes>',
        f'<!DOCTYPE routes [<!ENTITY x SYSTEM "{secret.as_uri()}">]>' + NEW.replace('id="7"', 'id="&x;"'),
        '<!DOCTYPE routes SYSTEM "http://localhost:1/routes.dtd"><routes/>',
    ]
    for bomb in bombs:
        for encoding in ("utf-8", "utf-16"):
            with pytest.raises(DataError, match="document type"):
                read_routes(write(bomb.encode(encoding)))
    with pytest.raises(DataError, match="nests more than"):
        read_routes(write("<a>" * 100_000 + "</a>" * 100_000))


def test_weathers(write):
    text = '<weathers><case weather_id="4"><weather route_percentage="0" wetness="1"/></case></weathers>'
    assert {k: [w.values for w in v] for k, v in read_weathers(write(text)).items()} == {"4": [{"wetness": 1.0}]}
    for broken in (NEW, "<weathers/>", text.replace(' weather_id="4"', ""), text.replace("</weathers>", "") + text[10:]):
        with pytest.raises(DataError):
            read_weathers(write(broken))


@pytest.mark.parametrize(
    ("name", "routes", "scenarios", "keypoints", "weathers", "towns", "kinds"),
    [
        ("carla-simulator__leaderboard/data/routes_devtest.xml", 2, 119, 62, 4, 1, None),
        ("carla-simulator__leaderboard/data/routes_validation.xml", 20, 1786, 602, 40, 1, None),
        (f"{BENCH2DRIVE}/bench2drive220.xml", 220, 220, 9112, 440, 12, 44),
        (f"{BENCH2DRIVE}/drivetransformer_bench2drive_dev10.xml", 10, 10, 474, 20, 7, 10),
        ("autonomousvision__carla_garage/leaderboard/data/longest6.xml", 36, 0, 1466, 36, 6, 0),
    ],
)
def test_published_files(name, routes, scenarios, keypoints, weathers, towns, kinds):
    path = REAL / name
    if not path.is_file():
        pytest.skip("the published route files are not at hand")
    read = read_routes(path)
    assert len(read) == routes
    assert sum(len(r.scenarios) for r in read.routes) == scenarios
    assert sum(len(r.keypoints) for r in read.routes) == keypoints
    assert sum(len(r.weather) for r in read.routes) == weathers
    assert len({r.town for r in read.routes}) == towns
    if kinds is not None:
        assert len({s.type for r in read.routes for s in r.scenarios}) == kinds
    if routes == 220:
        assert set(Counter(s.type for r in read.routes for s in r.scenarios).values()) == {5}
    assert {route.yaw is not None for route in read.routes} == {name.endswith("longest6.xml")}


def test_published_weathers():
    path = REAL / BENCH2DRIVE / "weather.xml"
    if not path.is_file():
        pytest.skip("the published weather file is not at hand")
    weathers = read_weathers(path)
    assert len(weathers) == 23
    assert all([point.percentage for point in points] == [0.0, 100.0] for points in weathers.values())
