"""Cameras, GNSS and IMU of the CARLA server against the world's truth, and every sensor through the official client."""

import json

import numpy as np
import pytest

pytest.importorskip("carla")
pytest.importorskip("msgpack")

import msgpack
import shapely
from carla_client import run_pair
from carla_world import CAR, World, corners, project

from drive.simulators.carla_server.episode import LIBRARY
from drive.simulators.carla_server.inertial import geolocation, mercator, rotation_vector
from drive.simulators.carla_server.layouts import Actor, ServerError
from drive.simulators.carla_server.poses import matrix

SIZE, FOV = 240, 90.0
CAMERAS = ("rgb", "depth", "semantic_segmentation", "instance_segmentation")
MOUNTS = {  # of the camera on the car, and where the other car stands in the car's frame
    "roof": ([0.3, 0.0, 1.7, 0, 0, 0], (12.0, 2.0, 20.0)),
    "pitched down": ([0.0, 0.3, 2.2, -25, 0, 0], (6.0, 1.0, -70.0)),
    "pitched up": ([0.0, 0.0, 1.0, 12, 0, 0], (8.0, 0.0, 45.0)),
    "left": ([0.0, -0.5, 1.7, 0, -90, 0], (0.5, -9.0, 10.0)),
    "rear": ([-1.0, 0.0, 1.8, -5, 180, 0], (-11.0, 1.0, 150.0)),
    "rolled": ([0.3, 0.0, 1.7, -3, 15, 35], (10.0, 3.0, 90.0)),
    "chase": ([-7.0, 0.0, 4.0, -15, 0, 0], (9.0, -3.0, 0.0)),
}


def two_cars(mount, place) -> tuple[World, dict, Actor, Actor]:
    world = World()
    ego, other = world.spawn(CAR, world.at(0)), world.spawn("vehicle.tesla.model3", world.at(*place))
    size = {"image_size_x": SIZE, "image_size_y": SIZE, "fov": FOV}
    cameras = {kind: world.spawn(f"sensor.camera.{kind}", mount, ego, **size) for kind in CAMERAS}
    world.tick(2)
    return world, cameras, ego, other


def ids_of(image: np.ndarray) -> np.ndarray:
    return image[..., 1].astype(int) + 256 * image[..., 0].astype(int)


@pytest.mark.parametrize("name", MOUNTS)
def test_a_projected_box_lands_on_its_pixels_in_every_channel(name):
    world, cameras, _, other = two_cars(*MOUNTS[name])
    images = {kind: world.image(camera) for kind, camera in cameras.items()}
    depth = world.depth(cameras["depth"])
    uvd = project(world, cameras["rgb"], corners(world, other), SIZE, FOV)
    assert (uvd[:, 2] > 0.5).all() and ((uvd[:, :2] > 0) & (uvd[:, :2] < SIZE)).all(), uvd
    hull = shapely.MultiPoint(uvd[:, :2]).convex_hull
    mine = ids_of(images["instance_segmentation"]) == other.id
    rows, columns = np.nonzero(mine)
    pixels = shapely.points(columns + 0.5, rows + 0.5)
    assert shapely.dwithin(hull, pixels, 1.5).all() and mine.sum() > 0.5 * hull.area
    low, high = uvd[:, :2].min(0), uvd[:, :2].max(0)
    np.testing.assert_allclose([columns.min(), rows.min()], low, atol=0.1 * (high - low).max() + 1.0)
    np.testing.assert_allclose([columns.max() + 1, rows.max() + 1], high, atol=0.1 * (high - low).max() + 1.0)
    assert (images["semantic_segmentation"][mine] == (0, 0, 14, 255)).all()
    assert (images["instance_segmentation"][mine][:, 2] == 14).all()
    assert depth[mine].min() > uvd[:, 2].min() - 0.05 and depth[mine].max() < uvd[:, 2].max() + 0.05
    with_car = images["rgb"].astype(int)
    world.episode.destroy(other.id)
    world.tick()
    without = world.image(cameras["rgb"]).astype(int)
    assert (np.abs(with_car - without).max(2)[mine] > 3).mean() > 0.9
    far = shapely.distance(hull, shapely.points(*np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5))) > 0.3 * SIZE
    assert (with_car == without)[far].all()


