"""ScenarioNet logs of a small made-up town, written in the format of the real ones: every answer is known."""

import pickle
from itertools import pairwise

import numpy as np

OFFSET = np.array([50_000.25, 400_000.5])
SPEED, STEPS = 8.0, 120


def line(*corners, step=1.0):
    """(N, 2) points along straight segments."""
    parts = [np.linspace(a, b, int(np.hypot(*np.subtract(b, a)) / step) + 1) for a, b in pairwise(corners)]
    return np.concatenate([parts[0], *[part[1:] for part in parts[1:]]])


def turn_left(angles):
    """(N, 2) points of the left turn at the angles driven."""
    return np.column_stack([60 + 12 * np.sin(angles), 12 - 12 * np.cos(angles)])


def rectangle(x0, y0, x1, y1):
    """(5, 2) closed ring."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], float)


def town():
    """A: two lanes east, then a junction: left to B, or straight to D. An island lies in the drivable area."""

    def lane(points, polygon=None):
        feature = {"type": "LANE_SURFACE_STREET", "polyline": [tuple(p) for p in points + OFFSET]}
        return {**feature, **({"speed_limit_kmh": 100} if polygon is None else {"polygon": (polygon + OFFSET).tolist()})}

    return {
        "A": lane(line((0, 0), (60, 0)), rectangle(0, -2, 60, 2)),
        "A2": lane(line((0, 4), (60, 4)), rectangle(0, 2, 60, 6)),
        "left": lane(turn_left(np.linspace(0, np.pi / 2, 20))),
        "straight": lane(line((60, 0), (84, 0))),
        "B": lane(line((72, 12), (72, 72)), rectangle(70, 12, 74, 72)),
        "D": lane(line((84, 0), (140, 0)), rectangle(84, -2, 140, 2)),
        "point": lane(np.zeros((2, 2))),
        "divider": {"type": "ROAD_LINE_BROKEN_SINGLE_WHITE", "polyline": line((0, 2), (60, 2)) + OFFSET},
        "boundary_0": {"type": "ROAD_LINE_SOLID_SINGLE_WHITE", "polyline": rectangle(-10, -10, 150, 90) + OFFSET},
        "boundary_1": {"type": "ROAD_LINE_SOLID_SINGLE_WHITE", "polyline": rectangle(100, 40, 110, 50) + OFFSET},
    }


def drive_left(s):
    """(S, 3) poses at `s` metres of the way from (5, 0) through the left turn."""
    arc = np.clip((s - 55) / 12, 0, np.pi / 2)
    x, y = turn_left(arc).T
    return np.column_stack([np.where(s < 55, 5 + s, x), y + np.maximum(s - 55 - 6 * np.pi, 0), arc])


def track(kind, poses, size=(4.5, 1.9, 1.6), valid=None):
    n = len(poses)
    state = {
        "position": np.column_stack([poses[:, :2] + OFFSET, np.zeros(n)]),
        "heading": poses[:, 2].copy(),
        "velocity": np.zeros((n, 2)),
        "valid": np.ones(n) if valid is None else valid.astype(float),
        **{key: np.full((n, 1), value) for key, value in zip(("length", "width", "height"), size, strict=True)},
    }
    return {"type": kind, "state": state, "metadata": {}}


def record(scenario_id="town-1", dataset="nuscenes", poses=None):
    """A whole ScenarioNet record; the ego's length and width are swapped, as in the real logs."""
    poses = drive_left(SPEED * 0.1 * np.arange(STEPS)) if poses is None else poses
    n = len(poses)

    def stand(x, y):
        return np.tile([x, y, 0.0], (n, 1))

    walk = np.column_stack([np.full(n, 40.0), 5.0 + 0.12 * np.arange(n), np.full(n, np.pi / 2)])
    cone = track("TRAFFIC_CONE", stand(50, -3), (0.4, 0.4, 0.8))
    cone["state"]["length"][: n // 4] = 0.9
    tracks = {
        "ego": track("VEHICLE", poses, (1.73, 4.08, 1.56)),
        "parked": track("VEHICLE", stand(30, 4)),
        "walker": track("PEDESTRIAN", walk, (0.7, 0.7, 1.8), valid=np.arange(n) < 60),
        "cone": cone,
        "fence": track("TRAFFIC_BARRIER", stand(55, 8), (0.5, 2.0, 1.0)),
        "bike": track("CYCLIST", stand(20, 4), (1.8, 0.6, 1.7)),
        "unseen": track("VEHICLE", stand(0, 0), valid=np.zeros(n, bool)),
    }
    meta = {"dataset": dataset, "scenario_id": scenario_id, "sdc_id": "ego", "ts": 0.1 * np.arange(n)}
    return {"id": scenario_id, "length": n, "metadata": meta, "tracks": tracks, "map_features": town()}


def write(path, content):
    """Pickle `content` to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return path
