"""Weather in the pictures of the CARLA server's cameras: what each number does to them, and that clear noon does nothing."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("carla")
pytest.importorskip("msgpack")

import carla
from carla_world import CAR, World

from drive.simulators.carla_server.cameras import Rgb
from drive.simulators.carla_server.weather import NAMES, NOON, look_of
from drive.simulators.carla_server.weather_lamps import CELL, SIDE, light_ground, street_lamps

SIZE = 224
PRESETS = sorted(
    n for n in dir(carla.WeatherParameters) if isinstance(getattr(carla.WeatherParameters, n), carla.WeatherParameters)
)
FIELDS = [f"{name}_angle" if name.startswith("sun") else name for name in NAMES]


def preset(name: str) -> list[float]:
    return [getattr(getattr(carla.WeatherParameters, name), field) for field in FIELDS]


def noon(**changes: float) -> list[float]:
    return [changes.get(name, value) for name, value in zip(NAMES, NOON)]


class Street:
    """A car on a road behind another, and its cameras."""

    def __init__(self) -> None:
        self.world = World()
        self.ego, self.other = (
            self.world.spawn(CAR, self.world.at(0)),
            self.world.spawn("vehicle.tesla.model3", self.world.at(14)),
        )
        kinds, size = ("rgb", "depth", "semantic_segmentation"), {"image_size_x": SIZE, "image_size_y": SIZE}
        mount = [0.2, 0, 1.7, 0, 0, 0]
        self.cameras = {kind: self.world.spawn(f"sensor.camera.{kind}", mount, self.ego, **size) for kind in kinds}
        self.world.tick(2)

    def picture(self, weather, kind: str = "rgb", lamps: tuple[int, int] = (0, 0)) -> np.ndarray:
        """(H, W, 3) float RGB, with the lamps of the two cars."""
        episode = self.world.episode
        episode.weather = list(weather)
        episode.lamps = {self.ego.id: lamps[0], self.other.id: lamps[1]}
        episode._scene = None
        return self.world.image(self.cameras[kind])[..., 2::-1].astype(float)


@cache
def street() -> Street:
    return Street()


@cache
def labels() -> np.ndarray:
    return street().picture(NOON, "semantic_segmentation")[..., 0]


@cache
def depth() -> np.ndarray:
    return street().world.depth(street().cameras["depth"])


def brightness(picture: np.ndarray, mask=None) -> float:
    return float(picture.mean() if mask is None else picture[mask].mean())


def test_clear_noon_is_the_renderers_own_picture_to_the_bit():
    scene = street().world
    sensor = scene.episode.sensors[street().cameras["rgb"].id]
    assert isinstance(sensor, Rgb)
    plain = scene.episode.town.renderer.render_rgb(sensor.camera(), np.zeros(3), *scene.episode.scene.drawn(sensor.visible()))
    for weather in (NOON, preset("ClearNoon"), preset("Default"), noon(sun_azimuth=200.0, wind_intensity=80.0)):
        assert look_of(tuple(weather)) is None
        assert (street().picture(weather) == plain).all()


def test_a_little_weather_changes_little():
    plain = street().picture(NOON)
    for change in ({"cloudiness": 5.5}, {"fog_density": 3.0}, {"sun_altitude": 44.5}, {"wetness": 0.5}, {"dust_storm": 0.2}):
        assert np.abs(street().picture(noon(**change)) - plain).mean() < 3.0, change


def test_presets_look_different_from_each_other():
    names = [name for name in PRESETS if name != "Default"]
    pictures = {name: street().picture(preset(name)) for name in names}
    alike = [
        (a, b, round(float(np.abs(pictures[a] - pictures[b]).mean()), 2))
        for i, a in enumerate(names)
        for b in names[:i]
        if np.abs(pictures[a] - pictures[b]).mean() < 0.5
    ]
    assert len(names) >= 20 and not alike
    for name, picture in pictures.items():
        share = brightness(picture) / brightness(pictures["ClearNoon"])
        assert share < 0.5 if "Night" in name else 0.4 < share < 0.97 if "Sunset" in name else share > 0.5, (name, share)


def test_weather_leaves_labels_and_depth_alone():
    night = preset("HardRainNight")
    for kind in ("depth", "semantic_segmentation"):
        assert (street().picture(night, kind) == street().picture(NOON, kind)).all()


def test_the_lower_the_sun_the_darker():
    light = [brightness(street().picture(noon(sun_altitude=float(a)))) for a in (90, 45, 30, 15, 5, 0, -5, -10, -30)]
    assert all(a > b for a, b in pairwise(light)), light
    evening = street().picture(noon(sun_altitude=12.0, sun_azimuth=0.0))[labels() == 1]
    assert evening[:, 0].mean() > 1.2 * evening[:, 2].mean()  # reddish


def test_a_low_sun_shines_from_where_it_stands():
    yaw = street().world.start[4]
    ahead, behind = (street().picture(noon(sun_altitude=8.0, sun_azimuth=(yaw + turn) % 360.0)) for turn in (0.0, 180.0))
    sky, walls = labels() == 11, labels() == 3
    assert brightness(ahead, sky) > 1.1 * brightness(behind, sky)
    assert brightness(ahead, walls) < 0.95 * brightness(behind, walls)


def test_fog_takes_contrast_with_distance():
    plain = street().picture(NOON)
    look = look_of(tuple(noon(fog_density=60.0)))
    assert look is not None
    foggy = street().picture(noon(fog_density=60.0))
    v, u = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    away = depth() * np.sqrt(1.0 + ((u - SIZE / 2) / (SIZE / 2)) ** 2 + ((v - SIZE / 2) / (SIZE / 2)) ** 2)
    near, far = (labels() == 1) & (away < 6.0), (labels() != 11) & (away > 60.0) & (away < 100.0)
    assert np.abs(foggy - plain)[near].mean() < 12.0
    clear = np.exp(-look.fog_rate * away[far])[:, None]
    np.testing.assert_allclose(foggy[far].mean(0), (plain[far] * clear + look.fog * (1.0 - clear)).mean(0), atol=6.0)
    thick = street().picture(noon(fog_density=100.0))
    assert thick[far].std(0).mean() < 0.8 * foggy[far].std(0).mean() < 0.6 * plain[far].std(0).mean()
    late = street().picture(noon(fog_density=100.0, fog_distance=30.0))
    assert np.abs(late - plain)[(away < 25.0) & (labels() == 1)].max() < 6.0 < np.abs(late - plain)[far].mean()


def test_rain_streaks_darken_and_move_but_repeat_from_one_frame():
    world, hard = street().world, noon(precipitation=100.0)
    first, again = street().picture(hard), street().picture(hard)
    assert (first == again).all()
    frame = world.episode.counters.frame
    world.episode.counters.frame += 1
    other = street().picture(hard)
    world.episode.counters.frame = frame
    moved = (np.abs(first - other).max(2) > 2).mean()
    assert 0.005 < moved < 0.4
    light = [brightness(street().picture(noon(precipitation=p))) for p in (0.0, 30.0, 60.0, 100.0)]
    assert all(a > b for a, b in pairwise(light))


def test_wet_roads_are_darker_and_mirror_the_sky_far_ahead():
    dry, wet = street().picture(NOON), street().picture(noon(wetness=100.0))
    road = labels() == 1
    near, far = road & (depth() < 4.0), road & (depth() > 30.0)
    assert near.sum() > 100 and far.sum() > 20
    assert brightness(wet, near) < 0.8 * brightness(dry, near)
    assert brightness(wet, far) > brightness(dry, far)
    grass = labels() == 10
    assert brightness(wet, grass) == pytest.approx(brightness(dry, grass), rel=0.02)
    assert (street().picture(noon(precipitation_deposits=100.0)) == wet).all()


def test_lamps_of_vehicles_light_the_night():
    night = noon(sun_altitude=-40.0)
    dark, beams, tails = (street().picture(night, lamps=lamps) for lamps in ((0, 0), (3, 0), (0, 1)))
    road = (labels() == 1) & (depth() > 6.0) & (depth() < 12.0)
    assert brightness(beams, road) > 2.0 * brightness(dark, road)
    red = (tails[..., 0] > 150.0) & (tails[..., 1] < 90.0)
    assert red.sum() > 8 and not ((dark[..., 0] > 150.0) & (dark[..., 1] < 90.0)).any()
    columns = np.nonzero(red)[1]
    assert (depth()[red] < 16.0).all() and abs(columns.mean() - SIZE / 2) < 15
    day = street().picture(noon(cloudiness=50.0), lamps=(3, 3))
    assert np.abs(day - street().picture(noon(cloudiness=50.0))).max() < 90.0  # by day nobody sees beams
    assert (np.abs(day - street().picture(noon(cloudiness=50.0))).max(2) > 1.0).sum() == 0


def test_street_lamps_stand_beside_roads_and_light_the_ground_below():
    places = street_lamps(street().world.episode.town.road_map)
    assert len(places) > 20
    apart = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(places))
    assert apart.min() > 15.0
    ground = light_ground(0.0, 0.0, np.array([[30.0, 60.0]]), np.zeros((0, 4)))
    row, column = np.unravel_index(ground.argmax(), ground.shape)
    assert abs((column + 0.5) * CELL - 30.0) < CELL and abs((row + 0.5) * CELL - 60.0) < CELL
    assert ground[0].max() == 0.0 and (ground > 0).mean() < 0.15
    beam = light_ground(0.0, 0.0, np.zeros((0, 2)), np.array([[48.0, 48.0, np.pi / 2.0, 36.0]]))
    rows = np.nonzero(beam.any(1))[0]
    assert rows.min() * CELL > 47.0 and rows.max() * CELL < 48.0 + 36.0 + CELL  # ahead only, as far as it reaches
    np.testing.assert_allclose(beam, beam[:, ::-1], atol=1e-5)
    assert beam.shape == (SIDE, SIDE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [-1e9, -1.0, 0.0, 1e9])
def test_no_value_breaks_a_picture(name, value):
    picture = street().picture(noon(**{name: value}))
    assert picture.shape == (SIZE, SIZE, 3) and np.isfinite(picture).all()
    look = look_of(tuple(noon(**{name: value})))
    assert look is None or all(np.isfinite(part).all() for part in look)