@pytest.mark.parametrize("mount", [[0.3, 0, 1.7, 0, 0, 0], [0, 0, 2.0, -20, 30, 10], [-6, 0, 3, -10, 0, 0]])
def test_depth_of_the_road_is_that_of_the_plane(mount):
    world, cameras, _, _ = two_cars(mount, (40.0, 0.0, 0.0))
    depth, semantic = world.depth(cameras["depth"]), world.image(cameras["semantic_segmentation"])[..., 2]
    m = matrix(world.episode.pose(cameras["depth"].id))
    v, u = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    focal = SIZE / 2.0 / np.tan(np.radians(FOV) / 2.0)
    fall = -(m[2, 0] + m[2, 1] * (u - SIZE / 2) / focal + m[2, 2] * (SIZE / 2 - v) / focal)  # m per m of depth
    road = np.isin(semantic, (1, 24)) & (m[2, 3] / np.maximum(fall, 1e-9) < 100.0)
    assert road.sum() > 2000
    np.testing.assert_allclose(depth[road], m[2, 3] / fall[road], rtol=1e-5, atol=1e-4)
    sky = semantic == 11
    assert sky.sum() > 500 and (depth[sky] == 1000.0).all()


def test_own_car_is_hidden_only_from_cameras_inside():
    world = World()
    ego = world.spawn(CAR, world.at(0))
    shown, mounts = {}, {"dash": [0.5, 0, 1.2, 0, 0, 0], "chase": [-6, 0, 3, -15, 0, 0], "above": [0, 0, 9, -90, 0, 0]}
    for name, mount in mounts.items():
        camera = world.spawn("sensor.camera.instance_segmentation", mount, ego, image_size_x=100, image_size_y=100)
        world.tick()
        shown[name] = (ids_of(world.image(camera)) == ego.id).sum()
    assert shown["dash"] == 0 and shown["chase"] > 200 and shown["above"] > 200
    free = world.spawn("sensor.camera.instance_segmentation", world.at(0, up=1.2), image_size_x=100, image_size_y=100)
    world.tick()
    assert (ids_of(world.image(free)) == ego.id).any()  # a camera of nobody's hides nothing


def test_labels_are_carlas():
    world = World()
    placed = {
        "vehicle.kawasaki.ninja": 18,
        "vehicle.bh.crossbike": 19,
        "walker.pedestrian.0001": 12,
        "vehicle.audi.a2": 14,
    }
    actors = [
        (world.spawn(k, world.at(8 + 3 * i, 3 * i - 4, 0, 0.93 if k[0] == "w" else 0)), placed[k]) for i, k in enumerate(placed)
    ]
    size = {"image_size_x": SIZE, "image_size_y": SIZE}
    camera = world.spawn("sensor.camera.instance_segmentation", world.at(0, up=2.0), None, **size)
    world.tick()
    image = world.image(camera)
    for actor, tag in actors:
        mine = ids_of(image) == actor.id
        assert mine.sum() > 20 and (image[mine][:, 2] == tag).all(), actor.type_id
    assert {1, 11} < set(np.unique(image[..., 2]).tolist()) < {1, 2, 3, 6, 7, 9, 10, 11, 12, 14, 18, 19, 20, 24}


def test_actors_put_out_of_the_way_are_not_seen():
    world, cameras, _, other = two_cars(*MOUNTS["roof"])
    assert (ids_of(world.image(cameras["instance_segmentation"])) == other.id).any()
    world.episode.vehicles.free[world.episode.vehicles.row[other.id]] = False
    world.episode.put(other.id, world.episode.pose(other.id) + (0, 0, -500, 0, 0, 0))  # as scenario_runner hides them
    world.tick()
    assert not (ids_of(world.image(cameras["instance_segmentation"])) == other.id).any()


