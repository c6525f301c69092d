"""Which class measures for which blueprint. Lane invasion is found by the client itself."""

from __future__ import annotations

from drive.simulators.carla_server.cameras import Labelled, Rgb
from drive.simulators.carla_server.collisions import CollisionSensor
from drive.simulators.carla_server.inertial import Gnss, Imu
from drive.simulators.carla_server.sensor import Sensor

SENSORS: dict[str, type[Sensor]] = {
    "sensor.camera.rgb": Rgb,
    "sensor.camera.depth": Labelled,
    "sensor.camera.semantic_segmentation": Labelled,
    "sensor.camera.instance_segmentation": Labelled,
    "sensor.other.collision": CollisionSensor,
    "sensor.other.gnss": Gnss,
    "sensor.other.imu": Imu,
}
