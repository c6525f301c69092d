"""Colours of a picture in weather, from the rasteriser's samples: light, sky, fog, wet ground, lamps and rain, in numba."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.simulators.agent_shapes import SHAPES
from drive.simulators.carla_server.weather import Look
from drive.simulators.carla_server.weather_lamps import CELL, SIDE, Lamps
from drive.simulators.raster import NOISE_FAR, SKY, TERRAIN, Buffers, View, _terrain_light
from drive.simulators.render import SAMPLES
from drive.simulators.scene_geometry import Semantic

ROAD, PAINT, PAVEMENT, GRASS = (int(s) for s in (Semantic.ROAD, Semantic.LANE_MARKING, Semantic.SIDEWALK, Semantic.TERRAIN))
CAR, SIGNAL = int(Semantic.VEHICLE), int(Semantic.TRAFFIC_LIGHT)
SHINING = SHAPES.rgb[SHAPES.glows & (SHAPES.rgb.max(axis=1) > 200.0)]  # faces that are lamps, and on
STREAKS = 0.005  # of rain, per pixel of the picture in the hardest rain
UNKNOWN = 2  # whether a face is a lamp
F = np.float32


@njit(cache=True)
def _lamp(red, green, blue, shining):
    """Whether a face of this colour is a lamp."""
    found = False
    for k in range(len(shining)):
        found |= red == shining[k, 0] and green == shining[k, 1] and blue == shining[k, 2]
    return found


@njit(cache=True, error_model="numpy")
def _lit(row, inverse_depth, view, lamps, dark, u, v, light):
    """Light of lamps on the ground along a row of pixels, between the cells of the lit ground, into `light` (W,); u and v (W,) are scratch."""
    metres_x, y, r = 1.0 / view.focal_x, ((row + 0.5) * SAMPLES - view.centre_y) * (1.0 / view.focal_y), view.rotation
    ax, bx, cx, ay, by, cy = r[0, 0], r[1, 0], r[2, 0], r[0, 1], r[1, 1], r[2, 1]
    eye_x, eye_y, left, low, centre, ground = view.position[0], view.position[1], lamps.left, lamps.low, view.centre_x, lamps.ground
    depths = inverse_depth[row * SAMPLES]
    for k in range(len(light)):  # of nothing but arithmetic, so that the compiler takes several columns at once
        x, inverse = ((k + 0.5) * SAMPLES - centre) * metres_x, depths[k * SAMPLES]
        u[k] = (eye_x + (ax * x + bx * y + cx) / inverse - left) / CELL - 0.5
        v[k] = (eye_y + (ay * x + by * y + cy) / inverse - low) / CELL - 0.5
    for k in range(len(light)):
        light[k] = F(0.0)
        if 0.0 <= u[k] < SIDE - 1.0 and 0.0 <= v[k] < SIDE - 1.0:  # no place in the sky: it is infinitely far away
            i, j = np.uint64(v[k]), np.uint64(u[k])
            a, b, one, next_ = F(v[k] - i), F(u[k] - j), F(1.0), np.uint64(1)
            near = (one - b) * ground[i, j] + b * ground[i, j + next_]
            far = (one - b) * ground[i + next_, j] + b * ground[i + next_, j + next_]
            light[k] = ((one - a) * near + a * far) * dark


@njit(cache=True)
def _one_face(faces, top, left):
    """Whether all samples of a pixel lie on one face."""
    for i in range(top, top + SAMPLES):
        for j in range(left, left + SAMPLES):
            if faces[i, j] != faces[top, left]:
                return False
    return True


@njit(cache=True, error_model="numpy")
def _sky(look, climb, toward, k):
    """Colour k of the sky where the ray climbs `climb` m for each metre ahead; `toward` the cosine of its angle to the sun."""
    one = F(1.0)
    up = min(max(climb * F(1.6), F(0.0)), one)
    shine = F(look.glare) * max(toward, F(0.0)) ** 6
    veil = one - one / (one + F(look.fog_rate * 60.0) / (up + F(0.15)))
    colour = look.horizon[k] + up * (look.zenith[k] - look.horizon[k])
    colour += shine * (F(255.0) - F(30.0 * k) - colour) * F(0.75)
    return F(colour + veil * (look.fog[k] - colour))


@njit(cache=True, error_model="numpy")
def shade_weather(buffers, view, look, lamps, shining):
    """RGB (H / SAMPLES, W / SAMPLES, 3) uint8 of SAMPLES x SAMPLES samples per pixel; at noon it is near to raster.shade.

    A pixel whose samples all lie on one face is shaded once. What does not matter to a pixel is not computed for it: most of the time
    of a frame at night is spent here.
    """
    h, w = view.height // SAMPLES, view.width // SAMPLES
    image = np.empty((h, w, 3), np.uint8)
    one, half = F(1.0), F(look.haze)
    metres_x, metres_y, r = 1.0 / view.focal_x, 1.0 / view.focal_y, view.rotation
    night, foggy, wet, glaring = look.dark > 0.0, look.fog_rate > 0.0, look.wet > 0.0, look.glare > 0.0
    light0, light1, light2 = look.light[0], look.light[1], look.light[2]
    haze0, haze1, haze2 = look.horizon[0], look.horizon[1], look.horizon[2]
    fog0, fog1, fog2 = look.fog[0], look.fog[1], look.fog[2]
    soil0, soil1, soil2 = look.terrain[0], look.terrain[1], look.terrain[2]
    u, v, light = np.empty(w), np.empty(w), np.empty(w, np.float32)
    shines = np.full(len(buffers.semantic), UNKNOWN, np.uint8)
    norm, toward, facing, lamp = one, F(0.0), one, F(0.0)  # as long as nothing asks for them
    for row in range(h):
        y = ((row + 0.5) * SAMPLES - view.centre_y) * metres_y
        if night:
            _lit(row, buffers.inverse_depth, view, lamps, F(look.dark), u, v, light)
        for column in range(w):
            x = ((column + 0.5) * SAMPLES - view.centre_x) * metres_x
            dx, dy = r[0, 0] * x + r[1, 0] * y + r[2, 0], r[0, 1] * x + r[1, 1] * y + r[2, 1]
            climb = F(r[0, 2] * x + r[1, 2] * y + r[2, 2])
            if foggy or wet or glaring:
                norm = F(math.sqrt(1.0 + x * x + y * y))
            if glaring:
                toward = F((dx * look.sun[0] + dy * look.sun[1] + climb * look.sun[2]) / norm)
                facing = one - F(0.30 * look.glare) * toward
            if night:
                lamp = light[column]
            total0 = total1 = total2 = F(0.5)
            count = 1 if _one_face(buffers.face, row * SAMPLES, column * SAMPLES) else SAMPLES
            share = one / F(count * count)
            for i in range(row * SAMPLES, row * SAMPLES + count):
                for j in range(column * SAMPLES, column * SAMPLES + count):
                    face, inverse = buffers.face[i, j], max(buffers.inverse_depth[i, j], F(1e-6))
                    if face == SKY:
                        total0 += share * _sky(look, climb, toward, 0)
                        total1 += share * _sky(look, climb, toward, 1)
                        total2 += share * _sky(look, climb, toward, 2)
                        continue
                    label, own, mirror, on = buffers.semantic[face], one, F(0.0), False
                    if face == TERRAIN:
                        c0, c1, c2 = soil0, soil1, soil2
                        if inverse * NOISE_FAR > 1.0:
                            ray_x, ray_y = (j + 0.5 - view.centre_x) * metres_x, (i + 0.5 - view.centre_y) * metres_y
                            own = F(_terrain_light(view, ray_x, ray_y, inverse))
                    else:
                        c0, c1, c2 = buffers.rgb[face, 0], buffers.rgb[face, 1], buffers.rgb[face, 2]
                    if label in (ROAD, PAINT, PAVEMENT):
                        if wet:
                            graze = max(one + climb / norm, F(0.0))  # 0 straight down, 1 along the ground
                            mirror = F(0.75 * look.wet) * graze * graze * graze
                            own *= one - F(0.42 * look.wet)
                    elif label != GRASS:
                        own *= facing
                        if night and label in (CAR, SIGNAL):
                            if shines[face] == UNKNOWN:
                                shines[face] = _lamp(c0, c1, c2, shining)
                            if shines[face]:
                                who = buffers.instance[face]
                                on = label == SIGNAL or (lamps.heads[who] if c1 > F(100.0) else lamps.tails[who])
                    keep, clear = half * inverse / (half * inverse + one), one
                    if foggy:
                        thick = F(look.fog_rate) * max(norm / inverse - F(look.fog_start), F(0.0))
                        clear = one / (one + thick * (one + thick * (F(0.5) + thick * F(0.1667))))
                    if not on:
                        c0 *= own * (light0 + lamp)
                        c1 *= own * (light1 + F(0.82) * lamp)
                        c2 *= own * (light2 + F(0.56) * lamp)
                    a = share * clear * keep * (one - mirror)  # shares of the surface, the haze and mirrored sky, the fog
                    b, c = share * clear - a, share * (one - clear)
                    total0 += a * c0 + b * haze0 + c * fog0
                    total1 += a * c1 + b * haze1 + c * fog1
                    total2 += a * c2 + b * haze2 + c * fog2
            image[row, column, 0] = np.uint8(min(max(total0, F(0.0)), F(255.0)))
            image[row, column, 1] = np.uint8(min(max(total1, F(0.0)), F(255.0)))
            image[row, column, 2] = np.uint8(min(max(total2, F(0.0)), F(255.0)))
    return image


@njit(cache=True)
def draw_glows(image, buffers, view, look, glows):
    """Add a round glow where a lamp is in sight: as wide as its radius, at least a pixel, thinner in fog."""
    h, w = image.shape[:2]
    r = view.rotation
    for g in range(len(glows)):
        a, b, c = glows[g, 0] - view.position[0], glows[g, 1] - view.position[1], glows[g, 2] - view.position[2]
        z = r[2, 0] * a + r[2, 1] * b + r[2, 2] * c
        if z < 0.5:
            continue
        u = view.focal_x * (r[0, 0] * a + r[0, 1] * b + r[0, 2] * c) / z + view.centre_x
        v = view.focal_y * (r[1, 0] * a + r[1, 1] * b + r[1, 2] * c) / z + view.centre_y
        if not (0.0 <= u < view.width and 0.0 <= v < view.height) or buffers.inverse_depth[int(v), int(u)] * (z - 0.5) > 1.0:
            continue
        size = min(max(view.focal_x / SAMPLES * glows[g, 6] / z, 1.0), 0.1 * w)
        strength = look.dark * math.exp(-look.fog_rate * max(z - look.fog_start, 0.0))
        u, v, reach = u / SAMPLES, v / SAMPLES, 2.5 * size
        for row in range(max(int(v - reach), 0), min(int(v + reach) + 1, h)):
            for column in range(max(int(u - reach), 0), min(int(u + reach) + 1, w)):
                away = ((row + 0.5 - v) ** 2 + (column + 0.5 - u) ** 2) / (size * size)
                bright = strength * math.exp(-2.0 * away)
                for k in range(3):
                    image[row, column, k] = np.uint8(min(image[row, column, k] + bright * glows[g, 3 + k], 255.0))


@njit(cache=True)
def draw_rain(image, look, frame):
    """Streaks of rain at places that `frame` decides."""
    h, w = image.shape[:2]
    state = np.uint64(frame * 2654435761 + 88172645463325252)
    length = max(h // 14, 2)
    for _ in range(int(STREAKS * look.rain * h * w)):
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
        top = int(state % np.uint64(h + length)) - length
        left = int((state >> np.uint64(20)) % np.uint64(w))
        long = length // 2 + int((state >> np.uint64(40)) % np.uint64(length // 2 + 1))
        for step in range(long):
            row, column = top + step, left + int(step * look.slant)
            if 0 <= row < h and 0 <= column < w:
                for k in range(3):
                    drop = 0.6 * look.horizon[k] + 0.4 * 255.0 * look.light[k] + 60.0 * look.dark
                    image[row, column, k] = np.uint8(image[row, column, k] + 0.28 * (drop - image[row, column, k]))


def weathered(buffers: Buffers, view: View, look: Look, lamps: Lamps, frame: int) -> NDArray[np.uint8]:
    """RGB (H, W, 3) of the samples in the weather of `look`; rain falls otherwise in every frame."""
    image = shade_weather(buffers, view, look, lamps, SHINING)
    draw_glows(image, buffers, view, look, lamps.glows)
    if look.rain > 0.0:
        draw_rain(image, look, frame)
    return image
