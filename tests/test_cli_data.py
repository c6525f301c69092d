"""`drive data inspect | convert | card` as a user runs them."""

import json
from collections import Counter
from pathlib import Path

import av2_files
import pytest
import scenarionet_logs
from PIL import Image

from drive.cli import main
from drive.core.errors import DataError
from drive.datasets.inspect import inspect, walk

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    av2_files.write(root / "av2" / "val" / "log-a")
    av2_files.write(root / "av2" / "train" / "log-b")
    return root


def test_inspect_finds_logs_below_a_folder_and_leaves_the_rest(root, capsys):
    (root / "notes.txt").write_text("nothing of ours")
    assert main(["data", "inspect", str(root)]) == 0
    told = capsys.readouterr().out
    assert told.count("Argoverse 2 sensor log") == 2 and "2 read, 0 faults" in told and "notes.txt" not in told
    counts = next(item for item in walk(root) if not isinstance(item, DataError)).counts
    assert counts["frames"] == av2_files.STEPS and counts["tracks"] == 2 and counts["lane segments"] == 5
    assert inspect(root / "notes.txt") is None


def test_inspect_tells_what_it_cannot_read_and_goes_on(root, tmp_path, capsys):
    av2_files.write(tmp_path / "log-a")
    av2_files.write(tmp_path / "log-b")
    (tmp_path / "log-a" / "annotations.feather").write_bytes(b"torn")
    assert main(["data", "inspect", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "not read: " in told and "log-a" in told.split("not read: ")[1].splitlines()[0] and "1 read, 1 fault" in told
    assert main(["data", "inspect", str(tmp_path / "absent")]) == 2 and "does not exist" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["data", "inspect", str(tmp_path / "empty")]) == 2 and "of a source that drive knows" in capsys.readouterr().err


def test_convert_then_card_and_eval_on_the_cache(root, tmp_path, capsys):
    cache = tmp_path / "cache"
    command = ["data", "convert", "dataset=av2", f"dataset.root={root}/av2", f"out={cache}"]
    assert main(command) == 0 and "2 logs converted, 0 there before" in capsys.readouterr().out
    assert main(command) == 0 and "0 logs converted, 2 there before" in capsys.readouterr().out
    assert main(["data", "inspect", str(cache)]) == 0 and "converted logs" in capsys.readouterr().out
    card = tmp_path / "card"
    assert main(["data", "card", "dataset=cache", f"dataset.root={cache}", "split=val", f"out={card}"]) == 0
    facts = json.loads((card / "card.json").read_text())
    assert facts["scenes"] == facts["scenes expected"] == 7 and facts["source"] == "av2 7" and facts["with a map"] == "7 of 7"
    assert "speed (m/s)" in (card / "README.md").read_text() and Image.open(card / "card.png").width > 800
    capsys.readouterr()
    tables = []
    for data in (["dataset=av2", f"dataset.root={root}/av2"], ["dataset=cache", f"dataset.root={cache}"]):
        assert main(["eval", "planner=constant_velocity", "split=val", *data]) == 0
        tables.append(next(line for line in capsys.readouterr().out.splitlines() if line.startswith("constant_velocity")).split()[:6])
    assert tables[0] == tables[1]


def test_a_log_in_two_splits_is_refused(tmp_path, capsys):
    for split in ("train", "val"):
        av2_files.write(tmp_path / split / "log-a")
    assert main(["eval", "planner=constant_velocity", "dataset=av2", f"dataset.root={tmp_path}", "split=val"]) == 2
    assert "log log-a is in the splits train" in capsys.readouterr().err


def test_bad_actions_and_settings_are_told(tmp_path, capsys):
    assert main(["data", "inspekt", "x"]) == 2 and "did you mean inspect?" in capsys.readouterr().err
    assert main(["data", "inspect"]) == 2 and "takes files or folders" in capsys.readouterr().err
    assert main(["data", "convert", "dataset=embedded", f"out={tmp_path}"]) == 2 and "as fast as it is" in capsys.readouterr().err
    scenarionet_logs.write(tmp_path / "val" / "a.pkl", scenarionet_logs.record())
    bad = ["data", "convert", "dataset=scenarionet", f"dataset.root={tmp_path}", f"out={tmp_path}/c", "workers=0"]
    assert main(bad) == 2 and "workers=0: must be at least 1" in capsys.readouterr().err


@pytest.mark.skipif(not (Path(__file__).resolve().parents[2] / "shared/data/real").is_dir(), reason="the real data is not at hand")
def test_the_real_argoverse_logs_hold_what_their_readme_says():
    real = Path(__file__).resolve().parents[2] / "shared/data/real/argoverse__av2-api"
    found = {item.path.name[:4]: item.counts for item in walk(real) if not isinstance(item, DataError) and "sensor" in item.kind}
    assert {name: (c["frames"], c["tracks"]) for name, c in found.items()} == {"3b35": (157, 119), "7fab": (156, 114), "adcf": (156, 146)}
    assert sorted((c["lane segments"], c["drivable areas"]) for c in found.values()) == [(150, 5), (183, 13), (199, 8)]


@pytest.mark.skipif(not (Path(__file__).resolve().parents[2] / "shared/data/real").is_dir(), reason="the real data is not at hand")
def test_every_real_file_of_a_known_source_is_read():
    pytest.importorskip("numcodecs")
    items = list(walk(Path(__file__).resolve().parents[2] / "shared/data/real"))
    assert not [item for item in items if isinstance(item, DataError)]
    found = [item for item in items if not isinstance(item, DataError)]
    (fault,) = [fault for item in found for fault in item.faults]
    assert "v1.0-mini lacks sample_data.json, ego_pose.json, sample_annotation.json: 3 of the 13 tables" in fault
    kinds = Counter(item.kind for item in found)
    assert kinds["nuPlan test scene"] == 62 and kinds["ScenarioNet log"] == 7 and kinds["Argoverse 2 sensor log"] == 3 and len(found) == 99

    def counts(kind):
        return next(item.counts for item in found if item.kind == kind)

    motion, frame, lyft = counts("Waymo Open Motion scenarios"), counts("Waymo perception segment"), counts("L5Kit zarr")
    assert (motion["steps"], motion["tracks"], motion["map features"], motion["signal states"]) == (91, 83, 301, 91)
    assert (frame["camera images"], frame["3D boxes"], frame["lidar sweeps"]) == (5, 75, 5)
    assert (lyft["frames"], lyft["agent boxes"], lyft["traffic-light faces"]) == (248, 20802, 3216)
    assert counts("plans by sample")["samples"] == 6019 and counts("nuScenes CAN bus")["scenes"] == 7
