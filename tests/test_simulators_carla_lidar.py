"""LiDARs, radar and obstacle detector of the CARLA server: rays against surfaces of known place."""

import numpy as np
import pytest

pytest.importorskip("carla")
pytest.importorskip("msgpack")

import msgpack
from carla_world import CAR, World

from drive.simulators.carla_server.layouts import ServerError
from drive.simulators.carla_server.lidar import LABELLED, POINT
from drive.simulators.carla_server.poses import matrix
from drive.simulators.carla_server.sensor_radar import sweep
from drive.simulators.carla_server.sensor_rays import GROUND, NOTHING, Targets, ground_labels, shoot, targets

PLAIN = {"dropoff_general_rate": 0, "dropoff_intensity_limit": 0.001, "dropoff_zero_intensity": 0, "rotation_frequency": 20}


def read(payload: bytes, dtype: np.dtype) -> tuple[float, np.ndarray, np.ndarray]:
    """Angle, points of each channel, points."""
    angle, channels = np.frombuffer(payload[:4], "<f4")[0], int(np.frombuffer(payload[4:8], "<u4")[0])
    counts = np.frombuffer(payload[8 : 8 + 4 * channels], "<u4")
    points = np.frombuffer(payload[8 + 4 * channels :], dtype)
    assert len(points) == counts.sum()
    return float(angle), counts, points


