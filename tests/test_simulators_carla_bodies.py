"""Bodies in an episode of the CARLA server: crashes, pushes, walkers, room to spawn, what is carried; and the official client."""

import math
import time
from functools import cache

import numpy as np
import pytest

pytest.importorskip("msgpack")

from carla_client import run_pair

from drive.simulators.carla_server.attachments import compose_all
from drive.simulators.carla_server.layouts import ServerError
from drive.simulators.carla_server.poses import attached
from drive.simulators.carla_server.server import CarlaServer, ServerConfig
from drive.simulators.carla_server.vehicle_model import AX, STEER, VX, YAW_RATE

MKZ, BIKE, WALKER, CONE = "vehicle.lincoln.mkz_2020", "vehicle.bh.crossbike", "walker.pedestrian.0001", "static.prop.trafficcone01"
FAR = 1000.0  # m: an open place without roads or houses
MASS, LENGTH = 1696.0, 4.925


@cache
def server() -> CarlaServer:
    return CarlaServer(ServerConfig(map="urban_a", port=0, synchronous=True))


def call(name, *arguments):
    return server().methods[name](*arguments)


def spawn(type_id, x=0.0, y=0.0, yaw=0.0, z=0.0, parent=0, **attributes) -> int:
    values = [[name, 4, str(v)] for name, v in attributes.items()]
    pose = [[x + (0.0 if parent else FAR), y + (0.0 if parent else FAR), z], [0.0, yaw, 0.0]]
    if parent:
        return call("spawn_actor_with_parent", [0, type_id, values], pose, parent)[0]
    return call("spawn_actor", [0, type_id, values], pose)[0]


@pytest.fixture(autouse=True)
def clean():
    call("load_new_episode", "urban_a")
    yield


def tick(count=1, each=None):
    for _ in range(count):
        server().episode.tick(0.05)
        if each is not None:
            each()


def velocity(actor):
    return server().episode.velocity(actor)


def place(actor):
    return server().episode.pose(actor)[:3] - (FAR, FAR, 0.0)


def hits():
    return server().episode.collisions.hits


def gather(count):
    """All hits of `count` ticks."""
    told = []
    tick(count, lambda: told.extend(hits()))
    return told


def test_two_cars_crash_and_keep_their_momentum():
    one, two = spawn(MKZ), spawn(MKZ, x=10.0, yaw=180.0)
    call("set_actor_target_velocity", one, [20.0, 0.0, 0.0])
    call("set_actor_target_velocity", two, [0.0, 0.0, 0.0])
    told: list = []
    before = after = np.zeros(3)
    for _ in range(20):
        before = MASS * (velocity(one) + velocity(two))
        tick()
        if hits():
            told = list(hits())
            after = MASS * (velocity(one) + velocity(two))
            break
    rolling = 2.0 * MASS * 0.05 * (0.35 + 0.013 * 9.81 + 0.5 * 1.225 * 0.67 * 400.0 / MASS)
    assert after[0] == pytest.approx(before[0], abs=rolling)
    assert {(h.actor, h.other) for h in told} == {(one, two), (two, one)} and len(told) == 2
    assert told[0].impulse[0] == pytest.approx(-told[1].impulse[0])
    assert abs(told[0].impulse[0]) == pytest.approx(1.1 * 0.5 * MASS * 20.0, rel=0.05)
    assert velocity(two)[0] > velocity(one)[0] > 0.0
    assert server().episode.vehicles.state[0, AX] < -50.0


def test_a_parked_car_is_pushed_and_comes_to_rest_and_nothing_trembles():
    one, two = spawn(MKZ), spawn(MKZ, x=6.0)
    call("apply_control_to_vehicle", one, [0.3, 0.0, 0.0, False, False, False, 0])
    tick(80)
    assert place(two)[0] > 8.0 and place(two)[0] - place(one)[0] == pytest.approx(LENGTH, abs=0.15)
    call("apply_control_to_vehicle", one, [0.0, 0.0, 1.0, False, False, False, 0])
    call("apply_control_to_vehicle", two, [0.0, 0.0, 1.0, False, False, False, 0])
    tick(100)
    at = place(one).copy(), place(two).copy()
    counts = []
    tick(50, lambda: counts.append(len(hits())))
    assert np.array_equal(at[0], place(one)) and np.array_equal(at[1], place(two)) and sum(counts) == 0


