"""Compiles what a tick runs before the ports are open: a client's first tick must not wait for a compiler."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from drive.simulators.carla_server.episode import Counters, Episode
from drive.simulators.carla_server.recorder import Recorder
from drive.simulators.carla_server.streams import Streams
from drive.simulators.carla_server.town import Town

SMALL = [["image_size_x", 2, "32"], ["image_size_y", 2, "32"]]


def warm_up(town: Town) -> None:
    """One tick of two cars that touch, seen by one camera, in an episode of its own."""
    episode = Episode(town, Streams(), Counters(), 0, "0.9.16", Recorder(Path()))
    if len(town.spawn_points) < 2:
        return
    first, second = (episode.spawn("vehicle.tesla.model3", [], pose).id for pose in town.spawn_points[[0, -1]])
    episode.put(second, episode.pose(first) + np.array([2.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
    camera = episode.spawn("sensor.camera.rgb", SMALL, np.array([0.0, 0.0, 2.5, 0.0, 0.0, 0.0]), first)
    episode.tick(0.05)
    for _ in episode.sensors[camera.id].measure():
        pass