def test_the_scene_is_put_together_once_a_frame(monkeypatch):
    world, cameras, _, _ = two_cars(*MOUNTS["roof"])
    world.episode._scene = None
    made = []
    ground = world.episode.town.ground
    monkeypatch.setattr(world.episode.town, "ground", lambda *a: made.append(len(a[0])) or ground(*a))
    for camera in cameras.values():
        world.image(camera)
    assert made.count(2) == 1  # the boxes of two cars; one place at a time is a camera's own
    before = world.episode.scene
    world.tick()
    assert world.episode.scene is not before


@pytest.mark.parametrize(
    "attributes", [{"image_size_x": 0}, {"image_size_y": 5000}, {"fov": 180}, {"fov": "wide"}, {"sensor_tick": -1}]
)
def test_cameras_refuse_attributes_without_sense(attributes):
    world = World()
    for kind in CAMERAS:
        with pytest.raises(ServerError):
            world.spawn(f"sensor.camera.{kind}", np.zeros(6), **attributes)


@pytest.mark.parametrize("kind", ["camera.dvs", "camera.optical_flow", "camera.normals", "other.rss", "other.v2x"])
def test_sensors_that_are_not_there_are_not_listed(kind):
    assert f"sensor.{kind}" not in {blueprint.id for blueprint in LIBRARY}
    with pytest.raises(ServerError, match=rf"unknown blueprint 'sensor\.{kind}'"):
        World().spawn(f"sensor.{kind}", np.zeros(6))


def test_library_has_carlas_attributes_and_defaults():
    found = {blueprint.id: {a.name: a.value for a in blueprint.attributes} for blueprint in LIBRARY}
    lidar, rgb = found["sensor.lidar.ray_cast"], found["sensor.camera.rgb"]
    assert lidar | {"channels": "32", "range": "10.0", "points_per_second": "56000", "dropoff_general_rate": "0.45"} == lidar
    assert lidar | {"upper_fov": "10.0", "lower_fov": "-30.0", "horizontal_fov": "360.0", "rotation_frequency": "10.0"} == lidar
    assert "noise_seed" in lidar and "noise_seed" not in found["sensor.lidar.ray_cast_semantic"]
    assert rgb | {"image_size_x": "800", "image_size_y": "600", "fov": "90.0", "gamma": "2.2", "sensor_tick": "0.0"} == rgb
    assert found["sensor.other.obstacle"]["hit_radius"] == "0.5" and found["sensor.other.radar"]["range"] == "100.0"
    assert "sensor_tick" not in found["sensor.other.collision"]


def imu_of(world: World, imu) -> tuple[np.ndarray, np.ndarray, float]:
    felt, spin, compass = msgpack.unpackb(world.payloads(imu)[0])
    return np.array(felt), np.array(spin), compass


@pytest.mark.parametrize("pitch, roll", [(0, 0), (30, 0), (0, 20), (-10, 50)])
def test_imu_at_rest_feels_gravity_in_its_own_frame(pitch, roll):
    world = World()
    ego = world.spawn(CAR, world.at(0))
    imu = world.spawn("sensor.other.imu", [0, 0, 1, pitch, 0, roll], ego)
    world.tick(20)
    world.payloads(imu)
    world.tick()
    felt, spin, compass = imu_of(world, imu)
    up = matrix([0, 0, 0, pitch, 0, roll])[:3, :3].T @ (0.0, 0.0, 9.81)
    np.testing.assert_allclose(felt, up, atol=1e-3)
    np.testing.assert_allclose(spin, 0.0, atol=1e-4)
    assert compass == pytest.approx((np.radians(world.start[4]) + np.pi / 2) % (2 * np.pi), abs=1e-4)


