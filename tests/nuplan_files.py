"""nuPlan databases, maps and NAVSIM log pickles of the published schema, written from any Log at 10 Hz, with plain builtins and numpy."""

import math
import pickle
import sqlite3
import struct
from dataclasses import replace
from itertools import pairwise

import numpy as np
import shapely

from drive.core.geometry import polyline_with_heading, relative, wrap_angle
from drive.core.roadmap import Lane, Layer, Polygons, RoadMap
from drive.core.types import AgentType
from drive.datasets.av2 import Av2Reader
from drive.datasets.logged import Entry

CITY, START = "us-pa-pittsburgh-hazelwood", 1_620_000_000_000_000
NAMES = {
    AgentType.VEHICLE: "vehicle", AgentType.PEDESTRIAN: "pedestrian", AgentType.BICYCLE: "bicycle", AgentType.TRAFFIC_CONE: "traffic_cone",
    AgentType.BARRIER: "barrier", AgentType.GENERIC_OBJECT: "czone_sign",
}  # fmt: skip
CAMERA = {"translation": [1.7, 0.0, 1.5], "rotation": [0.5, -0.5, 0.5, -0.5], "intrinsic": [[40.0, 0.0, 32.0], [0.0, 40.0, 18.0], [0.0, 0.0, 1.0]]}
TABLES = {
    "log": "token BLOB PRIMARY KEY, vehicle_name TEXT, date TEXT, timestamp INTEGER, logfile TEXT, location TEXT, map_version TEXT",
    "ego_pose": "token BLOB PRIMARY KEY, timestamp INTEGER, x FLOAT, y FLOAT, z FLOAT, qw FLOAT, qx FLOAT, qy FLOAT, qz FLOAT, vx FLOAT, vy FLOAT, vz FLOAT, "
    "acceleration_x FLOAT, acceleration_y FLOAT, acceleration_z FLOAT, angular_rate_x FLOAT, angular_rate_y FLOAT, angular_rate_z FLOAT, epsg INTEGER, log_token BLOB",
    "lidar_pc": "token BLOB PRIMARY KEY, next_token BLOB, prev_token BLOB, ego_pose_token BLOB, lidar_token BLOB, scene_token BLOB, filename TEXT, timestamp INTEGER",
    "lidar_box": "token BLOB PRIMARY KEY, lidar_pc_token BLOB, track_token BLOB, next_token BLOB, prev_token BLOB, x FLOAT, y FLOAT, z FLOAT, width FLOAT, "
    "length FLOAT, height FLOAT, vx FLOAT, vy FLOAT, vz FLOAT, yaw FLOAT, confidence FLOAT",
    "track": "token BLOB PRIMARY KEY, category_token BLOB, width FLOAT, length FLOAT, height FLOAT",
    "category": "token BLOB PRIMARY KEY, name TEXT, description TEXT",
    "scene": "token BLOB PRIMARY KEY, log_token BLOB, name TEXT, goal_ego_pose_token BLOB, roadblock_ids TEXT",
    "traffic_light_status": "token BLOB PRIMARY KEY, lidar_pc_token BLOB, lane_connector_id INTEGER, status TEXT",
    "scenario_tag": "token BLOB PRIMARY KEY, lidar_pc_token BLOB, type TEXT, agent_track_token BLOB",
    "camera": "token BLOB PRIMARY KEY, log_token BLOB, channel TEXT, model TEXT, translation BLOB, rotation BLOB, intrinsic BLOB, distortion BLOB, width INTEGER, height INTEGER",
    "image": "token BLOB PRIMARY KEY, next_token BLOB, prev_token BLOB, ego_pose_token BLOB, camera_token BLOB, filename_jpg TEXT, timestamp INTEGER",
}  # fmt: skip


