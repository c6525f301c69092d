# pyright: reportOptionalMemberAccess=false, reportArgumentType=false
"""A log with all that py123d's layout can carry: boxes of every kind, lights in every state, a junction, three cameras with JPEG and PNG images."""

from io import BytesIO

import numpy as np
from PIL import Image

from drive.core.geometry import polyline_with_heading
from drive.core.roadmap import Lane, Layer, Polygons, RoadMap
from drive.core.types import AgentType, Camera, Lights, Tracks
from drive.datasets.logs import ImageRef, Log
from drive.datasets.motion import central_velocity, ego_motion

STEPS, SPEED = 90, 6.0
ORIGIN = np.array([664_430.0, 3_999_017.0])
WIDTH, HEIGHT = 48, 32


def straight(key, begin, end, left, **words):
    x = np.arange(begin, end + 0.5)
    line = np.column_stack([x, np.full(len(x), left)])
    return Lane(key, polyline_with_heading(line), line + [0.0, 1.75], line - [0.0, 1.75], 12.5, **words)


def road_map():
    """Two lanes, then a connector straight on and one to the left, then a lane each; a car park."""
    arc = np.linspace(0.0, np.pi / 2, 21)
    bend = [np.column_stack([50.0 + r * np.sin(arc), 12.0 - r * np.cos(arc)]) for r in (12.0, 10.25, 13.75)]
    lanes = [
        straight("10", -40, 50, 0.0, roadblock="1", successors=("20", "21"), left_neighbor="11"),
        straight("11", -40, 50, 3.5, roadblock="1", right_neighbor="10"),
        straight("20", 50, 70, 0.0, is_connector=True, turn="straight", roadblock="2", junction="7", successors=("30",), predecessors=("10",)),
        Lane("21", polyline_with_heading(bend[0]), bend[1], bend[2], 8.0, True, "left", "3", "7", predecessors=("10",)),
        straight("30", 70, 160, 0.0, roadblock="4", predecessors=("20",)),
    ]
    rings = []
    for lane in lanes:
        ring = np.concatenate([lane.left, lane.right[::-1]])
        rings += [(lane.id, Layer.LANE_CONNECTOR if lane.is_connector else Layer.LANE, ring)]
        if lane.id != "11":
            rings += [(lane.roadblock, Layer.ROADBLOCK, ring if lane.id != "10" else np.array([[-40, -1.75], [50, -1.75], [50, 5.25], [-40, 5.25]]))]
    rings.append(("7", Layer.INTERSECTION, np.array([[50.0, -2.0], [72.0, -2.0], [72.0, 12.0], [50.0, 12.0]])))
    rings.append(("0", Layer.CARPARK, np.array([[0.0, -10.0], [20.0, -10.0], [20.0, -4.0]])))
    rings.append(("drivable_0", Layer.DRIVABLE_AREA, np.array([[-40.0, -2.0], [160.0, -2.0], [160.0, 6.0], [-40.0, 6.0]])))
    return RoadMap("toy", {lane.id: lane for lane in lanes}, Polygons.from_rings(rings))


def tracks():
    """One of each kind; the second is seen from step 20 to 40, the third not at step 30."""
    count = len(AgentType)
    valid = np.ones((count, STEPS), bool)
    valid[1, :20] = valid[1, 40:] = valid[2, 30] = False
    poses = np.zeros((count, STEPS, 3))
    poses[..., 0] = 15.0 + 8.0 * np.arange(count)[:, None] + np.where(np.arange(count) < 3, 0.3, 0.0)[:, None] * np.arange(STEPS)
    poses[..., 1], poses[..., 2] = 3.5 * (np.arange(count) % 2)[:, None], np.linspace(-3.1, 3.1, count)[:, None]
    poses[~valid] = 0.0
    size = np.array([[4.5, 1.9, 1.6], [0.7, 0.6, 1.75], [1.8, 0.6, 1.7], [0.4, 0.4, 0.8], [2.0, 0.5, 1.0], [1.0, 1.1, 1.2]])
    return Tracks(tuple(f"agent-{k}" for k in range(count)), np.arange(count), size, poses, central_velocity(poses[..., :2], valid), valid)


def cameras(folder):
    """Front, left and back: JPEGs, JPEGs one behind the other in one file with every third missing, and PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    made, images = [], []
    for index, (name, yaw, kind) in enumerate((("front", 0.0, "JPEG"), ("left", 90.0, "JPEG"), ("rear", 180.0, "PNG"))):
        made.append(Camera.front(WIDTH, HEIGHT, 70.0, name, yaw))
        refs, at, pack = [], 0, b""
        for step in range(STEPS):
            buffer = BytesIO()
            Image.fromarray(np.full((HEIGHT, WIDTH, 3), (step, 40 * index, 200), np.uint8)).save(buffer, kind)
            if index == 1:
                refs.append(None if step % 3 == 2 else ImageRef(folder / "left.bin", at, len(buffer.getvalue())))
                pack, at = pack + buffer.getvalue(), at + len(buffer.getvalue())
            else:
                (folder / f"{name}-{step}.{kind.lower()}").write_bytes(buffer.getvalue())
                refs.append(ImageRef(folder / f"{name}-{step}.{kind.lower()}"))
        if pack:
            (folder / "left.bin").write_bytes(pack)
        images.append(tuple(refs))
    return tuple(made), tuple(images)


def log(folder, **changes):
    """The log; images are written to `folder`."""
    s = SPEED * 0.1 * np.arange(STEPS)
    poses = np.column_stack([s, 0.02 * np.sin(s), 0.02 * np.cos(s)])
    states = np.array([[1] * 30 + [2] * 10 + [3] * 50, [3] * 50 + [0] * 20 + [1] * 20])
    seen, images = cameras(folder)
    return Log(
        **{
            "log_id": "town-1", "source": "made_up", "split": "val", "files": (folder,), "dt": 0.1, "ego": ego_motion(poses), "ego_size": (4.8, 1.9, 1.5),
            "agents": tracks(), "origin": ORIGIN, "make_map": road_map, "lights": Lights(("10", "20"), states), "cameras": seen, "images": images,
            "notes": {"camera_distortion": {"rear": [-0.3, 0.1, 0.001, 0.002, 0.0]}},
            **changes,
        }
    )  # fmt: skip