def test_imu_in_a_steady_turn_and_under_brakes():
    world = World()
    ego = world.spawn(CAR, world.at(0))
    row = world.episode.vehicles.row[ego.id]
    middle, front = (world.spawn("sensor.other.imu", [x, 0, 0.5, 0, 0, 0], ego) for x in (0.0, 2.0))
    side = world.spawn("sensor.other.imu", [0, 0, 0.5, 0, 0, 90], ego)
    vehicles = world.episode.vehicles
    vehicles.set_velocity(
        ego.id, (8.0 * np.array([np.cos(np.radians(world.start[4])), np.sin(np.radians(world.start[4])), 0.0])).tolist()
    )
    vehicles.apply(ego.id, [0.35, 0.2, 0.0, False, False, False, 0])
    for _ in range(30):
        world.tick()
        readings = {a.id: imu_of(world, a) for a in (middle, front, side)}
    rate = np.radians(float(vehicles.records["angular"][row, 2]))
    speed = float(np.hypot(*vehicles.records["velocity"][row, :2]))
    felt, spin, _ = readings[middle.id]
    assert rate > 0.1 and spin[2] == pytest.approx(rate, rel=0.02)  # to the right, as yaw counts
    assert np.hypot(felt[0], felt[1]) == pytest.approx(rate * speed, rel=0.12) and felt[1] > 0.0
    assert readings[front.id][0][0] - felt[0] == pytest.approx(-2.0 * rate**2, abs=0.05)  # swung round the middle
    np.testing.assert_allclose(readings[side.id][1], (0.0, -spin[2], 0.0), atol=1e-3)  # lying on its right side, y points down
    vehicles.apply(ego.id, [0.0, 0.0, 0.6, False, False, False, 0])
    world.tick(8)
    imu_of(world, middle)
    before = float(np.hypot(*vehicles.records["velocity"][row, :2]))
    world.tick()
    felt = imu_of(world, middle)[0]
    slowed = (float(np.hypot(*vehicles.records["velocity"][row, :2])) - before) / 0.05
    assert slowed < -2.0 and felt[0] == pytest.approx(slowed, abs=0.15)


def test_rotation_vector_of_a_known_turn():
    rng = np.random.default_rng(0)
    for _ in range(50):
        vector = rng.normal(size=3)
        vector *= rng.uniform(1e-6, 3.0) / np.linalg.norm(vector)
        angle, (x, y, z) = np.linalg.norm(vector), vector / np.linalg.norm(vector)
        k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        turn = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
        np.testing.assert_allclose(rotation_vector(turn), vector, atol=1e-7)
    assert (rotation_vector(np.eye(3)) == 0.0).all()


def test_noise_of_imu_and_gnss_has_the_asked_spread_bias_and_seed():
    def run(seed: int) -> tuple[np.ndarray, np.ndarray]:
        world = World()
        ego = world.spawn(CAR, world.at(0))
        imu = world.spawn("sensor.other.imu", np.zeros(6), ego, noise_accel_stddev_x=0.5, noise_gyro_stddev_z=0.1,
                          noise_gyro_bias_y=0.3, noise_seed=seed)  # fmt: skip
        gnss = world.spawn("sensor.other.gnss", np.zeros(6), ego, noise_lat_stddev=1e-4, noise_lon_bias=2e-4, noise_alt_stddev=2,
                           noise_seed=seed)  # fmt: skip
        world.tick(2)
        felt = [np.concatenate(imu_of(world, imu)[:2]) for _ in range(2000)]
        return np.array(felt), np.array([msgpack.unpackb(world.payloads(gnss)[0]) for _ in range(2000)])

    felt, place = run(1)
    np.testing.assert_allclose(felt.std(0), (0.5, 0, 0, 0, 0, 0.1), rtol=0.06, atol=1e-6)
    assert felt[1:, 4].mean() == pytest.approx(0.3, abs=1e-3)
    x, y = World().start[:2]
    clean = geolocation(float(x), float(y), 0.0, 0.0)
    np.testing.assert_allclose(place.std(0), (1e-4, 0.0, 2.0), rtol=0.06, atol=1e-12)
    assert place[:, 1].mean() - clean[1] == pytest.approx(2e-4, abs=1e-7) and abs(place[:, 0].mean() - clean[0]) < 1e-5
    again, other = run(1), run(2)
    assert (again[0] == felt).all() and (again[1] == place).all() and (other[1] != place).any()
    with pytest.raises(ServerError, match="standard deviation"):
        World().spawn("sensor.other.imu", np.zeros(6), noise_accel_stddev_x=-1)