def test_a_house_stops_a_car():
    episode = server().episode
    boxes, _ = episode.town.scenery
    house = boxes[np.argmax(boxes[:, 3] * boxes[:, 4])]
    away = house[3] + 12.0
    c, s = math.cos(house[2]), math.sin(house[2])
    car = spawn(MKZ, x=house[0] - c * away - FAR, y=house[1] - s * away - FAR, yaw=math.degrees(house[2]))
    call("set_actor_target_velocity", car, [15.0 * c, 15.0 * s, 0.0])
    told = gather(60)
    reach = abs((episode.pose(car)[0] - house[0]) * c + (episode.pose(car)[1] - house[1]) * s)
    assert told and told[0].other == 0 and told[0].other_type == "static.building"
    assert reach > house[3] + 0.9 * LENGTH / 2.0 and np.hypot(*velocity(car)[:2]) < 3.0


@pytest.mark.parametrize("thing, stops", [(CONE, True), ("static.prop.streetbarrier", True), ("static.prop.dirtdebris01", False)])
def test_things_stop_a_car_unless_they_are_flat_or_switched_off(thing, stops):
    for ghost in (False, True):
        call("load_new_episode", "urban_a")
        prop, car = spawn(thing, x=8.0), spawn(MKZ)
        call("set_actor_collisions", prop, not ghost)
        call("set_actor_target_velocity", car, [10.0, 0.0, 0.0])
        told = gather(30)
        assert (place(car)[0] < 6.0) == bool(told) == (stops and not ghost)
        assert not told or (told[0].actor, told[0].other, told[0].other_type) == (car, prop, thing)


def test_a_thing_that_was_moved_or_destroyed_is_no_longer_in_the_way():
    prop, car = spawn(CONE, x=8.0), spawn(MKZ)
    tick()
    call("set_actor_transform", prop, [[FAR, FAR + 30.0, 0.0], [0.0, 0.0, 0.0]])
    other = spawn(CONE, x=9.0)
    tick()
    call("destroy_actor", other)
    call("set_actor_target_velocity", car, [10.0, 0.0, 0.0])
    tick(30)
    assert place(car)[0] > 10.0


def test_a_walker_who_is_invincible_is_pushed_and_walks_on():
    walker, car = spawn(WALKER, x=6.0, z=1.0), spawn(MKZ)
    call("apply_control_to_walker", walker, [[0.0, 1.0, 0.0], 0.1, False])
    call("set_actor_target_velocity", car, [8.0, 0.0, 0.0])
    told = gather(20)
    assert {(h.actor, h.other) for h in told} == {(car, walker), (walker, car)}
    assert place(walker)[0] > 7.0 and velocity(car)[0] > 5.0
    call("destroy_actor", car)
    tick(60)
    assert velocity(walker) == pytest.approx([0.0, 0.1, 0.0], abs=1e-6) and server().episode.pose(walker)[3] == 0.0


def test_a_walker_who_is_not_falls_and_stays_where_he_lies():
    walker, car = spawn(WALKER, x=6.0, z=1.0, is_invincible="false"), spawn(MKZ)
    call("apply_control_to_walker", walker, [[0.0, 1.0, 0.0], 1.5, False])
    tick(1)
    call("set_actor_target_velocity", car, [12.0, 0.0, 0.0])
    tick(100)
    at = place(walker).copy()
    tick(20)
    assert np.array_equal(at, place(walker)) and not velocity(walker).any()
    assert server().episode.pose(walker)[3] == 90.0 and 0.0 < at[2] < 0.5
    assert at[0] > 8.0


