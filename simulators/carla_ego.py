"""The ego car in a CARLA world: spawned, seen, steered. CARLA's frame stays inside this module."""

from __future__ import annotations

import math
import queue
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DriveError
from drive.core.geometry import compose
from drive.core.types import Camera, EgoState
from drive.core.vehicle import VehicleParams
from drive.simulators.carla_control import CarResponse
from drive.simulators.carla_session import Session

Array = NDArray[np.float64]
BLUEPRINT = "vehicle.lincoln.mkz_2020"
IMAGE_WAIT_S = 20.0


class CarlaEgo:
    """One car with its cameras; poses are of the rear axle, right-handed."""

    noise = (0.0, 0.0)  # that a scenario lays on the throttle and, positive to the left, on the wheel

    def __init__(self, session: Session, pose_world: Array, cameras: tuple[Camera, ...], image_every_s: float, height: float = 0.0) -> None:
        """`pose_world` (3,); `height` of the road there, m. Raises DriveError where there is no room."""
        self.session = session
        carla, world = session.carla, session.world
        blueprint = world.get_blueprint_library().find(BLUEPRINT)
        blueprint.set_attribute("role_name", "hero")
        self.rear = 1.425  # m from the rear axle to the middle of the box, the MKZ's until the physics are known
        x, y, heading = compose(pose_world, np.array([self.rear, 0.0, 0.0]))
        transform = carla.Transform(carla.Location(x, -y, height + 0.3), carla.Rotation(yaw=-math.degrees(heading)))
        actor = world.try_spawn_actor(blueprint, transform)
        if actor is None:
            raise DriveError(f"no room for the ego at {x:.1f}, {y:.1f} of {world.get_map().name}")
        self.actor = session.keep(actor)
        world.tick()
        self.measure()
        self.cameras = cameras
        self._frames: list[queue.Queue] = [queue.Queue() for _ in cameras]
        for camera, frames in zip(cameras, self._frames):
            self._mount(camera, frames, image_every_s)
        self.collisions: deque[tuple[int, int, str, float]] = deque()  # frame, other's id, its type, N s
        sensor = session.keep(world.spawn_actor(world.get_blueprint_library().find("sensor.other.collision"), carla.Transform(), attach_to=actor))
        sensor.listen(self._hit)

    def measure(self) -> None:
        """Take the car's own figures from its actor: pedals, wheel, box."""
        physics = self.actor.get_physics_control()
        steer = max((math.radians(w.max_steer_angle) for w in physics.wheels), default=0.0)
        curve = tuple((p.x, p.y) for p in physics.steering_curve) or CarResponse.curve
        self.response = CarResponse(mass=physics.mass or CarResponse.mass, max_steer=steer or CarResponse.max_steer, curve=curve)
        extent = self.actor.bounding_box.extent
        self.vehicle = VehicleParams(2.0 * extent.y, extent.x + self.rear, extent.x - self.rear, 2.0 * self.rear, 2.0 * extent.z)
        self._wheel = 0.0  # rad, left positive

    def _hit(self, event: Any) -> None:
        impulse = event.normal_impulse
        self.collisions.append((event.frame, event.other_actor.id, event.other_actor.type_id, math.hypot(impulse.x, impulse.y)))

    def _mount(self, camera: Camera, frames: queue.Queue, every_s: float) -> None:
        carla, world = self.session.carla, self.session.world
        blueprint = world.get_blueprint_library().find("sensor.camera.rgb")
        mount = mounting(camera, self.rear)
        settings = {"image_size_x": camera.width, "image_size_y": camera.height, "fov": mount["fov"], "sensor_tick": every_s}
        for key, value in settings.items():
            blueprint.set_attribute(key, str(value))
        rotation = carla.Rotation(**{key: mount[key] for key in ("pitch", "yaw", "roll")})
        place = carla.Location(**{key: mount[key] for key in "xyz"})
        sensor = self.session.keep(world.spawn_actor(blueprint, carla.Transform(place, rotation), attach_to=self.actor))
        sensor.listen(lambda image: frames.put((image.frame, _rgb(image))))

    def images(self, frame: int) -> NDArray[np.uint8]:
        """(C, H, W, 3) of `frame`, at which the cameras must have been due. Raises DriveError where one stays away."""
        found = []
        for camera, frames in zip(self.cameras, self._frames):
            while True:
                try:
                    number, image = frames.get(timeout=IMAGE_WAIT_S)
                except queue.Empty:
                    raise DriveError(f"camera {camera.name} sent no image of frame {frame} within {IMAGE_WAIT_S:g} s") from None
                if number >= frame:
                    found.append(image)
                    break
        return np.stack(found)

    def state(self) -> Array:
        """(11,) as in drive.core.vehicle, of the last snapshot."""
        transform, velocity, spin = self.actor.get_transform(), self.actor.get_velocity(), self.actor.get_angular_velocity()
        heading = -math.radians(transform.rotation.yaw)
        middle = np.array([transform.location.x, -transform.location.y, heading])
        c, s = math.cos(heading), math.sin(heading)
        forward, left = c * velocity.x - s * velocity.y, -s * velocity.x - c * velocity.y
        rate = -math.radians(spin.z)
        acceleration = self.actor.get_acceleration()
        state = np.zeros(11)
        state[:3] = compose(middle, np.array([-self.rear, 0.0, 0.0]))
        state[3], state[4] = forward, left - self.rear * rate
        state[5], state[6] = c * acceleration.x - s * acceleration.y, -s * acceleration.x - c * acceleration.y
        state[7], state[9] = self._wheel, rate
        return state

    def ego_state(self, state: Array, time_s: float) -> EgoState:
        """The state (11,) as drive's planners see it."""
        return EgoState(state[:3].copy(), state[3:5].copy(), state[5:7].copy(), float(state[9]), float(state[7]), time_s)

    def apply(self, throttle: float, steer: float, brake: float) -> None:
        """Pedals 0..1 and wheel -1..1, positive to the left."""
        if any(self.noise):
            throttle, steer = min(max(throttle + self.noise[0], 0.0), 1.0), min(max(steer + self.noise[1], -1.0), 1.0)
        self._wheel = steer * self.response.lock(self.speed())
        self.send(self.session.carla.VehicleControl(throttle=throttle, steer=-steer, brake=brake))

    def speed(self) -> float:
        """m/s, never negative."""
        velocity = self.actor.get_velocity()
        return math.hypot(velocity.x, velocity.y)

    def send(self, control: Any) -> None:
        """Hand a carla.VehicleControl to the car."""
        self.actor.apply_control(control)


def mounting(camera: Camera, rear: float) -> dict[str, float]:
    """Where a camera sits in CARLA's frame, m and degrees, and its fov; `rear` m from the rear axle to the car's origin."""
    pose = camera.ego_from_camera
    forward, right = pose[:3, 2], pose[:3, 0]
    return {
        "x": float(pose[0, 3]) - rear,
        "y": -float(pose[1, 3]),
        "z": float(pose[2, 3]),
        "pitch": math.degrees(math.asin(forward[2])),
        "yaw": -math.degrees(math.atan2(forward[1], forward[0])),
        "roll": -math.degrees(math.asin(np.clip(right[2], -1.0, 1.0))),
        "fov": 2.0 * math.degrees(math.atan(camera.width / 2.0 / camera.intrinsics[0, 0])),
    }


def _rgb(image: Any) -> NDArray[np.uint8]:
    pixels = np.frombuffer(image.raw_data, np.uint8).reshape(image.height, image.width, 4)
    return np.ascontiguousarray(pixels[..., 2::-1])