def test_projections_at_known_places():
    # spherical Mercator: a degree of longitude at the equator is 111319.4908 m, latitude 1 degree lies 111325.1429 m north (EPSG:3857)
    np.testing.assert_allclose(mercator(111319.49079327358, -111325.14286638486, 0.0, 0.0), (1.0, 1.0), atol=1e-9)
    latitude, longitude = mercator(0.0, 0.0, 49.0, 8.0)
    assert (latitude, longitude) == pytest.approx((49.0, 8.0), abs=1e-9)
    assert mercator(0.0, -100.0, 49.0, 8.0)[0] - 49.0 == pytest.approx(np.degrees(100.0 / 6378137.0), rel=1e-4)
    # transverse Mercator on the sphere: along the central meridian a distance is an arc, over 0.9996
    arc = np.radians(1.0) * 6378137.0 * 0.9996
    assert geolocation(0.0, arc, 10.0, 20.0) == pytest.approx((11.0, 20.0), abs=1e-9)
    assert geolocation(0.0, 0.0, 49.0, 8.0) == pytest.approx((49.0, 8.0), abs=1e-12)
    east = geolocation(1000.0, 0.0, 60.0, 0.0)
    assert east[1] == pytest.approx(np.degrees(1000.0 / 6378137.0 / 0.9996 / 0.5), rel=1e-4) and east[0] < 60.0


@pytest.mark.parametrize("version, sign", [("0.9.16", 1.0), ("0.9.15", -1.0)])
def test_gnss_follows_the_projection_of_the_chosen_version(version, sign):
    world = World(gnss=version)
    gnss = world.spawn("sensor.other.gnss", [100.0, 50.0, 7.0, 0, 0, 0])
    world.tick()
    latitude, longitude, altitude = msgpack.unpackb(world.payloads(gnss)[0])
    assert altitude == 7.0 and np.sign(latitude) == sign and longitude == pytest.approx(np.degrees(100.0 / 6378137.0), rel=1e-3)