def test_walkers_stand_on_the_ground_with_the_middle_of_their_bodies():
    walker, child = spawn(WALKER, z=1.2), spawn("walker.pedestrian.0011", x=3.0, z=1.2)
    tick()
    assert place(walker)[2] == pytest.approx(0.93) and place(child)[2] == pytest.approx(0.55)
    call("set_actor_simulate_physics", walker, False)
    call("set_actor_transform", walker, [[FAR, FAR, -500.0], [0.0, 0.0, 0.0]])
    tick(3)
    assert place(walker)[2] == -500.0


def test_walker_state_puts_a_walker_and_lets_it_go_ahead():
    walker = spawn(WALKER, z=1.0)
    answer = call("apply_batch", [[[7, [walker, [[FAR + 5.0, FAR, 1.0], [0.0, 90.0, 0.0]], 2.0]]]], False)
    assert answer.value == [[[1, walker]]]
    tick(10)
    assert place(walker)[:2] == pytest.approx([5.0, 1.0], abs=1e-3) and velocity(walker)[1] == pytest.approx(2.0)
    call("set_actor_target_velocity", walker, [0.0, -3.0, 0.0])
    tick()
    assert velocity(walker)[1] == pytest.approx(-3.0, abs=1e-5)
    tick(60)
    assert velocity(walker)[1] == pytest.approx(2.0)


def test_forces_and_impulses_change_velocities_by_newton():
    car, still = spawn(MKZ), spawn(MKZ, y=20.0)
    state = server().episode.vehicles.state
    call("add_actor_impulse", car, [MASS * 3.0, 0.0, 0.0])
    assert server().episode.vehicles.state[0, VX] == pytest.approx(3.0)
    tick()
    v = float(velocity(car)[0])
    call("add_actor_force", car, [MASS * 100.0, 0.0, 0.0])
    tick()
    assert velocity(car)[0] - v == pytest.approx(5.0, abs=0.05)
    v = float(velocity(car)[0])
    tick()
    assert velocity(car)[0] < v  # a force lasts one tick
    vehicles = server().episode.vehicles
    inertia = vehicles.cars[still].inertia
    call("add_actor_angular_impulse", still, [0.0, 0.0, 40.0 * inertia * 1e4])
    assert vehicles.state[1, YAW_RATE] == pytest.approx(math.radians(40.0))
    call("add_actor_torque", still, [0.0, 0.0, 10.0 * inertia * 1e4 / 0.05])
    before = float(vehicles.push[1, 2])
    assert before * 0.05 / inertia == pytest.approx(math.radians(10.0))
    call("add_actor_impulse_at_location", still, [0.0, inertia, 0.0], [FAR + 1.0, FAR + 20.0, 0.0])
    assert vehicles.state[1, YAW_RATE] == pytest.approx(math.radians(40.0) + 1.0)
    call("add_actor_force_at_location", still, [0.0, 5.0, 0.0], [FAR + 2.0, FAR + 20.0, 0.0])
    assert vehicles.push[1].tolist() == pytest.approx([0.0, 5.0, before + 10.0])
    assert state is not None


def test_cars_without_physics_gravity_or_collisions():
    car, other = spawn(MKZ), spawn(MKZ, x=8.0)
    call("set_actor_target_velocity", car, [10.0, 0.0, 0.0])
    tick()
    call("set_actor_simulate_physics", car, False)
    call("set_actor_transform", car, [[FAR, FAR + 50.0, -100.0], [0.0, 0.0, 0.0]])
    tick(3)
    assert place(car).tolist() == [0.0, 50.0, -100.0] and not velocity(car).any()
    call("set_actor_simulate_physics", car, True)
    call("set_actor_enable_gravity", car, False)
    tick(3)
    assert place(car)[2] == -100.0
    call("set_actor_enable_gravity", car, True)
    tick()
    assert place(car)[2] == pytest.approx(0.0, abs=1e-3)
    call("set_actor_transform", car, [[FAR, FAR, 0.0], [0.0, 0.0, 0.0]])
    call("set_actor_collisions", car, False)
    call("set_actor_target_velocity", car, [10.0, 0.0, 0.0])
    tick(30)
    assert not hits() and place(car)[0] > 9.0 and place(other)[0] == 8.0


