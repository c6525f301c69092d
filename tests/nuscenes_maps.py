"""A small map expansion of known content: two lanes side by side along the road of `nuscenes_files`, a connector that turns left, a kerb."""

import json
import math

HEADING, START = 0.3, (0.25, 500.5)  # as in nuscenes_files
RADIUS = 20.0  # m, of the connector's arc
LENGTH = 80.0  # m, of the lanes


def at(s, left=0.0):
    c, n = math.cos(HEADING), math.sin(HEADING)
    return START[0] + c * s - n * left, START[1] + n * s + c * left


def expansion():
    """The content of a location's file."""
    out = {
        "version": "1.3", "canvas_edge": [2000.0, 2000.0], "node": [], "line": [], "polygon": [], "lane": [], "lane_connector": [], "drivable_area": [],
        "road_divider": [], "lane_divider": [], "road_segment": [], "road_block": [], "arcline_path_3": {}, "connectivity": {},
    }  # fmt: skip

    def nodes(name, points):
        tokens = [f"{name}-{k}" for k in range(len(points))]
        out["node"] += [{"token": token, "x": x, "y": y} for token, (x, y) in zip(tokens, points)]
        return tokens

    def polygon(name, points, holes=()):
        inner = [{"node_tokens": nodes(f"{name}-hole{k}", hole)} for k, hole in enumerate(holes)]
        out["polygon"].append({"token": f"p-{name}", "exterior_node_tokens": nodes(name, points), "holes": inner})
        return f"p-{name}"

    def line(name, points):
        out["line"].append({"token": f"l-{name}", "node_tokens": nodes(name, points)})
        return f"l-{name}"

    def strip(s0, s1, left0, left1):
        return [at(s0, left0), at(s1, left0), at(s1, left1), at(s0, left1)]

    for name, left in (("right", 0.0), ("middle", 3.5), ("far", 7.0)):
        out["lane"].append({"token": name, "polygon_token": polygon(name, strip(-20.0, LENGTH - 20.0, left - 1.75, left + 1.75)), "lane_type": "CAR"})
        start = [*at(-20.0, left), HEADING]
        out["arcline_path_3"][name] = [
            {"start_pose": start, "end_pose": start, "shape": "LSR", "radius": 900.0, "segment_length": [0.0, LENGTH, 0.0]},
        ]
        out["connectivity"][name] = {"incoming": [], "outgoing": ["turn"] if name == "right" else []}
    out["lane_connector"].append({"token": "turn", "polygon_token": ""})
    quarter = RADIUS * math.pi / 2.0
    out["arcline_path_3"]["turn"] = [
        {"start_pose": [*at(LENGTH - 20.0), HEADING], "end_pose": [0.0, 0.0, 0.0], "shape": "LSR", "radius": RADIUS, "segment_length": [quarter, 5.0, 0.0]},
    ]
    out["connectivity"]["turn"] = {"incoming": ["right"], "outgoing": ["elsewhere"]}
    out["lane"].append({"token": "pathless", "polygon_token": polygon("pathless", strip(-20.0, 0.0, -5.25, -1.75)), "lane_type": "CAR"})
    out["lane_divider"].append(
        {
            "token": "d-1", "line_token": line("dashed", [at(-20.0, 1.75), at(LENGTH - 20.0, 1.75)]),
            "lane_divider_segments": [{"node_token": "dashed-0", "segment_type": "DOUBLE_DASHED_WHITE"}, {"node_token": "dashed-1", "segment_type": "NIL"}],
        }
    )  # fmt: skip
    out["lane_divider"].append(
        {
            "token": "d-2", "line_token": line("solid", [at(-20.0, 5.25), at(LENGTH - 20.0, 5.25)]),
            "lane_divider_segments": [{"node_token": "solid-0", "segment_type": "SINGLE_SOLID_WHITE"}, {"node_token": "solid-1", "segment_type": "NIL"}],
        }
    )  # fmt: skip
    out["road_divider"].append({"token": "r-1", "line_token": line("kerb", [at(-20.0, -7.0), at(LENGTH, -7.0)]), "road_segment_token": ""})
    island = strip(100.0, 110.0, -2.0, 2.0)
    out["drivable_area"].append({"token": "a-1", "polygon_tokens": [polygon("area", strip(-60.0, 120.0, -10.0, 40.0), [island])]})
    return out


def write_map(root, content=None, location="boston-seaport"):
    folder = root / "maps" / "expansion"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{location}.json").write_text(json.dumps(expansion() if content is None else content))
    return folder / f"{location}.json"