CLIENT = """
import json, math, sys, time
import carla, numpy as np
client = carla.Client("127.0.0.1", int(sys.argv[1])); client.set_timeout(120.0)
world = client.get_world(); library = world.get_blueprint_library(); map_ = world.get_map()
settings = world.get_settings(); settings.synchronous_mode = True; settings.fixed_delta_seconds = 0.05; world.apply_settings(settings)
start = map_.get_spawn_points()[5]
car = world.spawn_actor(library.find("vehicle.lincoln.mkz_2020"), start); world.tick()
ahead = start.get_forward_vector()
there = carla.Transform(start.location + carla.Location(x=25 * ahead.x, y=25 * ahead.y), start.rotation)
other = world.spawn_actor(library.find("vehicle.tesla.model3"), there); world.tick()
got, sensors = {}, []
def add(kind, x=0.0, z=0.0, **attributes):
    blueprint = library.find("sensor." + kind)
    for name, value in attributes.items(): blueprint.set_attribute(name, str(value))
    sensor = world.spawn_actor(blueprint, carla.Transform(carla.Location(x=x, z=z)), attach_to=car)
    got[kind] = []; sensor.listen(got[kind].append); sensors.append(sensor)
size = dict(image_size_x=64, image_size_y=48)
for kind in ("rgb", "depth", "semantic_segmentation", "instance_segmentation"): add("camera." + kind, 0.3, 1.7, **size)
add("lidar.ray_cast", 0, 2.5, range=50, rotation_frequency=20); add("lidar.ray_cast_semantic", 0, 2.5, range=50, rotation_frequency=20)
add("other.radar", 2.5, 1.0, points_per_second=6000); add("other.obstacle", 2.5, 1.0, distance=40)
add("other.gnss"); add("other.imu"); add("other.lane_invasion")
frames = []
for _ in range(70):
    car.apply_control(carla.VehicleControl(throttle=0.5, steer=-0.12)); frames.append(world.tick())
for _ in range(100):
    if all(len(got[k]) == 70 for k in got if k.startswith(("camera", "lidar")) or k in ("other.radar", "other.gnss", "other.imu")): break
    time.sleep(0.05)
out = {"counts": {k: len(v) for k, v in got.items()}, "frames": frames,
       "in_step": all([d.frame for d in got[k]] == frames for k in got if k not in ("other.lane_invasion", "other.obstacle"))}
scan = got["lidar.ray_cast"][3]
out["lidar"] = [len(scan), scan.channels, sum(scan.get_point_count(k) for k in range(scan.channels)), len(bytes(scan.raw_data)) // 16]
points = np.frombuffer(bytes(scan.raw_data), np.float32).reshape(-1, 4)
out["first"] = [float(points[0][k] - getattr(scan[0].point, "xyz"[k])) for k in range(3)] + [float(points[0][3] - scan[0].intensity)]
m = got["lidar.ray_cast_semantic"][3]
out["tags"] = sorted({d.object_tag for d in m}); out["ids"] = sorted({d.object_idx for d in m}); out["cars"] = [car.id, other.id]
out["cos"] = [min(d.cos_inc_angle for d in m), max(d.cos_inc_angle for d in m)]
echo = got["other.radar"][3]
out["radar"] = [len(echo), min(d.depth for d in echo), max(d.depth for d in echo), max(abs(d.azimuth) for d in echo)]
event = got["other.obstacle"][0]
out["obstacle"] = [event.actor.id, event.other_actor.id, event.distance]
crossing = got["other.lane_invasion"]
out["invasion"] = [len(event.crossed_lane_markings) for event in crossing]
fix = got["other.gnss"][-1]; location = fix.transform.location; told = map_.transform_to_geolocation(location)
out["gnss"] = [fix.latitude - told.latitude, fix.longitude - told.longitude, fix.altitude - told.altitude]
if hasattr(map_, "geolocation_to_transform"):
    back = map_.geolocation_to_transform(carla.GeoLocation(fix.latitude, fix.longitude, fix.altitude))
    out["back"] = [back.x - location.x, back.y - location.y] if hasattr(back, "x") else []
depth = np.frombuffer(bytes(got["camera.depth"][3].raw_data), np.uint8).reshape(48, 64, 4); out["alpha"] = int(depth[..., 3].min())
try: library.find("sensor.camera.dvs"); out["dvs"] = True
except IndexError: out["dvs"] = False
for sensor in sensors: sensor.stop()
world.tick()
for sensor in sensors: sensor.destroy()
world.tick(); print(json.dumps(out), flush=True)
"""

SERVER = """
import sys
from drive.simulators.carla_server.server import ServerConfig, serve
serve(ServerConfig(map="test_c", synchronous=True, port=int(sys.argv[1])), started=lambda s: print("up", flush=True))
"""


def test_the_official_client_reads_every_sensor(tmp_path):
    done = run_pair(SERVER, CLIENT, tmp_path)
    assert done.stdout.startswith("{"), done.stderr[-2000:]
    out = json.loads(done.stdout.splitlines()[0])
    assert out["in_step"] and len(out["frames"]) == 70, out["counts"]  # every image has the frame of its tick
    points, channels, counted, sized = out["lidar"]
    assert points == counted == sized and points > 200 and channels == 32 and out["first"] == [0.0] * 4
    assert {1, 14} <= set(out["tags"]) and set(out["cars"]) <= set(out["ids"]) and 0.0 < out["cos"][0] < out["cos"][1] <= 1.0
    assert out["radar"][0] > 50 and 0.0 < out["radar"][1] < out["radar"][2] < 105.0 and out["radar"][3] < np.radians(15.1)
    assert out["obstacle"][:2] == out["cars"] and out["obstacle"][2] == pytest.approx(25.0 - 2.347 - 2.5 - 0.5, abs=0.05)
    assert out["invasion"] and min(out["invasion"]) >= 1
    np.testing.assert_allclose(out["gnss"], 0.0, atol=1e-9)
    np.testing.assert_allclose(out.get("back", []), 0.0, atol=0.01)
    assert out["alpha"] == 255 and out["dvs"] is False