@pytest.mark.parametrize("first, second, room", [(MKZ, MKZ, False), (WALKER, MKZ, False), (MKZ, WALKER, False), (CONE, MKZ, False)])
def test_nothing_spawns_in_another(first, second, room):
    spawn(first, z=0.93 if first == WALKER else 0.0)
    with pytest.raises(ServerError, match="collision at spawn position"):
        spawn(second, x=0.5, z=0.93 if second == WALKER else 0.3)
    assert spawn(second, x=0.5, z=50.0) and spawn(second, x=8.0, z=0.93)
    assert spawn("static.prop.dirtdebris01", x=20.0) and spawn(MKZ, x=20.0)


def test_things_may_touch_each_other_but_not_cars():
    spawn(CONE), spawn(CONE, x=0.1)
    spawn(MKZ, x=10.0)
    with pytest.raises(ServerError):
        spawn(CONE, x=10.0)


def test_friction_triggers_hold_only_in_their_boxes():
    trigger = spawn("static.trigger.friction", friction="0.35", extent_x="500", extent_y="500", extent_z="500")
    car, away = spawn(MKZ), spawn(MKZ, x=30.0)
    for actor in (car, away):
        call("set_actor_target_velocity", actor, [15.0, 0.0, 0.0])
        call("apply_control_to_vehicle", actor, [0.0, 0.0, 1.0, False, False, False, 0])
    tick()
    assert 15.0 - velocity(car)[0] < 0.2 * (15.0 - velocity(away)[0])
    call("destroy_actor", trigger)
    v = float(velocity(car)[0])
    tick()
    assert v - velocity(car)[0] > 0.4
    with pytest.raises(ServerError):
        spawn("static.trigger.friction", friction="-1")


def test_what_is_attached_goes_along_level_by_level():
    car = spawn(MKZ)
    cone = spawn(CONE, x=-1.0, z=2.0, parent=car)
    camera = spawn("sensor.other.gnss", x=0.5, y=0.2, z=1.0, yaw=30.0, parent=cone)
    call("apply_control_to_vehicle", car, [0.6, 0.4, 0.0, False, False, False, 0])
    tick(60)
    episode = server().episode
    parent = attached(episode.pose(car), [-1.0, 0.0, 2.0, 0.0, 0.0, 0.0])
    assert episode.pose(cone) == pytest.approx(parent, abs=1e-3)
    assert episode.pose(camera) == pytest.approx(attached(parent, [0.5, 0.2, 1.0, 0.0, 30.0, 0.0]), abs=1e-3)
    assert np.array_equal(velocity(camera), velocity(car)) and not hits()
    call("destroy_actor", cone)
    assert camera not in episode.actors
    tick()


def test_composed_poses_are_those_of_matrices():
    rng = np.random.default_rng(3)
    parents, relative = rng.uniform(-80, 80, (50, 6)), rng.uniform(-80, 80, (50, 6))
    out = np.empty((50, 6))
    compose_all(parents, relative, out)
    assert out == pytest.approx(np.array([attached(a, b) for a, b in zip(parents, relative)]), abs=1e-9)


def test_ackermann_control_drives_until_pedals_do():
    car = spawn(MKZ)
    call("apply_ackermann_controller_settings", car, [0.15, 0.0, 0.25, 0.01, 0.0, 0.01])
    call("apply_batch", [[[3, [car, [0.05, 0.0, 6.0, 0.0, 0.0]]]]], False)
    tick(400)
    assert np.hypot(*velocity(car)[:2]) == pytest.approx(6.0, abs=0.3)
    assert call("get_wheel_steer_angle", car, 0) > 0.5 and call("get_wheel_steer_angle", car, 3) == 0.0
    assert call("get_ackermann_controller_settings", car) == [0.15, 0.0, 0.25, 0.01, 0.0, 0.01]
    call("apply_control_to_vehicle", car, [0.0, 0.0, 1.0, False, False, False, 0])
    tick(60)
    assert np.hypot(*velocity(car)[:2]) == 0.0
    with pytest.raises(ServerError):
        call("get_wheel_steer_angle", car, 4)


