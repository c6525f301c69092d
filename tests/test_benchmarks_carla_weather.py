"""The weather of a route, which changes along it."""

from types import SimpleNamespace
from typing import Any

import pytest

from drive.benchmarks.carla_drive import set_weather, weather_at
from drive.simulators.carla_routes import WeatherPoint

POINTS = (WeatherPoint(0.0, {"cloudiness": 10.0, "sun_altitude_angle": 45.0}), WeatherPoint(100.0, {"cloudiness": 60.0, "sun_altitude_angle": -5.0}))


class World:
    """A world that keeps what it is given."""

    def __init__(self):
        self.weather = type("Weather", (), {"cloudiness": 0.0, "sun_altitude_angle": 0.0, "fog_density": 7.0})()

    def get_weather(self):
        return self.weather

    def set_weather(self, weather):
        self.given = weather


@pytest.mark.parametrize(("percent", "clouds", "sun"), [(0.0, 10.0, 45.0), (50.0, 35.0, 20.0), (100.0, 60.0, -5.0), (130.0, 60.0, -5.0)])
def test_it_is_interpolated_over_the_route(percent, clouds, sun):
    assert weather_at(POINTS, percent) == {"cloudiness": pytest.approx(clouds), "sun_altitude_angle": pytest.approx(sun)}


def test_what_the_file_leaves_open_stays():
    session: Any = SimpleNamespace(world=World())
    set_weather(session, POINTS, 50.0)
    assert (session.world.given.cloudiness, session.world.given.sun_altitude_angle, session.world.given.fog_density) == (35.0, 20.0, 7.0)


def test_a_route_without_weather_changes_nothing():
    session: Any = SimpleNamespace(world=World())
    set_weather(session, (), 50.0)
    assert not hasattr(session.world, "given") and weather_at((), 50.0) == {}
