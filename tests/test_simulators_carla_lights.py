"""Traffic lights of the CARLA server: how they take turns, whom they rule, what clients may do to them and see of them."""

from functools import cache

import numpy as np
import pytest

pytest.importorskip("carla")
pytest.importorskip("msgpack")

from carla_client import run_pair

from drive.core.types import Camera
from drive.simulators.carla_server.layouts import Kind, LightShows, ServerError
from drive.simulators.carla_server.server import CarlaServer, ServerConfig
from drive.simulators.carla_server.signals import Sign, Signals
from drive.simulators.carla_server.traffic_lights import TrafficLights, lights_at
from drive.simulators.scene_geometry import Semantic

RED, YELLOW, GREEN, OFF = (int(state) for state in list(LightShows)[:4])
CAR = "vehicle.tesla.model3"


def sign(number: int, x: float = 0.0, z: float = 0.0) -> Sign:
    box, stop = np.array([[x, 0.0, z, 0.0, 1.5, 0.875]]), np.array([[x + 3.0, 0.0, z, 0.0]])
    return Sign(str(number), "traffic.traffic_light", np.array([x + 3.0, 5.0, z, 0.0, 90.0, 0.0]), box, stop)


def lights(count=3, groups=(((0, 1), (2,)),)) -> TrafficLights:
    made = TrafficLights(Signals(tuple(sign(k, 100.0 * k) for k in range(count)), (), groups))
    numbers = iter(range(10, 10 + count))
    made.actors(lambda: next(numbers))
    return made


def shows(made: TrafficLights) -> list[int]:
    return made.records["shows"].tolist()


def run(made: TrafficLights, seconds: float, dt: float = 0.05) -> list[tuple[float, list[int]]]:
    """When the lights began to show something else, to the tick."""
    found, last = [], shows(made)
    for k in range(round(seconds / dt)):
        made.step(dt)
        if shows(made) != last:
            last = shows(made)
            found.append((round((k + 1) * dt, 6), last))
    return found


@pytest.mark.parametrize("dt", [0.05, 0.1, 1.0])
def test_controllers_of_a_junction_take_turns(dt):
    made = lights()
    assert shows(made) == [GREEN, GREEN, RED]
    assert run(made, 31.0, dt) == [
        (10.0, [YELLOW, YELLOW, RED]),
        (13.0, [RED, RED, RED]),
        (15.0, [RED, RED, GREEN]),
        (25.0, [RED, RED, YELLOW]),
        (28.0, [RED, RED, RED]),
        (30.0, [GREEN, GREEN, RED]),
    ]


def test_junctions_have_clocks_of_their_own_and_no_two_controllers_are_green_at_once():
    made = lights(5, (((0,), (1,)), ((2,), (3,), (4,))))
    made.set_time(12, LightShows.GREEN, 4.0)
    for _ in range(2000):
        made.step(0.05)
        go = made.records["shows"] != RED
        assert go[:2].sum() <= 1 and go[2:].sum() <= 1
    assert made.records["green"].tolist() == [10.0, 10.0, 4.0, 10.0, 10.0]


def test_times_belong_to_a_controller_and_hold_from_its_next_turn():
    made = lights()
    made.set_time(10, LightShows.GREEN, 4.0)
    made.set_time(10, LightShows.YELLOW, 1.0)
    made.set_time(12, LightShows.RED, 0.5)
    assert made.records["green"].tolist() == [4.0, 4.0, 10.0] and made.records["red"].tolist() == [2.0, 2.0, 0.5]
    found = [when for when, _ in run(made, 40.0)]
    assert found[:6] == [10.0, 11.0, 13.0, 23.0, 26.0, 26.5] and found[6:9] == [30.5, 31.5, 33.5]
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ServerError):
            made.set_time(10, LightShows.GREEN, wrong)


def test_elapsed_counts_since_a_light_changed():
    made = lights()
    run(made, 10.5)
    np.testing.assert_allclose(made.records["elapsed"], [0.5, 0.5, 10.5], atol=1e-5)