def av2_log(folder, split="val"):
    """The Log that the AV2 reader gives of a folder, its RoadMap as nuPlan can hold it, and the lanes of its route."""
    from drive.datasets.logs import LogScenes

    scenes = LogScenes(Av2Reader().read(Entry(folder.name, folder, split)))
    road_map = bridged(scenes.road_map)
    route = list(scenes.route.lane_ids)
    for old, new in pairwise(scenes.route.lane_ids):
        between = set(road_map.lanes[old].successors) & set(road_map.lanes[new].predecessors)
        route[route.index(new) : route.index(new)] = sorted(between)[:1]
    return scenes.log, road_map, tuple(route)


def bridged(road_map):
    """The map with 4 cm of the other kind between two lanes, or two connectors, that follow each other: nuPlan alternates them."""
    lanes, rings = dict(road_map.lanes), []
    for key, lane in road_map.lanes.items():
        for other in lane.successors:
            if other in road_map.lanes and road_map.lanes[other].is_connector == lane.is_connector:
                name = str(2_000_000 + len(lanes))
                pose = lane.centerline[-1]
                ahead, side = 0.02 * np.array([math.cos(pose[2]), math.sin(pose[2])]), np.array([-math.sin(pose[2]), math.cos(pose[2])])
                line = np.stack([pose[:2] - ahead, pose[:2] + ahead])
                bridge = Lane(name, polyline_with_heading(line), line + side, line - side, lane.speed_limit, not lane.is_connector, "straight", f"bridge_{name}")
                lanes[name] = replace(bridge, successors=(other,))
                lanes[key] = replace(lanes[key], successors=tuple(name if k == other else k for k in lanes[key].successors))
                rings.append((name, Layer.LANE if lane.is_connector else Layer.LANE_CONNECTOR, np.concatenate([bridge.left, bridge.right[::-1]])))
    before = {key: tuple(other for other in lanes if key in lanes[other].successors) for key in lanes}  # the source names some links at one end alone
    lanes = {key: replace(lane, predecessors=before[key]) for key, lane in lanes.items()}
    old = road_map.polygons
    rings = [(token, Layer(int(old.layers[i])), old.ring(i)) for i, token in enumerate(old.tokens)] + rings
    return RoadMap(road_map.name, lanes, Polygons.from_rings(rings))


def token(kind, number):
    return bytes([sum(kind.encode()) % 256]) + number.to_bytes(7, "big")


def quaternion(angle):
    return [math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)]


def numbered(keys):
    """Integer ids, as nuPlan's are: those that are numbers stay."""
    return {key: int(key) if key.isdigit() else 1_000_000 + index for index, key in enumerate(dict.fromkeys(keys))}


def blocks_of(road_map, lane_ids):
    """Roadblock ids of a route as the written map has them."""
    ids = numbered(lane.roadblock for lane in road_map.lanes.values())
    return [ids[road_map.lanes[key].roadblock] for key in lane_ids]


