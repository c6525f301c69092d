"""Exports in py123d's layout: the command, what it keeps, and what it refuses to write or to take for its own."""

import shutil
from dataclasses import replace
from pathlib import Path

import av2_files
import py123d_files as files
import pytest

from drive.cli import main
from drive.core.errors import DataError
from drive.datasets.av2 import Av2Reader
from drive.datasets.convert import convert
from drive.datasets.py123d import Py123dReader
from drive.datasets.py123d_export import CARD, export, write_log

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return files.log(tmp_path_factory.mktemp("images"))


def test_the_command_exports_and_reads_back(tmp_path, capsys):
    av2_files.write(tmp_path / "av2" / "val" / "log-a")
    av2_files.write(tmp_path / "av2" / "train" / "log-b")
    (av2_files.write(tmp_path / "av2" / "train" / "log-c") / "annotations.feather").write_bytes(b"torn")
    out = tmp_path / "out"
    command = ["data", "export-123d", "dataset=av2", f"dataset.root={tmp_path}/av2", f"out={out}"]
    assert main(command) == 1
    told = capsys.readouterr().out
    assert "2 logs written, 0 there before, 1 not read" in told and "not read: " in told and "log-c" in told
    assert main(command) == 1 and "0 logs written, 2 there before, 1 not read" in capsys.readouterr().out
    (out / "logs" / "av2_val" / "log-a" / "sync.arrow").unlink()  # as a killed export leaves it
    assert main([*command, "split=val"]) == 0 and "1 logs written, 0 there before, 0 not read" in capsys.readouterr().out
    assert main(["data", "inspect", str(out)]) == 0
    told = capsys.readouterr().out
    assert told.count("py123d log") == 2 and "map: lanes" in told and "2 read, 0 faults" in told
    assert main(["data", "card", "dataset=py123d", f"dataset.root={out}", "split=val"]) == 0
    assert "with a map                  7 of 7" in capsys.readouterr().out
    assert main(["data", "export-123d", "dataset=py123d", f"dataset.root={out}", f"out={tmp_path}/again"]) == 2
    assert main(["data", "export-123d", "dataset=av2", f"dataset.root={tmp_path}/av2", f"out={out}", "split=test"]) == 2
    capsys.readouterr()


def test_the_cache_is_exported_as_the_source_that_it_was_made_of(tmp_path, capsys):
    av2_files.write(tmp_path / "av2" / "val" / "log-a")
    assert main(["data", "convert", "dataset=av2", f"dataset.root={tmp_path}/av2", f"out={tmp_path}/cache"]) == 0
    command = ["data", "export-123d", "dataset=cache", f"dataset.root={tmp_path}/cache", f"out={tmp_path}/out"]
    assert main(command) == 0 and "1 logs written, 0 there before" in capsys.readouterr().out
    assert main(command) == 0 and "0 logs written, 1 there before" in capsys.readouterr().out
    assert (tmp_path / "out" / "logs" / "av2_val" / "log-a" / "sync.arrow").is_file()


def test_a_log_whose_name_is_no_folder_is_refused(source, tmp_path):
    for name in ("", "../x", ".hidden", "a/b"):
        with pytest.raises(DataError, match="no name of one"):
            write_log(replace(source, log_id=name), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_export_without_an_image_leaves_no_log(source, tmp_path):
    """Its sync.arrow comes last: it is written again the next time."""
    broken = tuple(tuple(replace(ref, path=Path("gone.jpg")) if ref else None for ref in images) for images in source.images)
    with pytest.raises(DataError, match=r"gone\.jpg"):
        write_log(replace(source, images=broken), tmp_path)
    assert not list(tmp_path.rglob("sync.arrow")) and not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("name", ["../../../evil", "a/b", "..", ".hidden", "a\\b", "a\0b"])
def test_a_source_or_split_that_leads_out_of_the_folder_is_refused(source, tmp_path, name):
    for changes in ({"source": name}, {"split": name}):
        with pytest.raises(DataError, match="no name of one"):
            write_log(replace(source, **changes), tmp_path / "a" / "b" / "c" / "out")
    assert not list(tmp_path.iterdir())


def test_an_export_of_something_else_is_not_taken_for_what_is_asked(tmp_path):
    av2_files.write(tmp_path / "av2" / "val" / "log-a")
    shutil.copytree(tmp_path / "av2", tmp_path / "other")
    out = tmp_path / "out"

    def run(root="av2", split=None, **settings):
        return export(Av2Reader(), tmp_path / root, out, split, settings)

    assert run(cameras=["ring"]).written == 1 and run("av2", "val", cameras=["ring"]).kept == 1
    with pytest.raises(DataError, match=r"exported logs of another source, folder or settings .*cameras.*give another out="):
        run(cameras=[])
    with pytest.raises(DataError, match=r"root .*av2, not .*other"):
        run("other", cameras=["ring"])
    (out / CARD).write_text("torn {")
    with pytest.raises(DataError, match="is no card of an export"):
        run(cameras=["ring"])
    (out / CARD).unlink()
    with pytest.raises(DataError, match=r"holds logs, and no drive_export\.json"):
        run(cameras=["ring"])


def test_two_logs_of_one_id_in_a_run_are_a_fault(tmp_path):
    for folder in ("one", "two"):
        av2_files.write(tmp_path / "av2" / folder / "val" / "log-a")
    for kept in (False, True):
        done = export(Av2Reader(), tmp_path / "av2", tmp_path / "out")
        assert (done.written, done.kept, len(done.faults)) == (not kept, kept, 1)
        assert "log log-a is there twice: remove one of them" in done.faults[0] and str(tmp_path / "av2" / "two") in done.faults[0]


def test_a_file_in_the_way_is_one_line(tmp_path, capsys):
    av2_files.write(tmp_path / "av2" / "val" / "log-a")
    (tmp_path / "file").write_text("mine")
    for out in ("file", "file/below"):
        assert main(["data", "export-123d", "dataset=av2", f"dataset.root={tmp_path}/av2", f"out={tmp_path}/{out}"]) == 2
        told = capsys.readouterr().err
        assert f"{tmp_path}/file is a file: give a folder as out=" in told and "Traceback" not in told
    assert (tmp_path / "file").read_text() == "mine"


def test_a_map_that_was_added_converts_again(source, tmp_path):
    write_log(replace(source, cameras=(), images=()), tmp_path / "in")
    chart = tmp_path / "in" / "logs" / "made-up_val" / "town-1" / "map.arrow"
    chart.rename(tmp_path / "aside")

    def done():
        return convert(Py123dReader(), tmp_path / "in", tmp_path / "cache", progress=False).converted

    assert done() == 1 and done() == 0
    (tmp_path / "aside").rename(chart)
    assert done() == 1 and done() == 0
