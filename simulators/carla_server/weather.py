"""carla.WeatherParameters as a camera sees them: how light, sky, fog, rain and wet ground look.

Clear noon is the picture that the renderer makes by itself. Values below 0 (WeatherParameters.Default) mean clear noon's. The three
scattering parameters and fog_falloff are not heeded. What a number looks like is this project's choice, not Unreal's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drive.simulators.render import HAZE, PALETTE

Array = NDArray[np.float32]
NAMES = (
    *("cloudiness", "precipitation", "precipitation_deposits", "wind_intensity", "sun_azimuth", "sun_altitude", "fog_density"),
    *("fog_distance", "fog_falloff", "wetness", "scattering_intensity", "mie_scattering_scale", "rayleigh_scattering_scale"),
    "dust_storm",
)
NOON = (5.0, 0.0, 0.0, 10.0, -1.0, 45.0, 2.0, 0.75, 0.1, 0.0, 1.0, 0.03, 0.0331, 0.0)
THICKEST = 0.075  # 1/m, of fog of density 100: a wall 40 m away keeps a twentieth of its contrast
DUSTIEST = 0.04  # 1/m, of a dust storm of 100
DUST = np.array((196, 158, 112), np.float32)
ALTITUDE = (-18.0, -6.0, 0.0, 15.0, 45.0, 90.0)  # degrees of the sun at which the colours below hold; straight lines between
LIGHT = ((0.07, 0.08, 0.12), (0.12, 0.13, 0.19), (0.34, 0.29, 0.29), (0.80, 0.68, 0.54), (1.0, 1.0, 1.0), (1.07, 1.07, 1.06))
HORIZON = ((10, 12, 20), (40, 42, 66), (196, 112, 84), (232, 188, 142), tuple(PALETTE[0]), tuple(PALETTE[0]))
ZENITH = ((4, 5, 12), (14, 18, 40), (52, 62, 108), (104, 130, 178), tuple(PALETTE[1]), tuple(PALETTE[1]))


class Look(NamedTuple):
    """What the shader needs."""

    light: Array  # (3,) share of its noon colour that a lit surface shows
    horizon: Array  # (3,) 0..255
    zenith: Array  # (3,)
    terrain: Array  # (3,)
    haze: float  # m at which haze has taken half of a colour
    fog: Array  # (3,) colour
    fog_rate: float  # 1/m
    fog_start: float  # m
    wet: float  # 0..1
    rain: float  # 0..1
    slant: float  # pixels to the side for each one down, of falling rain
    dark: float  # 0..1, how much lamps show
    sun: Array  # (3,) towards it, right-handed world
    glare: float  # 0..1, of a low sun


def _row(table: tuple, altitude: float) -> Array:
    """(3,) of a table over ALTITUDE."""
    return np.array([np.interp(altitude, ALTITUDE, [float(row[k]) for row in table]) for k in range(3)], np.float32)


@lru_cache(maxsize=64)
def look_of(weather: tuple[float, ...]) -> Look | None:
    """The look of 14 floats in the order of NAMES; None at clear noon."""
    w = dict(zip(NAMES, (float(v) if v >= 0.0 or k in (4, 5) else noon for k, (v, noon) in enumerate(zip(weather, NOON)))))
    if weather[5] == weather[0] == -1.0:  # WeatherParameters.Default
        w["sun_altitude"] = NOON[5]
    part = {name: min(max(value / 100.0, 0.0), 1.0) for name, value in w.items()}
    cloud, rain, dust = max((w["cloudiness"] - NOON[0]) / 95.0, 0.0), part["precipitation"], part["dust_storm"]
    cloud = min(cloud, 1.0)
    wet = max(part["wetness"], part["precipitation_deposits"], 0.6 * rain)
    fog = THICKEST * max((w["fog_density"] - NOON[6]) / 98.0, 0.0) ** 2
    altitude = min(max(w["sun_altitude"], -90.0), 90.0)
    if max(cloud, wet, fog, dust) <= 0.0 and abs(altitude - NOON[5]) < 1e-3:
        return None
    dim = (1.0 - 0.28 * cloud) * (1.0 - 0.18 * rain) * (1.0 - 0.15 * dust)
    light = _row(LIGHT, altitude)
    light = (light + 0.5 * cloud * (light.mean() - light)) * np.float32(dim)  # clouds take the colour of the sun away
    grey = np.float32((0.72 - 0.16 * rain) * 255.0) * light / np.float32(dim)
    cover = np.float32(0.9 * cloud)
    horizon = _row(HORIZON, altitude)
    horizon = horizon + cover * (grey * np.float32(1.12) - horizon)
    zenith = _row(ZENITH, altitude)
    zenith = zenith + cover * (grey - zenith)
    sand = DUST * light
    rate = fog + DUSTIEST * dust
    murk = horizon * np.float32(0.96)
    murk = murk + np.float32(DUSTIEST * dust / rate if rate > 0.0 else 0.0) * (sand - murk)
    low = float(np.interp(altitude, (-6.0, 0.0, 15.0, 45.0), (0.0, 1.0, 1.0, 0.0))) * (1.0 - cloud)
    up, round_ = np.radians(altitude), -np.radians(w["sun_azimuth"])
    return Look(
        light=light.astype(np.float32),
        horizon=(horizon + np.float32(0.7 * dust) * (sand - horizon)).astype(np.float32),
        zenith=(zenith + np.float32(0.7 * dust) * (sand - zenith)).astype(np.float32),
        terrain=PALETTE[2].copy(),
        haze=HAZE * (1.0 - 0.5 * rain),
        fog=murk.astype(np.float32),
        fog_rate=rate,
        fog_start=min(w["fog_distance"], 200.0) if fog > 0.0 else 0.0,
        wet=wet,
        rain=rain,
        slant=0.35 * part["wind_intensity"],
        dark=float(np.interp(altitude, (-4.0, 6.0), (1.0, 0.0))),
        sun=np.array([np.cos(up) * np.cos(round_), np.cos(up) * np.sin(round_), np.sin(up)], np.float32),
        glare=low,
    )
