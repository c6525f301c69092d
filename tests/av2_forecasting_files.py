"""A small Argoverse 2 forecasting scenario of known content, on the road of `av2_files`; needs pyarrow."""

import json

from av2_files import HEADING, SPEED, archive, at

STEPS = 110
TRACKS = (("AV", "vehicle", 1, 0.0, 0.0, 1.0), ("7", "vehicle", 3, 20.0, 0.0, 1.0), ("8", "pedestrian", 2, 30.0, 4.0, 0.0), ("9", "static", 0, 40.0, 5.0, 0.0))


def rows(steps=STEPS):
    """The ego at SPEED, a car 20 m ahead that keeps pace, a walker and a thing that stand; the thing is seen in the first 60 steps."""
    out = []
    for track, kind, category, ahead, left, pace in TRACKS:
        for k in range(steps if track != "9" else min(60, steps)):
            x, y = at(ahead + pace * SPEED * 0.1 * k, left)
            out.append(
                {
                    "observed": k < 50, "track_id": track, "object_type": kind, "object_category": category, "timestep": k, "position_x": x, "position_y": y,
                    "heading": HEADING, "velocity_x": 0.0, "velocity_y": 0.0, "scenario_id": "scene-a", "start_timestamp": 1e18, "city": "austin",
                    "end_timestamp": 1e18 + 1e8 * (steps - 1), "num_timestamps": steps, "focal_track_id": "7", "map_id": 1, "slice_id": "s",
                }
            )  # fmt: skip
    return out


def write(folder, records=None):
    """One scenario's folder, named after it."""
    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir(parents=True)
    (folder / f"log_map_archive_{folder.name}.json").write_text(json.dumps(archive()))
    records = rows() if records is None else records
    for record in records:
        record["scenario_id"] = folder.name
    parquet.write_table(pa.Table.from_pylist(records), folder / f"scenario_{folder.name}.parquet")
    return folder
