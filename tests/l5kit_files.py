"""A small L5Kit zarr of known content, uncompressed: an ego at 6 m/s, a car 20 m ahead, a walker who stands, two faces of a light."""

import json

import numpy as np

LABELS = 17
SPEED, STEPS, HEADING = 6.0, 100, 0.3
X, Y = -640.5, 1059.25  # where a scene starts
CAR, WALKER = 3, 14  # labels
DTYPES = {
    "scenes": [("frame_index_interval", "<i8", (2,)), ("host", "<U16"), ("start_time", "<i8"), ("end_time", "<i8")],
    "frames": [
        ("timestamp", "<i8"), ("agent_index_interval", "<i8", (2,)), ("traffic_light_faces_index_interval", "<i8", (2,)),
        ("ego_translation", "<f8", (3,)), ("ego_rotation", "<f8", (3, 3)),
    ],
    "agents": [
        ("centroid", "<f8", (2,)), ("extent", "<f4", (3,)), ("yaw", "<f4"), ("velocity", "<f4", (2,)), ("track_id", "<u8"),
        ("label_probabilities", "<f4", (LABELS,)),
    ],
    "traffic_light_faces": [("face_id", "<U16"), ("traffic_light_id", "<U16"), ("traffic_light_face_status", "<f4", (3,))],
}  # fmt: skip


def at(s, left=0.0):
    c, n = np.cos(HEADING), np.sin(HEADING)
    return X + c * s - n * left, Y + n * s + c * left


def arrays(scenes=2):
    """The records of all arrays."""
    out = {name: [] for name in DTYPES}
    turn = np.array([[np.cos(HEADING), -np.sin(HEADING), 0.0], [np.sin(HEADING), np.cos(HEADING), 0.0], [0.0, 0.0, 1.0]])
    for scene in range(scenes):
        begin = len(out["frames"])
        for k in range(STEPS):
            stamp, boxes, faces = 10**18 + scene * 10**12 + k * 100_000_000, len(out["agents"]), len(out["traffic_light_faces"])
            for track, label, place, size in ((1, CAR, at(20.0 + SPEED * 0.1 * k), (4.5, 1.8, 1.5)), (2, WALKER, at(30.0, 4.0), (0.6, 0.7, 1.8))):
                out["agents"].append((place, size, HEADING, (0.0, 0.0), track, np.eye(LABELS)[label]))
            out["traffic_light_faces"] += [("red", "L1", (1.0, 0.0, 0.0)), ("green", "L1", (0.0, 1.0, 0.0))][: 2 if k >= 50 else 1]
            spans = ((boxes, len(out["agents"])), (faces, len(out["traffic_light_faces"])))
            out["frames"].append((stamp, *spans, (*at(SPEED * 0.1 * k), 2.0), turn))
        out["scenes"].append(((begin, len(out["frames"])), "host-a1", 0, 1))
    return {name: np.array(records, np.dtype(DTYPES[name])) for name, records in out.items()}


def write(folder, content=None, chunk=64, compressor=None):
    """The zarr folder; `compressor` is a codec of numcodecs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    for name, records in (arrays() if content is None else content).items():
        (folder / name).mkdir(exist_ok=True)
        fields = [[n, records.dtype[n].base.str, *([list(records.dtype[n].shape)] if records.dtype[n].shape else [])] for n in records.dtype.names or ()]
        meta = {
            "zarr_format": 2, "shape": [len(records)], "chunks": [chunk], "order": "C", "filters": None, "fill_value": None, "dtype": fields,
            "compressor": None if compressor is None else compressor.get_config(),
        }  # fmt: skip
        (folder / name / ".zarray").write_text(json.dumps(meta))
        for k in range(0, len(records), chunk):
            part = np.zeros(chunk, records.dtype)
            part[: len(records) - k] = records[k : k + chunk]
            (folder / name / str(k // chunk)).write_bytes(part.tobytes() if compressor is None else compressor.encode(part.tobytes()))
    return folder