def test_pedals_are_finite_and_gears_are_told():
    car = spawn(MKZ)
    with pytest.raises(ServerError):
        call("apply_control_to_vehicle", car, [math.nan, 0.0, 0.0, False, False, False, 0])
    call("apply_control_to_vehicle", car, [1.0, 0.0, 0.0, False, False, False, 0])
    record = server().episode.vehicles.records
    gears = []
    tick(300, lambda: gears.append(int(record["gear"][0])))
    assert gears == sorted(gears) and (gears[0], gears[-1]) == (1, 6)
    call("apply_control_to_vehicle", car, [1.0, 0.0, 0.0, False, True, False, 0])
    tick()
    assert record["gear"][0] == -1
    call("apply_control_to_vehicle", car, [1.0, 0.0, 0.0, False, False, True, 3])
    tick()
    assert record["gear"][0] == 3


def crowd(count):
    rng = np.random.default_rng(0)
    for k in range(count):
        car = spawn(MKZ, x=8.0 * (k % 10), y=4.0 * (k // 10), yaw=float(rng.uniform(-20, 20)))
        call("apply_control_to_vehicle", car, [float(rng.uniform(0, 0.8)), float(rng.uniform(-0.3, 0.3)), 0.0, False, False, False, 0])
    for k in range(20):
        walker = spawn(WALKER, x=8.0 * k, y=-6.0, z=1.0)
        call("apply_control_to_walker", walker, [[0.3, 1.0, 0.0], 1.5, False])


def test_two_runs_with_many_crashes_are_the_same_to_the_bit():
    def run():
        call("load_new_episode", "urban_a")
        crowd(60)
        found, told = [], 0
        for _ in range(150):
            tick()
            told += len(hits())
            found.append(server().episode.vehicles.records["pose"].tobytes() + server().episode.walkers["pose"].tobytes())
        assert told > 20 and np.isfinite(server().episode.vehicles.state).all()
        return b"".join(found)

    assert run() == run()


def test_a_tick_of_a_hundred_cars_is_cheap():
    crowd(100)
    tick(50)
    best = math.inf
    for _ in range(40):
        begin = time.perf_counter()
        tick()
        best = min(best, time.perf_counter() - begin)
    assert best < 5e-3  # about 0.5 ms


SERVER = """
import sys
from drive.simulators.carla_server.server import ServerConfig, serve
serve(ServerConfig(map="urban_a", port=int(sys.argv[1]), synchronous=True), started=lambda s: print("up", flush=True))
"""
CLIENT = """
import math, sys, carla
client = carla.Client("127.0.0.1", int(sys.argv[1])); client.set_timeout(60.0)
world = client.get_world(); library = world.get_blueprint_library()
assert len(library.filter("vehicle.*")) == 41 and len(library.filter("walker.pedestrian.*")) == 52 and len(library.filter("static.prop.*")) > 95
assert all(b.get_attribute("base_type").as_str() for b in library.filter("vehicle.*"))
emergency = [b.id for b in library.filter("vehicle.*") if b.get_attribute("special_type") == "emergency"]
assert "vehicle.ford.ambulance" in emergency and len(library.filter_by_attribute("base_type", "bicycle")) == 3
def at(x, y, yaw=0.0, z=0.3): return carla.Transform(carla.Location(1000.0 + x, 1000.0 + y, z), carla.Rotation(yaw=yaw))
mkz = library.find("vehicle.lincoln.mkz_2020"); mkz.set_attribute("color", mkz.get_attribute("color").recommended_values[1])
car = world.spawn_actor(mkz, at(0, 0)); world.tick()
assert world.try_spawn_actor(mkz, at(1, 0)) is None
physics = car.get_physics_control()
assert abs(physics.mass - 1696.0) < 1.0 and len(physics.wheels) == 4 and len(physics.forward_gears) == 6
assert [round(p.y, 2) for p in physics.steering_curve] == [1.0, 0.9, 0.8, 0.7]
physics.mass = 2000.0; physics.steering_curve = [carla.Vector2D(0.0, 1.0), carla.Vector2D(100.0, 0.5)]
wheels = physics.wheels
for wheel in wheels: wheel.tire_friction = 1.75
physics.wheels = wheels
car.apply_physics_control(physics); world.tick()
again = car.get_physics_control()
assert abs(again.mass - 2000.0) < 1e-3 and abs(again.wheels[0].tire_friction - 1.75) < 1e-3 and len(again.steering_curve) == 2
place = again.wheels[1].position
assert abs(place.x / 100.0 - 1001.425) < 0.05 and abs(place.y / 100.0 - 1000.812) < 0.05
car.apply_ackermann_control(carla.VehicleAckermannControl(steer=0.05, speed=6.0))
for _ in range(300): world.tick()
assert abs(car.get_velocity().length() - 6.0) < 0.5
assert 1.0 < car.get_wheel_steer_angle(carla.VehicleWheelLocation.FL_Wheel) < 5.0
settings = car.get_ackermann_controller_settings(); settings.speed_kp = 0.3
car.apply_ackermann_controller_settings(settings)
assert abs(car.get_ackermann_controller_settings().speed_kp - 0.3) < 1e-6
told = car.get_telemetry_data()
assert abs(told.speed - car.get_velocity().length()) < 0.05 and len(told.wheels) == 4 and told.gear == car.get_control().gear
assert abs(sum(w.tire_load for w in told.wheels) - 2000.0 * 9.81) < 1.0 and abs(told.wheels[0].omega * 0.33 - told.speed) < 0.1
car.set_target_velocity(carla.Vector3D(0, 0, 0)); car.set_transform(at(0, 0)); car.apply_control(carla.VehicleControl(brake=1.0)); world.tick()
car.add_impulse(carla.Vector3D(2000.0 * 5.0, 0, 0)); world.tick()
assert 3.0 < car.get_velocity().x < 5.0
for _ in range(60): world.tick()
events = []
sensor = world.spawn_actor(library.find("sensor.other.collision"), carla.Transform(), attach_to=car); sensor.listen(events.append)
walker = world.spawn_actor(library.find("walker.pedestrian.0003"), at(car.get_location().x - 1000.0 + 8.0, car.get_location().y - 1000.0, z=1.0))
wall = world.spawn_actor(library.find("static.prop.streetbarrier"), at(car.get_location().x - 1000.0 + 25.0, car.get_location().y - 1000.0, yaw=90.0))
world.tick()
car.apply_control(carla.VehicleControl()); car.set_target_velocity(carla.Vector3D(14.0, 0, 0))
for _ in range(60): world.tick()
kinds = [e.other_actor.type_id for e in events]
assert walker.type_id in kinds and wall.type_id in kinds, kinds
assert len({(e.frame, e.other_actor.id) for e in events}) == len(events) and all(e.actor.id == car.id for e in events)
for _ in range(60): world.tick()
client.apply_batch_sync([carla.command.ApplyWalkerState(walker.id, at(50, 0, 90.0, 1.0), 1.5)], True)
world.tick()
assert 1000.1 < walker.get_location().y < 1000.3 and abs(walker.get_velocity().y - 1.5) < 1e-4
walker.set_simulate_physics(False); car.set_simulate_physics(False); car.set_collisions(False); car.set_enable_gravity(False); world.tick()
print("fine")
"""


def test_the_official_client_moves_bodies(tmp_path):
    pytest.importorskip("carla")
    done = run_pair(SERVER, CLIENT, tmp_path)
    assert done.returncode == 0 and done.stdout.strip().endswith("fine"), done.stderr[-2000:]


def test_bicycles_ride_round_a_corner_and_stay_on_the_road():
    bike = spawn(BIKE)
    call("apply_control_to_vehicle", bike, [1.0, 0.5, 0.0, False, False, False, 0])
    tick(200)
    vehicles = server().episode.vehicles
    assert 2.0 < vehicles.state[0, VX] < 12.5 and abs(vehicles.state[0, STEER]) > 0.1
    assert np.hypot(*place(bike)[:2]) < 40.0 and place(bike)[2] == pytest.approx(0.0, abs=1e-3)