def test_a_frozen_junction_stands_still_and_shows_what_it_is_told():
    made = lights(5, (((0, 1), (2,)), ((3,), (4,))))
    run(made, 3.0)
    made.freeze(11, True)
    assert made.records["frozen"].tolist() == [1, 1, 1, 0, 0]
    made.set_state(12, OFF)
    found = run(made, 60.0)
    assert all(state[:3] == [GREEN, GREEN, OFF] for _, state in found) and len(found) > 5
    assert made.records["elapsed"][0] == pytest.approx(3.0, abs=1e-5)
    made.freeze(10, False)
    assert run(made, 7.5)[0][0] <= 7.0 + 1e-6
    made.freeze_all(True)
    assert made.records["frozen"].all() and not run(made, 40.0)
    made.freeze_all(False)
    assert run(made, 20.0)


def test_reset_begins_a_junction_anew():
    made = lights(5, (((0, 1), (2,)), ((3,), (4,))))
    run(made, 16.0)
    assert shows(made) == [RED, RED, GREEN, RED, GREEN]
    made.reset_group(12)
    assert shows(made) == [GREEN, GREEN, RED, RED, GREEN]
    assert run(made, 10.0)[-1][0] == 10.0
    made.reset_all()
    assert shows(made) == [GREEN, GREEN, RED, GREEN, RED] and not made.records["elapsed"].any()


def test_a_state_that_a_client_sets_lasts_until_the_controller_changes_it():
    made = lights()
    made.set_state(10, RED)
    assert shows(made) == [RED, GREEN, RED]
    assert run(made, 10.0) == [(10.0, [YELLOW, YELLOW, RED])]
    for wrong in (5, -1):
        with pytest.raises(ServerError, match="no state"):
            made.set_state(10, wrong)
    with pytest.raises(ServerError, match="not a traffic light"):
        made.set_state(99, RED)


def test_groups_and_lamps():
    made = lights(4, (((0, 1), (2,)), ((3,),)))
    assert made.group(12) == [10, 11, 12] and made.group(13) == [13]
    assert made.records["pole"].tolist() == [0, 1, 2, 0]
    (box,) = made.lamps(11)
    np.testing.assert_allclose(box[0], [109.15, 0.0, 4.8])
    assert box[3] == 11


def test_no_lights_at_all():
    made = TrafficLights(Signals())
    made.step(0.05)
    made.freeze_all(True)
    made.reset_all()
    assert made.drawn().shape == (0, 4) and not len(made.records)


@pytest.mark.parametrize(
    ("place", "at"),
    [
        ((0.0, 0.0, 0.0), 0),
        ((-3.8, 0.0, 0.0), 0),  # the nose is in
        ((-3.9, 0.0, 0.0), -1),
        ((3.9, 0.0, 0.0), -1),  # gone through
        ((0.0, 3.5, 0.0), -1),  # the lane beside
        ((0.0, 2.2, np.pi / 2.0), 0),  # across
        ((101.0, 0.2, 0.1), 1),
        ((50.0, 0.0, 0.0), -1),
    ],
)
def test_a_light_rules_who_touches_its_box(place, at):
    boxes, owner = np.concatenate([sign(0).boxes, sign(1, 100.0).boxes]), np.array([0, 1])
    half, middle = np.array([[2.35, 0.9, 0.7]]), np.array([place])
    assert lights_at(boxes, owner, middle, half, np.zeros(1)).tolist() == [at]
    assert lights_at(boxes, owner, middle, half, np.full(1, 6.0)).tolist() == [-1]  # on the bridge above


@cache
def server() -> CarlaServer:
    return CarlaServer(ServerConfig(map="urban_a", port=0))


def call(name: str, *arguments):
    return server().methods[name](*arguments)