def boxes_at_random(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.column_stack(
        [rng.uniform(-40, 40, (count, 2)), rng.uniform(0, 4, count), rng.uniform(-4, 4, count), rng.uniform(0.1, 6, (count, 3))]
    )


def slow_distance(origin, way, boxes) -> float:
    """Metres to the nearest box that is entered from outside, or the ground, by plain algebra over all faces."""
    best = -origin[2] / way[2] if way[2] < 0.0 else np.inf
    for x, y, z, yaw, *half in boxes:
        turn = np.array([[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        o, d = turn @ (origin - (x, y, z)), turn @ way
        for axis in range(3):
            side = -np.sign(d[axis]) * half[axis]  # the only face of this axis that the ray can enter
            t = (side - o[axis]) / d[axis]
            other = [k for k in range(3) if k != axis]
            if t >= 0.0 and all(abs(o[k] + t * d[k]) <= half[k] for k in other):
                best = min(best, t)
    return best


def test_rays_meet_what_plain_algebra_says():
    rng, met = np.random.default_rng(3), set()
    for _ in range(6):
        boxes = boxes_at_random(rng, 60)
        none = np.zeros(len(boxes))
        found = Targets(boxes, none.astype(np.uint32), none.astype(np.uint8), np.zeros((60, 3)), none.astype(bool))
        origin = np.array([*rng.uniform(-10, 10, 2), 2.0])
        ways = rng.normal(size=(300, 3))
        ways /= np.linalg.norm(ways, axis=1, keepdims=True)
        hits = shoot(found, origin, ways, np.full(300, 35.0))
        right = np.array([slow_distance(origin, way, boxes) for way in ways])
        right[right > 35.0] = np.inf
        np.testing.assert_allclose(hits.distance, right, atol=1e-9)
        assert ((hits.what == NOTHING) == np.isinf(right)).all()
        met |= set(hits.what.tolist())
    assert {GROUND, NOTHING} < met and len(met) > 30


def test_points_lie_on_surfaces_to_the_millimetre():
    world = World()
    ego, other = world.spawn(CAR, world.at(0)), world.spawn("vehicle.tesla.model3", world.at(13, 1, 30))
    walker = world.spawn("walker.pedestrian.0001", world.at(6, 3, 0, 0.93))
    lidar = world.spawn("sensor.lidar.ray_cast_semantic", [0.3, 0.1, 2.4, 3, 20, -2], ego, range=60, rotation_frequency=20,
                        points_per_second=80000)  # fmt: skip
    world.tick(3)
    (payload,) = world.payloads(lidar)
    _, _, points = read(payload, LABELLED)
    m = matrix(world.episode.pose(lidar.id))
    place = points["point"].astype(float) @ m[:3, :3].T + m[:3, 3]
    found = targets(world.episode)
    ground = np.isin(points["tag"], (1, 2, 10, 24))
    assert ground.sum() > 1000 and np.abs(place[ground, 2]).max() < 1e-3
    assert {ego.id, other.id, walker.id, 0} == set(points["actor"].tolist())  # its own roof too, as in CARLA
    assert set(points["tag"][points["actor"] == walker.id]) == {12} and set(points["tag"][points["actor"] == other.id]) == {14}
    gaps = np.empty((len(found.boxes), (~ground).sum()))
    for k, (x, y, z, yaw, *half) in enumerate(found.boxes):
        d = place[~ground] - (x, y, z)
        local = np.abs(
            np.column_stack(
                [np.cos(yaw) * d[:, 0] + np.sin(yaw) * d[:, 1], np.cos(yaw) * d[:, 1] - np.sin(yaw) * d[:, 0], d[:, 2]]
            )
        )
        gaps[k] = np.abs((local - half).max(1))  # 0 on the surface
    assert gaps.min(0).max() < 1e-3
    way = -points["point"] / np.linalg.norm(points["point"], axis=1, keepdims=True) @ m[:3, :3].T
    np.testing.assert_allclose(points["cosine"][ground], way[ground, 2], atol=1e-5)
    assert (points["cosine"] > 0.0).all() and (points["cosine"] <= 1.0).all()


def test_a_vehicle_is_met_from_outside_only():
    world = World()
    ego = world.spawn(CAR, world.at(0))
    attributes = {"range": 30, "rotation_frequency": 20, "lower_fov": -60}
    above = world.spawn("sensor.lidar.ray_cast_semantic", [0, 0, 2.0, 0, 0, 0], ego, **attributes)
    inside = world.spawn("sensor.lidar.ray_cast_semantic", [0, 0, 1.0, 0, 0, 0], ego, **attributes)
    world.tick()
    assert ego.id in read(world.payloads(above)[0], LABELLED)[2]["actor"]
    points = read(world.payloads(inside)[0], LABELLED)[2]
    assert ego.id not in points["actor"] and len(points) > 1000


@pytest.mark.parametrize(
    "tick, turns, sweep_deg", [(0.0, 20.0, 360.0), (0.0, 10.0, 360.0), (0.1, 10.0, 360.0), (0.0, 20.0, 90.0)]
)
def test_rays_turn_at_the_asked_rate(tick, turns, sweep_deg):
    world = World()
    ego = world.spawn(CAR, world.at(0))
    lidar = world.spawn("sensor.lidar.ray_cast", [0, 0, 2.5, 0, 0, 0], ego, **{**PLAIN, "rotation_frequency": turns}, range=100,
                        sensor_tick=tick, horizontal_fov=sweep_deg, upper_fov=-5)  # fmt: skip
    world.tick(2)
    period = max(tick, 0.05)
    angle, counts, points = read(world.payloads(lidar)[0], POINT)
    assert len(counts) == 32 and (counts == round(56000 * period / 32 + 1e-9)).all()  # all of them meet something below
    azimuth = np.degrees(np.arctan2(points["point"][:, 1], points["point"][:, 0]))
    part = min(turns * period, 1.0) * sweep_deg
    assert azimuth.min() == pytest.approx(-sweep_deg / 2.0, abs=0.01)
    assert azimuth.max() == pytest.approx(part - sweep_deg / 2.0, abs=part / 50.0)
    assert angle == pytest.approx(np.radians(turns * period * sweep_deg % sweep_deg), abs=1e-6)
    elevation = np.degrees(np.arcsin(points["point"][:, 2] / np.linalg.norm(points["point"], axis=1)))
    np.testing.assert_allclose(np.unique(elevation.round(3)), np.linspace(-30, -5, 32).round(3), atol=2e-3)


def test_intensity_and_losses():
    world = World()
    ego = world.spawn(CAR, world.at(0))
    mount = [0, 0, 2.5, 0, 0, 0]
    base = {**PLAIN, "range": 80, "points_per_second": 400000, "atmosphere_attenuation_rate": 0.01}
    plain = world.spawn("sensor.lidar.ray_cast", mount, ego, **base)
    thinned = world.spawn("sensor.lidar.ray_cast", mount, ego, **{**base, "dropoff_general_rate": 0.45})
    weak = world.spawn(
        "sensor.lidar.ray_cast", mount, ego, **{**base, "dropoff_intensity_limit": 0.8, "dropoff_zero_intensity": 0.4}
    )
    noisy = world.spawn("sensor.lidar.ray_cast", mount, ego, **base, noise_stddev=0.05, noise_seed=7)
    world.tick()
    points = {a.id: read(world.payloads(a)[0], POINT)[2] for a in (plain, thinned, weak, noisy)}
    exact = points[plain.id]
    distance = np.linalg.norm(exact["point"], axis=1)
    np.testing.assert_allclose(exact["intensity"], np.exp(-0.01 * distance), rtol=1e-5)
    assert len(points[thinned.id]) / len(exact) == pytest.approx(0.55, abs=0.02)
    faint = exact["intensity"] <= 0.8  # CARLA: kept with probability 0.4 / 0.8 I + 0.6 below the limit, always above it
    expected = (~faint).sum() + (0.5 * exact["intensity"][faint] + 0.6).sum()
    assert len(points[weak.id]) == pytest.approx(expected, rel=0.01) and len(points[weak.id]) < len(exact)
    off = np.linalg.norm(points[noisy.id]["point"], axis=1) - distance
    assert off.std() == pytest.approx(0.05, rel=0.05) and abs(off.mean()) < 0.003
    straight = (points[noisy.id]["point"] * exact["point"]).sum(1) / (distance * (distance + off))
    assert straight.min() > 1.0 - 1e-5  # the noise lies along the ray


def test_runs_of_one_seed_are_alike_to_the_byte():
    def run(seed: int, noise_seed: int) -> list[bytes]:
        world = World(seed=seed)
        ego = world.spawn(CAR, world.at(0))
        lidar = world.spawn("sensor.lidar.ray_cast", [0, 0, 2.5, 0, 0, 0], ego, range=50, noise_stddev=0.1, noise_seed=noise_seed)
        radar = world.spawn("sensor.other.radar", [2.5, 0, 1, 0, 0, 0], ego)
        found = []
        for _ in range(3):
            world.tick()
            found += [*world.payloads(lidar), *world.payloads(radar)]
        return found

    first = run(1, 2)
    assert first == run(1, 2)
    assert first[0] != run(1, 3)[0] and first[0] != run(2, 2)[0] and first[1] != run(2, 2)[1]


def test_ground_labels_are_those_of_the_cameras():
    world = World()
    ego = world.spawn(CAR, world.at(0))
    camera = world.spawn("sensor.camera.semantic_segmentation", [10, 0, 12, -90, 0, 0], ego, image_size_x=300, image_size_y=300)
    world.tick()
    seen = world.image(camera)[..., 2]
    m = matrix(world.episode.pose(camera.id))
    v, u = np.mgrid[0:300, 0:300] + 0.5
    way = np.stack([np.ones_like(u), (u - 150.0) / 150.0, (150.0 - v) / 150.0], -1).reshape(-1, 3) @ m[:3, :3].T
    place = m[:3, 3] - way * (m[2, 3] / way[:, 2])[:, None]
    told = ground_labels(world.episode.town.road_map, place[:, 0], place[:, 1]).reshape(300, 300)
    ground = np.isin(seen, (1, 2, 10, 24))
    shadow = np.hypot(place[:, 0] - world.start[0], place[:, 1] - world.start[1]).reshape(300, 300) < 4.0
    assert (told == seen)[ground & ~shadow].mean() > 0.95 and len(np.unique(told)) >= 3
    assert (ground_labels(world.episode.town.road_map, np.array([1e5]), np.array([0.0])) == 10).all()


def test_radar_tells_speed_and_direction():
    world = World()
    ego = world.spawn(CAR, world.at(0))
    other = world.spawn("vehicle.tesla.model3", world.at(30, 4, 180))
    radar = world.spawn("sensor.other.radar", [2.5, 0, 1, 0, 0, 0], ego, points_per_second=60000, vertical_fov=10)
    for car in (ego, other):
        world.episode.vehicles.cruise[world.episode.vehicles.row[car.id]] = (8.0, 0.0, 0.0)
    world.tick(2)
    world.payloads(radar)
    world.tick()
    found = np.frombuffer(world.payloads(radar)[0], "<f4").reshape(-1, 4).astype(float)
    velocity, azimuth, altitude, depth = found.T
    assert (
        len(found) > 500
        and (np.hypot(np.tan(azimuth) / np.tan(np.radians(15)), np.tan(altitude) / np.tan(np.radians(5))) < 1.02).all()
    )
    m = matrix(world.episode.pose(radar.id))
    way = np.column_stack([np.cos(altitude) * np.cos(azimuth), np.cos(altitude) * np.sin(azimuth), np.sin(altitude)])
    place = (way * depth[:, None]) @ m[:3, :3].T + m[:3, 3]
    pose = world.episode.pose(other.id)
    local = np.abs((place - pose[:3]) @ matrix(pose)[:3, :3] - other.centre)
    on_car = (local < np.array(other.extent) + 0.01).all(1) & (place[:, 2] > 0.01)
    assert on_car.sum() > 20 and (azimuth[on_car] > 0.0).all()  # to the right is positive
    np.testing.assert_allclose(velocity[on_car], -16.0 * way[on_car, 0], atol=0.05)  # both come closer
    still = np.abs(place[:, 2]) < 0.001
    np.testing.assert_allclose(velocity[still], -8.0 * way[still, 0], atol=0.05)


def test_obstacle_detector_measures_to_the_nearest_thing_ahead():
    world = World()
    ego, other = world.spawn(CAR, world.at(0)), world.spawn("vehicle.tesla.model3", world.at(20))
    near = world.spawn("sensor.other.obstacle", [2.5, 0, 1, 0, 0, 0], ego, distance=10)
    far = world.spawn("sensor.other.obstacle", [2.5, 0, 1, 0, 0, 0], ego, distance=30, hit_radius=0.25, only_dynamics="true")
    inside = world.spawn("sensor.other.obstacle", [0, 0, 1, 0, 0, 0], ego, distance=2)
    world.tick()
    assert world.payloads(near) == [] == world.payloads(inside)
    mine, there, distance = msgpack.unpackb(world.payloads(far)[0])
    assert (mine[0], there[0]) == (ego.id, other.id)
    assert distance == pytest.approx(20.0 - other.extent[0] - 2.5 - 0.25, abs=2e-3)


def test_obstacle_detector_sees_houses_unless_told_not_to():
    world = World()
    boxes = world.episode.town.scenery[0]
    house = boxes[np.argmax(boxes[:, 3])]
    away = np.array([np.cos(house[2]), np.sin(house[2])])
    pose = [*(house[:2] - (house[3] + 2.0) * away), 1.0, 0.0, np.degrees(house[2]), 0.0]
    all_things = world.spawn("sensor.other.obstacle", pose, distance=3)
    cars_only = world.spawn("sensor.other.obstacle", pose, distance=3, only_dynamics="true")
    world.tick()
    _, there, distance = msgpack.unpackb(world.payloads(all_things)[0])
    assert there[2][1] == "static.building" and there[0] == 0 and distance == pytest.approx(1.5, abs=2e-3)
    assert world.payloads(cars_only) == []


def test_a_sphere_stops_where_it_touches():
    box = np.array([[10.0, 0.0, 1.0, 0.5, 1.0, 1.0, 1.0]])
    way = np.array([1.0, 0.0, 0.0])
    assert sweep(np.array([0.0, 30.0, 1.0]), way, 50.0, 1.0, box) == (50.0, -1)
    corner = 10.0 + np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]]) @ np.array([-1.0, 1.0]) * (1, 0)
    y = float((np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]]) @ np.array([-1.0, 1.0]))[1])
    gone, row = sweep(np.array([0.0, y + 0.5, 1.0]), way, 50.0, 0.0, box + (0, 0.5, 0, 0, 0, 0, 0))
    assert row == 0 and gone == pytest.approx(corner[0], abs=1e-3)


