"""A car and a world that somebody else runs, seen as CarlaSimulator sees its own: CARLA's evaluators spawn, tick and hand over the readings.

Facts: leaderboard 2.x and Bench2Drive, `agent_wrapper.py` and `sensor_interface.py`: input_data is {id: (frame, data)}; a camera gives
(H, W, 4) BGRA, the GNSS latitude, longitude and height, the IMU acceleration, turn rate and compass, the speedometer {"speed": m/s}.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DriveError
from drive.core.geometry import compose, wrap_angle
from drive.core.types import Camera
from drive.simulators.carla_ego import CarlaEgo, mounting
from drive.simulators.carla_global_plan import GlobalPlan
from drive.simulators.carla_session import Session, carla_module

Array = NDArray[np.float64]
REAR = 1.425  # m from the rear axle to the middle of the MKZ, which the evaluators drive
DT = 0.05  # s of the evaluators' ticks
TRUST, REACH = 0.01, 5.0  # of a GNSS reading (0.5 m of noise there) a tick; m from the odometry beyond which it is not believed
SPEED, IMU, GNSS = "drive_speed", "drive_imu", "drive_gnss"  # ids


def sensors(cameras: tuple[Camera, ...], sensing: bool) -> list[dict[str, Any]]:
    """What an agent asks the evaluators for; `sensing`: also what its own motion is told from."""
    found: list[dict[str, Any]] = [
        {"type": "sensor.camera.rgb", "id": c.name, "width": c.width, "height": c.height, **mounting(c, REAR)} for c in cameras
    ]
    found.append({"type": "sensor.speedometer", "id": SPEED, "reading_frequency": 1.0 / DT})
    if sensing:
        still = {"y": 0.0, "z": 0.0, "roll": 0.0, "pitch": 0.0, "yaw": 0.0}
        found += [{"type": "sensor.other.imu", "id": IMU, "x": 0.0, **still}, {"type": "sensor.other.gnss", "id": GNSS, "x": -REAR, **still}]
    return found


class GuestWorld:
    """The world as a guest may ask it: others tick it."""

    def __init__(self, world: Any) -> None:
        """A carla.World; None where the guest may not look."""
        self._world, self.frame = world, 0

    def tick(self) -> int:
        """The frame that has been ticked."""
        return self.frame

    def get_snapshot(self) -> Any:
        """Of the frame."""
        return self._world.get_snapshot() if self._world is not None else None

    def get_actors(self) -> Any:
        """All of them."""
        return self._world.get_actors() if self._world is not None else ()


class GuestSession(Session):
    """A Session without a connection of its own."""

    def __init__(self, world: Any) -> None:
        self.carla, self.world, self.dt = carla_module(), GuestWorld(world), DT


class GuestEgo(CarlaEgo):
    """The evaluator's car, its state read from its actor: for planners that read the ground truth anyway."""

    def __init__(self, session: GuestSession, actor: Any, cameras: tuple[Camera, ...]) -> None:
        self.session, self.actor, self.cameras, self.rear = session, actor, cameras, REAR
        self.measure()
        self.collisions = deque()
        self.data: dict[str, tuple[int, Any]] = {}  # the present's readings
        self.control: Any = None  # the last carla.VehicleControl

    def images(self, frame: int) -> NDArray[np.uint8]:
        """(C, H, W, 3) of `frame`. Raises DriveError where a camera's is not among the readings."""
        found = []
        for camera in self.cameras:
            number, image = self.data.get(camera.name, (-1, None))
            if image is None or number != frame or image.shape != (camera.height, camera.width, 4):
                raise DriveError(f"the evaluator gave no {camera.width}x{camera.height} image of camera {camera.name} for frame {frame}")
            found.append(np.ascontiguousarray(image[..., 2::-1]))
        return np.stack(found)

    def send(self, control: Any) -> None:
        """Keep it: the evaluator applies it."""
        self.control = control


class SensingEgo(GuestEgo):
    """The evaluator's car as its own sensors tell it: speed and compass are followed from the start of the route, GNSS holds the drift."""

    def __init__(self, session: GuestSession, actor: Any, cameras: tuple[Camera, ...], plan: GlobalPlan) -> None:
        super().__init__(session, actor, cameras)
        self._plan, self._origin = plan, plan.origin
        self._pose = compose(plan.start, np.array([-REAR, 0.0, 0.0]))
        self._speed: float | None = None  # m/s, at the last reading

    def speed(self) -> float:
        """m/s, never negative."""
        return abs(float(self.data[SPEED][1]["speed"]))

    def state(self) -> Array:
        """(11,) as in drive.core.vehicle; called once a tick. Raises DriveError where a reading is missing."""
        try:
            speed = float(self.data[SPEED][1]["speed"])
            imu, gnss = (np.asarray(self.data[key][1], float) for key in (IMU, GNSS))
        except KeyError as error:
            raise DriveError(f"the evaluator gave no reading of {error}: the sensors of this agent were not all made") from error
        heading = math.pi / 2.0 - imu[6] if np.isfinite(imu[6]) else self._pose[2]  # CARLA's compass is not a number at times
        if self._speed is not None:
            way = (self._speed + speed) / 2.0 * DT
            middle = self._pose[2] + float(wrap_angle(heading - self._pose[2])) / 2.0
            self._pose[:2] += way * np.array([math.cos(middle), math.sin(middle)])
        self._speed, self._pose[2] = speed, wrap_angle(heading)
        self._correct(gnss)
        state = np.zeros(11)
        state[:3], state[3], state[5], state[6] = self._pose, speed, imu[0], -imu[1]
        state[7], state[9] = self._wheel, -imu[5]
        return state

    def _correct(self, gnss: Array) -> None:
        """By whichever projection fits; a map without an origin of its own fits none, and the odometry goes on alone."""
        gaps = self._plan.places(float(gnss[0]), float(gnss[1]), self._origin) - self._pose[:2]
        gap = gaps[int(np.argmin(np.hypot(*gaps.T)))]
        if np.hypot(*gap) < REACH:
            self._pose[:2] += TRUST * gap
