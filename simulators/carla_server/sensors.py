"""Which class measures for which blueprint. Lane invasion is found by the client itself."""

from __future__ import annotations

from drive.simulators.carla_server.cameras import Labelled, Rgb
from drive.simulators.carla_server.collisions import CollisionSensor
from drive.simulators.carla_server.inertial import Gnss, Imu
from drive.simulators.carla_server.lidar import Lidar, SemanticLidar
from drive.simulators.carla_server.sensor import Sensor
from drive.simulators.carla_server.sensor_radar import Obstacle, Radar

SENSORS: dict[str, type[Sensor]] = {
    "sensor.camera.rgb": Rgb,
    "sensor.camera.depth": Labelled,
    "sensor.camera.semantic_segmentation": Labelled,
    "sensor.camera.instance_segmentation": Labelled,
    "sensor.lidar.ray_cast": Lidar,
    "sensor.lidar.ray_cast_semantic": SemanticLidar,
    "sensor.other.radar": Radar,
    "sensor.other.obstacle": Obstacle,
    "sensor.other.collision": CollisionSensor,
    "sensor.other.gnss": Gnss,
    "sensor.other.imu": Imu,
}