@pytest.mark.parametrize(
    "kind, attributes",
    [
        ("lidar.ray_cast", {"channels": 0}),
        ("lidar.ray_cast", {"range": -1}),
        ("lidar.ray_cast", {"points_per_second": "many"}),
        ("lidar.ray_cast", {"horizontal_fov": 400}),
        ("lidar.ray_cast", {"noise_stddev": -1}),
        ("lidar.ray_cast", {"sensor_tick": -0.1}),
        ("lidar.ray_cast_semantic", {"range": "nan"}),
        ("other.radar", {"horizontal_fov": 180}),
        ("other.radar", {"points_per_second": -5}),
        ("other.obstacle", {"distance": 0}),
        ("other.obstacle", {"hit_radius": -1}),
    ],
)
def test_attributes_without_sense_are_refused(kind, attributes):
    world = World()
    before = len(world.episode.actors)
    with pytest.raises(ServerError):
        world.spawn(f"sensor.{kind}", np.zeros(6), **attributes)
    assert len(world.episode.actors) == before


def test_no_more_points_than_a_message_can_hold():
    world = World()
    lidar = world.spawn("sensor.lidar.ray_cast_semantic", world.at(0, up=2), points_per_second=10**12, channels=1, range=5)
    none = world.spawn("sensor.lidar.ray_cast_semantic", world.at(0, up=2), points_per_second=10)
    world.tick()
    assert len(world.payloads(lidar)[0]) < 60_000_000
    assert world.payloads(none) == []