def write_db(path, log, shift=(0.0, 0.0), roadblocks=(), lights=(), images=None, scene_steps=200):
    """A `.db` at 20 Hz: `lights` are (connector, first step, last step, status); `images` a folder of sensor data gets CAM_F0 at 10 Hz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    offset = log.origin + np.asarray(shift)
    rows = {name: [] for name in TABLES}
    rows["log"].append((token("log", 0), "veh-01", "2021-05-12", START, path.stem, CITY, CITY))
    steps, ego, agents = log.steps, log.ego, log.agents.steps(0, log.steps)
    for k in range(2 * steps - 1):
        low, high = k // 2, (k + 1) // 2
        pose = ego.poses_world[low] + 0.5 * (ego.poses_world[high] - ego.poses_world[low]) * (k % 2)
        x, y = pose[:2] + offset
        motion = [*ego.velocity_ego[low], 0.0, *ego.acceleration_ego[low], 0.0, 0.0, 0.0, ego.yaw_rate[low]]
        rows["ego_pose"].append((token("ego", k), START + 50_000 * k + 333, x, y, 0.0, *quaternion(pose[2]), *motion, 32617, token("log", 0)))
        scene = token("scene", low // scene_steps)
        rows["lidar_pc"].append((token("pc", k), None, None, token("ego", k), token("lidar", 0), scene, f"pc_{k}.pcd", START + 50_000 * k))
    for k in range((steps - 1) // scene_steps + 1):
        rows["scene"].append((token("scene", k), token("log", 0), f"scene-{k:03d}", token("ego", 2 * steps - 2), " ".join(map(str, roadblocks))))
    for index, name in enumerate(NAMES.values()):
        rows["category"].append((token("category", index), name, ""))
    kinds = list(NAMES)
    for a in range(len(agents)):
        size = [float(v) for v in agents.size[a]]
        rows["track"].append((token("track", a), token("category", kinds.index(AgentType(int(agents.types[a])))), size[1], size[0], size[2]))
        for k in np.flatnonzero(agents.valid[a]):
            pose, speed = agents.poses_world[a, k], agents.velocity_world[a, k]
            place = (*(pose[:2] + offset), 0.5, size[1], size[0], size[2], *speed, 0.0, pose[2], 1.0)
            rows["lidar_box"].append((token("box", a * 10_000 + int(k)), token("pc", 2 * int(k)), token("track", a), None, None, *place))
    for number, (lane, first, last, status) in enumerate(lights):
        rows["traffic_light_status"] += [(token("light", 1000 * number + k), token("pc", 2 * k), int(lane), status) for k in range(first, last + 1)]
    rows["scenario_tag"] += [(token("tag", 0), token("pc", 41), "starting_left_turn", None), (token("tag", 1), token("pc", 40), "high_magnitude_speed", None)]
    camera = [pickle.dumps(CAMERA[key]) for key in ("translation", "rotation", "intrinsic")]
    rows["camera"].append((token("camera", 0), token("log", 0), "CAM_F0", "m", *camera, pickle.dumps([-0.3, 0.1, 0.0, 0.0, 0.0]), 64, 36))
    if images is not None:
        for k in range(steps):
            name = f"{path.stem}/CAM_F0/{k:04d}.jpg"
            rows["image"].append((token("image", k), None, None, token("ego", 2 * k), token("camera", 0), name, START + 100_000 * k - 20_000))
            write_image(images / name, 10 + k)
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as db:
        for name, columns in TABLES.items():
            db.execute(f"CREATE TABLE {name} ({columns})")
            if rows[name]:
                db.executemany(f"INSERT INTO {name} VALUES ({','.join('?' * len(rows[name][0]))})", [tuple(map(plain, row)) for row in rows[name]])
    db.close()
    return path


def write_image(path, shade):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((36, 64, 3), shade, np.uint8)).save(path, quality=95)


def plain(value):
    return float(value) if isinstance(value, np.floating) else int(value) if isinstance(value, np.integer) else value


def edit(path, *statements):
    """Change a database or map in place."""
    with sqlite3.connect(path) as db:
        for statement in statements:
            db.execute(*([statement] if isinstance(statement, str) else statement))
    db.close()


def geometry(shape, code):
    """A GeoPackage blob: header with envelope, then WKB."""
    x0, y0, x1, y1 = shape.bounds
    return b"GP\0\x03" + struct.pack("<i4d", code, x0, x1, y0, y1) + shapely.to_wkb(shape)


LAYERS = {
    "lanes_polygons": "lane_fid INTEGER, lane_group_fid INTEGER, lane_index INTEGER, speed_limit_mps REAL, left_boundary_fid INTEGER, right_boundary_fid INTEGER",
    "lane_connectors": "exit_lane_fid INTEGER, entry_lane_fid INTEGER, lane_group_connector_fid INTEGER, intersection_fid INTEGER, speed_limit_mps REAL",
    "gen_lane_connectors_scaled_width_polygons": "lane_connector_fid INTEGER, left_boundary_fid INTEGER, right_boundary_fid INTEGER",
    "lane_groups_polygons": "creator_id INTEGER", "lane_group_connectors": "intersection_fid INTEGER", "intersections": "intersection_type_fid INTEGER",
    "generic_drivable_areas": "creator_id INTEGER", "carpark_areas": "creator_id INTEGER", "crosswalks": "creator_id INTEGER",
    "baseline_paths": "lane_fid REAL, lane_connector_fid REAL", "boundaries": "boundary_type_fid INTEGER",
}  # fmt: skip


def map_rows(road_map):
    """Records (fid, geometry, columns...) of each layer of a RoadMap whose lanes and connectors alternate."""
    lanes = road_map.lanes
    ids, blocks = numbered(lanes), numbered(lane.roadblock for lane in lanes.values())
    junctions = numbered(lane.junction for lane in lanes.values() if lane.junction)
    shapes = {}
    for i, name in enumerate(road_map.polygons.tokens):
        shapes.setdefault((Layer(int(road_map.polygons.layers[i])), name), []).append(shapely.Polygon(road_map.polygons.ring(i)))
    rows = {name: [] for name in LAYERS}
    for key, lane in lanes.items():
        fid, line = ids[key], shapely.LineString(lane.centerline[:, :2])
        shape = shapely.MultiPolygon(shapes[Layer.LANE_CONNECTOR if lane.is_connector else Layer.LANE, key])
        edges = (10_000_000 + 2 * fid, 10_000_001 + 2 * fid)
        for edge, points, beside in zip(edges, (lane.left, lane.right[::-1]), (lane.left_neighbor, lane.right_neighbor)):
            rows["boundaries"].append((edge, shapely.LineString(points), 0 if beside else 2))
        rows["baseline_paths"].append((fid, line, *((None, fid) if lane.is_connector else (fid, None))))
        if lane.is_connector:
            ends = [next((ids[k] for k in side if not lanes[k].is_connector), None) for side in (lane.predecessors, lane.successors)]
            rows["lane_connectors"].append((fid, line, *ends, blocks[lane.roadblock], junctions.get(lane.junction), lane.speed_limit))
            rows["gen_lane_connectors_scaled_width_polygons"].append((5_000_000 + fid, shape, fid, *edges))
        else:
            group = [other for other in lanes.values() if other.roadblock == lane.roadblock and not other.is_connector]
            middle = lane.centerline[len(lane.centerline) // 2]
            to_left = [relative(middle, other.centerline[len(other.centerline) // 2])[1] > 0.5 for other in group]
            rows["lanes_polygons"].append((fid, shape, fid, blocks[lane.roadblock], sum(to_left), lane.speed_limit, *edges))
    for name, layer in (("lane_groups_polygons", Layer.ROADBLOCK), ("intersections", Layer.INTERSECTION)):
        for (kind, key), parts in shapes.items():
            if kind is layer and key in (blocks if name == "lane_groups_polygons" else junctions):
                number = blocks[key] if name == "lane_groups_polygons" else junctions[key]
                rows[name].append((number, shapely.MultiPolygon(parts), 0))
    area = [part for (kind, _), parts in shapes.items() if kind is Layer.DRIVABLE_AREA for part in parts]
    rows["generic_drivable_areas"] = [(k, part, 0) for k, part in enumerate(area)]
    return rows


def write_map(path, rows, origin, code=32617, target="epsg:32617"):
    """A `map.gpkg` of layer rows in the shifted frame; in degrees for code 4326 (needs pyproj)."""
    change = None
    if code == 4326:
        from pyproj import Transformer

        change = Transformer.from_crs(target, "epsg:4326", always_xy=True)

    def stored(shape):
        points = shapely.get_coordinates(shape) + origin
        return shapely.set_coordinates(shape, points if change is None else np.column_stack(change.transform(*points.T)))

    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE gpkg_contents (table_name TEXT PRIMARY KEY, data_type TEXT, srs_id INTEGER)")
        db.execute("CREATE TABLE gpkg_geometry_columns (table_name TEXT PRIMARY KEY, column_name TEXT, geometry_type_name TEXT, srs_id INTEGER, z INTEGER, m INTEGER)")
        db.execute("CREATE TABLE meta (fid INTEGER PRIMARY KEY, key TEXT, value TEXT)")
        db.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", [("geographicCoordSystem", "epsg:4326"), ("projectedCoordSystem", target)])
        for name, columns in LAYERS.items():
            db.execute(f"CREATE TABLE {name} (fid INTEGER PRIMARY KEY, geom BLOB, {columns})")
            db.execute("INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', 'GEOMETRY', ?, 0, 0)", (name, code))
            for fid, shape, *values in rows[name]:
                db.execute(f"INSERT INTO {name} VALUES ({','.join('?' * (2 + len(values)))})", (fid, geometry(stored(shape), code), *map(plain, values)))
    db.close()
    return path


def write_maps(maps, road_map, log, shift=(0.0, 0.0), code=32617):
    """The map below a folder of maps, where nuPlan keeps it."""
    return write_map(maps / CITY / "9.17.1937" / "map.gpkg", map_rows(road_map), log.origin + np.asarray(shift), code)


def navsim_frames(log, roadblocks=(), lights=(), split="test", shift=(0.0, 0.0), sensors=None):
    """Frames of a NAVSIM log pickle at 2 Hz, as OpenScene's create_openscene_metadata.py makes them."""
    out = []
    offset, agents = log.origin + np.asarray(shift), log.agents.steps(0, log.steps)
    for number, k in enumerate(range(0, log.steps, 5)):
        pose = log.ego.poses_world[k] + [*offset, 0.0]
        motion = [*log.ego.velocity_ego[k], *log.ego.acceleration_ego[k]]
        seen = np.flatnonzero(agents.valid[:, k])
        local = relative(log.ego.poses_world[k], agents.poses_world[seen, k]).reshape(-1, 3)
        c, s = math.cos(pose[2]), math.sin(pose[2])
        speed = agents.velocity_world[seen, k] @ np.array([[c, -s], [s, c]])
        boxes = np.column_stack([local[:, :2], np.full(len(seen), 0.5), agents.size[seen], wrap_angle(local[:, 2])]).reshape(-1, 7)
        can_bus = np.array([*pose[:2], 0.0, *quaternion(pose[2]), *motion[2:], 9.8, *motion[:2], 0.0, 0.0, 0.0, log.ego.yaw_rate[k], 0.0, 0.0])
        name = f"{log.log_id}/CAM_F0/{k:04d}.jpg"
        if sensors is not None:
            write_image(sensors / name, 10 + k)
        turn = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
        camera = {
            "data_path": name, "sensor2lidar_rotation": turn, "sensor2lidar_translation": np.array(CAMERA["translation"]),
            "cam_intrinsic": np.array(CAMERA["intrinsic"]), "distortion": np.array([-0.3, 0.1, 0.0, 0.0, 0.0]),
        }  # fmt: skip
        command = np.zeros(4, int)
        command[(1, 0, 2, 3)[number % 4]] = 1
        out.append({
            "token": f"{log.log_id}-{number:04x}", "frame_idx": number, "timestamp": START + 100_000 * k, "log_name": log.log_id, "log_token": "l",
            "scene_name": "log-0001-scene-000", "scene_token": "s", "map_location": CITY, "roadblock_ids": [str(b) for b in roadblocks],
            "vehicle_name": "veh-01", "can_bus": can_bus, "lidar_path": "x.pcd", "lidar2ego_translation": np.zeros(3), "lidar2ego_rotation": [1.0, 0.0, 0.0, 0.0],
            "ego2global_translation": can_bus[:3], "ego2global_rotation": can_bus[3:7], "ego_dynamic_state": [float(v) for v in motion],
            "traffic_lights": [(int(lane), status == "red") for lane, first, last, status in lights if first <= k <= last],
            "driving_command": command, "cams": {"CAM_F0": camera},
            "anns": {
                "gt_boxes": boxes, "gt_names": np.array([NAMES[AgentType(int(agents.types[a]))] for a in seen]),
                "gt_velocity_3d": np.column_stack([speed, np.zeros(len(seen))]).reshape(-1, 3),
                "instance_tokens": [f"{agents.ids[a]}-{k}" for a in seen], "track_tokens": [agents.ids[a] for a in seen],
            },
        })  # fmt: skip
    return out


def write_navsim(path, frames):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(frames, protocol=4))
    return path