def before_light(back: float) -> tuple[int, list]:
    """A light of the town, and a transform `back` metres before its stop line."""
    server().load("urban_a", True)
    episode = server().episode
    x, y, z, yaw = episode.town.signals.lights[0].stops[0]
    place = [float(x - back * np.cos(yaw)), float(y - back * np.sin(yaw)), float(z)]
    return int(episode.lights.records["id"][0]), [place, [0.0, float(np.degrees(yaw)), 0.0]]


def test_a_vehicle_knows_its_light_and_its_limit():
    light, at = before_light(3.0)
    car = call("spawn_actor", [0, CAR, []], at)[0]
    server().episode.tick(0.05)
    record = server().episode.vehicles.records[0]
    assert (record["at_light"], record["light_id"], record["light"], record["speed_limit"]) == (1, light, GREEN, 50.0)
    call("set_traffic_light_state", light, RED)
    server().episode.tick(0.05)
    assert server().episode.vehicles.records[0]["light"] == RED
    call("set_actor_transform", car, before_far(at))
    server().episode.tick(0.05)
    record = server().episode.vehicles.records[0]
    assert (record["at_light"], record["light_id"], record["light"]) == (0, 0, GREEN)


def before_far(at: list) -> list:
    yaw = np.radians(at[1][1])
    return [[float(at[0][0] - 30.0 * np.cos(yaw)), float(at[0][1] - 30.0 * np.sin(yaw)), 0.0], at[1]]


def test_methods_and_the_batch_command():
    light, _ = before_light(3.0)
    records = server().episode.lights.records
    assert call("apply_batch", [[[21, [light, OFF]]], [[21, [light + 9999, OFF]]]], False).value[0] == [[1, light]]
    assert records["shows"][0] == OFF
    call("set_traffic_light_green_time", light, 7.0)
    call("set_traffic_light_yellow_time", light, 2.0)
    call("set_traffic_light_red_time", light, 1.0)
    assert [float(records[k][0]) for k in ("green", "yellow", "red")] == [7.0, 2.0, 1.0]
    call("freeze_traffic_light", light, True)
    assert light in call("get_group_traffic_lights", light) and records["frozen"].sum() == len(
        call("get_group_traffic_lights", light)
    )
    call("freeze_all_traffic_lights", False)
    call("reset_traffic_light_group", light)
    assert records["shows"][0] == GREEN
    call("reset_all_traffic_lights")
    assert len(call("get_light_boxes", light)) == 1


def test_lights_and_signs_are_actors_that_stay():
    light, _ = before_light(3.0)
    episode = server().episode
    kinds = [actor.kind for actor in episode.actors.values()]
    assert (kinds.count(Kind.LIGHT), kinds.count(Kind.SIGN)) == (22, 14)
    yields = [actor for actor in episode.actors.values() if actor.type_id == "traffic.yield"]
    ids = {s.id for s in episode.town.signals.signs if s.type_id == "traffic.yield"}
    row = {int(record["id"]): record for record in episode.things}
    assert {bytes(row[actor.id]["rest"])[:32].rstrip(b"\0").decode() for actor in yields} == ids
    for actor in (light, yields[0].id):
        with pytest.raises(ServerError, match="belongs to the map"):
            call("destroy_actor", actor)
    assert call("get_actor_bounding_box", light)[1][1] == pytest.approx(1.5, abs=1e-3)


def test_two_runs_are_the_same_to_the_bit():
    def states() -> bytes:
        before_light(3.0)
        found = []
        for _ in range(400):
            server().episode.tick(0.05)
            records = server().episode.lights.records
            found.append(records["shows"].tobytes() + records["elapsed"].tobytes())
        return b"".join(found)

    assert states() == states()


