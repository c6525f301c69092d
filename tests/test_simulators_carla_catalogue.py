"""The blueprint library of the CARLA server: what scripts look for in it."""

import math

import pytest

from drive.simulators.carla_server.blueprints import BOOL, COLOUR, FLOAT, INT, STRING
from drive.simulators.carla_server.catalogue import blueprints
from drive.simulators.carla_server.layouts import Kind
from drive.simulators.carla_server.vehicle_model import CarParams

LIBRARY = {b.id: b for b in blueprints()}
VEHICLES = {k: b for k, b in LIBRARY.items() if k.startswith("vehicle.")}
KINDS = {BOOL: ("true", "false").__contains__, INT: lambda v: str(int(v)) == v, FLOAT: lambda v: math.isfinite(float(v)), STRING: lambda v: True}
KINDS[COLOUR] = lambda v: len(v.split(",")) == 3 and all(0 <= int(part) <= 255 for part in v.split(","))


def value(blueprint, name):
    return next((a.value for a in blueprint.attributes if a.name == name), None)


def ids(**wanted):
    return {k.split(".", 1)[1] for k, b in VEHICLES.items() if all(value(b, name) == v for name, v in wanted.items())}


def test_every_id_stands_once_and_every_value_is_of_its_type():
    assert len(LIBRARY) == len(blueprints())
    for blueprint in LIBRARY.values():
        names = [a.name for a in blueprint.attributes]
        assert len(names) == len(set(names))
        for attribute in blueprint.attributes:
            assert all(KINDS[attribute.type](v) for v in (attribute.value, *attribute.recommended)), (blueprint.id, attribute)
        assert blueprint.message(7)[:3] == [7, blueprint.id, blueprint.id.replace(".", ",")]


def test_vehicles_are_those_of_carla_0_9_16():
    # carla.readthedocs.io/en/0.9.16/catalogue_vehicles: 25 cars, 4 trucks, 4 vans, a bus, 4 motorcycles, 3 bicycles.
    counts = {base: len(ids(base_type=base)) for base in ("car", "truck", "van", "bus", "motorcycle", "bicycle")}
    assert counts == {"car": 25, "truck": 4, "van": 4, "bus": 1, "motorcycle": 4, "bicycle": 3} and len(VEHICLES) == 41
    assert ids(special_type="emergency") == {
        "dodge.charger_police",
        "dodge.charger_police_2020",
        "carlamotors.firetruck",
        "ford.ambulance",
    }
    assert ids(special_type="taxi") == {"ford.crown"} and "tesla.model3" in ids(special_type="electric")
    assert ids(number_of_wheels="2") == ids(base_type="motorcycle") | ids(base_type="bicycle")
    assert ids(generation="2") == {
        *("dodge.charger_2020", "dodge.charger_police_2020", "ford.crown", "lincoln.mkz_2020", "mercedes.coupe_2020"),
        *("mini.cooper_s_2021", "nissan.patrol_2021", "carlamotors.european_hgv", "carlamotors.firetruck", "tesla.cybertruck"),
        *("ford.ambulance", "mercedes.sprinter", "volkswagen.t2_2021", "mitsubishi.fusorosa"),
    }
    for needed in ("lincoln.mkz_2020", "tesla.model3", "bh.crossbike", "diamondback.century", "mercedes.coupe"):
        assert f"vehicle.{needed}" in VEHICLES


def test_what_scripts_ask_of_every_vehicle_is_there():
    for blueprint in VEHICLES.values():
        for name in ("role_name", "base_type", "special_type", "generation", "number_of_wheels", "has_lights", "has_dynamic_doors", "sticky_control"):
            assert value(blueprint, name) is not None, (blueprint.id, name)
        fixed = {a.name for a in blueprint.attributes if not a.modifiable}
        assert {"base_type", "generation", "number_of_wheels"} <= fixed and not fixed & {"color", "role_name", "driver_id"}
        colours = [a.recommended for a in blueprint.attributes if a.name == "color"]
        assert blueprint.id == "vehicle.tesla.cybertruck" or len(colours[0]) > 1
        rider = [a.recommended for a in blueprint.attributes if a.name == "driver_id"]
        assert not blueprint.car.two_wheels or rider[0]
    assert value(LIBRARY["vehicle.lincoln.mkz_2020"], "has_lights") == "true" and value(LIBRARY["vehicle.bh.crossbike"], "has_lights") == "false"


@pytest.mark.parametrize("name", sorted(VEHICLES))
def test_measures_are_those_of_such_a_thing(name):
    blueprint = VEHICLES[name]
    length, width, height = (2.0 * half for half in blueprint.extent)
    car = blueprint.car
    assert 1.4 < length < 9.0 and 0.5 < width < 2.6 and 1.2 < height < 4.0 and length > width
    assert 0.4 * length < car.front + car.rear < 0.8 * length
    assert (car.mass < 400.0) == bool(car.two_wheels) == (width < 1.0)
    assert blueprint.centre == (0.0, 0.0, blueprint.extent[2])
    assert math.radians(12.0) < car.max_steer < math.radians(60.0)
    assert len(car.row()) == 25 and min(car.row()[:9]) > 0.0


def test_the_mkz_is_the_one_of_its_maker_and_of_the_defaults():
    # Lincoln's 2020 specifications: 193.9 x 73.4 x 58.1 in, wheel base 112.2 in, 3,739 lb.
    blueprint = LIBRARY["vehicle.lincoln.mkz_2020"]
    inch = 0.0254
    assert [2.0 * half for half in blueprint.extent] == pytest.approx([193.9 * inch, 73.4 * inch, 58.1 * inch], abs=0.005)
    assert blueprint.car.front + blueprint.car.rear == pytest.approx(112.2 * inch, abs=0.005)
    assert blueprint.car.mass == pytest.approx(3739 * 0.45359, abs=1.0)
    assert blueprint.car.row() == pytest.approx(CarParams().row(), rel=5e-3)


def test_walkers_and_things():
    walkers = [LIBRARY[f"walker.pedestrian.{k:04d}"] for k in range(1, 53)]
    assert sum(value(w, "age") == "child" for w in walkers) == 8 and {value(w, "gender") for w in walkers} == {"male", "female"}
    for walker in walkers:
        assert walker.kind == Kind.WALKER and value(walker, "is_invincible") == "true"
        speeds = next(a.recommended for a in walker.attributes if a.name == "speed")
        assert [float(s) for s in speeds] == sorted(float(s) for s in speeds) and len(speeds) == 3
        assert (value(walker, "use_wheelchair") is not None) == (value(walker, "can_use_wheelchair") == "true")
    assert LIBRARY["walker.pedestrian.0001"].extent[2] == 0.93 and LIBRARY["walker.pedestrian.0011"].extent[2] == 0.55
    props = {k.removeprefix("static.prop.") for k in LIBRARY if k.startswith("static.prop.")}
    assert len(props) > 95
    for needed in ("trafficcone01", "constructioncone", "streetbarrier", "warningconstruction", "warningaccident", "trafficwarning", "mesh"):
        assert needed in props
    for needed in ("trashcan03", "vendingmachine", "dirtdebris02", "container", "bike helmet", "kiosk_01", "busstoplb", "plasticbag"):
        assert needed in props
    assert LIBRARY["static.prop.streetbarrier"].extent == (0.605, 0.185, 0.535)
    assert {a.name for a in LIBRARY["static.trigger.friction"].attributes} == {"role_name", "friction", "extent_x", "extent_y", "extent_z"}
