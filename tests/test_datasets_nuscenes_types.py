"""Fields of nuScenes' tables that are of another type than the schema has: one line, never a traceback."""

import json

import pytest
from nuscenes_files import SAMPLES, VERSION, tables, write

from drive.core.errors import DataError
from drive.datasets.nuscenes import NuScenesDataset


def edited(root, table, index, change):
    path = root / VERSION / f"{table}.json"
    records = json.loads(path.read_text())
    change(records[index])
    path.write_text(json.dumps(records))


WRONG = {
    "a list for a token": ("sample_data", "sample_token", []),
    "a record for an instance": ("sample_annotation", "instance_token", {}),
    "a list for a scene": ("scene", "token", ["x"]),
    "a list for a scene's name": ("scene", "name", ["x"]),
    "null for a scene's name": ("scene", "name", None),
    "a number for a category": ("category", "name", 3),
    "null for a file": ("sample_data", "filename", None),
    "a number for a place": ("log", "location", 7),
    "a number for a channel": ("sensor", "channel", 1),
    "null for a next sample": ("sample", "next", None),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_what_is_no_text_is_told_by_file_and_record(tmp_path, case):
    table, field, value = case
    edited(write(tmp_path, tables()), table, 0, lambda record: record.update({field: value}))
    with pytest.raises(DataError, match=rf"{table}\.json: the {field} of record 0 is .*, no text"):
        NuScenesDataset(tmp_path, "test", VERSION, camera="CAM_FRONT")


@pytest.mark.parametrize("width", ["1600", None, True, 64.0, [64]])
def test_a_size_that_is_no_number_of_pixels_costs_its_scene(tmp_path, width):
    edited(write(tmp_path, tables(), images=True), "sample_data", 1, lambda record: record.update(width=width))
    data = NuScenesDataset(tmp_path, "test", VERSION, camera="CAM_FRONT")
    assert len(data) == SAMPLES and data.expected == 2 * SAMPLES and len(data.faults) == 1
    assert "sample_data.json: the size of samples/cam-scene-0103-0.jpg of scene-0103 is" in data.faults[0] and "no pixels" in data.faults[0]