def test_the_renderer_draws_the_light_that_is_on():
    light, at = before_light(8.0)
    episode = server().episode
    x, y, yaw = at[0][0], -at[0][1], -np.radians(at[1][1])
    intrinsics = np.array([[110.0, 0.0, 112.0], [0.0, 110.0, 112.0], [0.0, 0.0, 1.0]])
    pose = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 1.6], [0.0, 0.0, 0.0, 1.0]])
    camera, none = Camera("front", 224, 224, intrinsics, pose), np.zeros((0, 3))

    def picture():
        return episode.town.renderer.render(
            camera, np.array([x, y, yaw]), none, none, np.zeros(0, np.int64), lights_world=episode.lights.drawn()
        )

    green = picture()
    lamp = green.semantic == Semantic.TRAFFIC_LIGHT
    assert lamp.sum() > 100
    call("set_traffic_light_state", light, RED)
    red = picture()
    assert (red.rgb[lamp][:, 0].astype(int) - red.rgb[lamp][:, 1]).max() > 150
    assert (green.rgb[lamp][:, 0].astype(int) - green.rgb[lamp][:, 1]).max() < 60
    call("set_traffic_light_state", light, OFF)  # dark heads are not drawn
    assert not (picture().semantic[lamp] == Semantic.TRAFFIC_LIGHT).all()


SERVER = """
import sys
from drive.simulators.carla_server.server import ServerConfig, serve
serve(ServerConfig(map="urban_a", port=int(sys.argv[1])), started=lambda s: print("up", flush=True))
"""
CLIENT = """
import sys, carla
client = carla.Client("127.0.0.1", int(sys.argv[1])); client.set_timeout(60.0)
world = client.get_world(); world.tick()
town, actors = world.get_map(), world.get_actors()
lights = actors.filter("traffic.traffic_light*")
assert len(lights) == 22 and all(type(light) is carla.TrafficLight for light in lights)
assert len(actors.filter("traffic.yield")) == 6 and len(actors.filter("traffic.speed_limit.50")) == 8
library = world.get_blueprint_library()
for light in list(lights)[:6]:
    light.reset_group(); world.tick()
    assert (light.get_green_time(), light.get_yellow_time(), light.get_red_time()) == (10.0, 3.0, 2.0)
    assert world.get_traffic_light_from_opendrive_id(light.get_opendrive_id()).id == light.id
    group = {other.id for other in light.get_group_traffic_lights()}
    stops = light.get_stop_waypoints()
    assert light.id in group and len(light.get_affected_lane_waypoints()) == len(stops) == len(light.get_light_boxes())
    before = stops[0].previous(20.0)[0]
    assert [other.id for other in world.get_traffic_lights_from_waypoint(before, 40.0)] == [light.id]
    inside = [w for w in stops[0].next(14.0) if w.is_junction][0]
    assert {other.id for other in world.get_traffic_lights_in_junction(inside.get_junction().id)} == group
    volume, place = light.trigger_volume, light.get_transform()
    middle = place.transform(volume.location)
    assert town.get_waypoint(middle).lane_id * stops[0].lane_id > 0 and town.get_waypoint(middle).road_id == stops[0].road_id
    pose = town.get_waypoint(middle).transform; pose.location.z += 0.3
    car = world.spawn_actor(library.find("vehicle.tesla.model3"), pose); world.tick()
    assert car.is_at_traffic_light() and car.get_traffic_light().id == light.id and car.get_speed_limit() == 50.0
    light.set_state(carla.TrafficLightState.Red); light.freeze(True); world.tick()
    assert light.state == car.get_traffic_light_state() == carla.TrafficLightState.Red and light.is_frozen()
    light.freeze(False); car.destroy(); world.tick()
world.reset_all_traffic_lights(); world.freeze_all_traffic_lights(True); world.tick()
assert all(light.is_frozen() for light in lights)
marks = town.get_all_landmarks_of_type("1000001")
assert len(marks) == 22 and {world.get_traffic_light(mark).id for mark in marks} == {light.id for light in lights}
print("fine")
"""


def test_the_official_client_finds_its_lights(tmp_path):
    done = run_pair(SERVER, CLIENT, tmp_path)
    assert done.returncode == 0 and done.stdout.strip().endswith("fine"), done.stderr[-2000:]
