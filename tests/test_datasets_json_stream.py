"""Long JSON lists record by record: the same records as json reads, in bounded memory, and damaged files."""

import json
import tracemalloc

import pytest

from drive.core.errors import DataError
from drive.datasets import json_stream
from drive.datasets.json_stream import json_records

VALUES = [{"a": [1, 2.5, "x, ] } \" é"]}, 12345, "text", None, [], {"b": {"c": [True]}}, -1.5e-3]


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 0, 4])
def test_the_records_of_any_layout_and_block(tmp_path, monkeypatch, block, indent):
    monkeypatch.setattr(json_stream, "BLOCK", block)
    path = tmp_path / "table.json"
    path.write_text(f"\n {json.dumps(VALUES, indent=indent, ensure_ascii=False)} \n", encoding="utf-8")
    assert list(json_records(path)) == VALUES
    path.write_text(" [ \n ] ")
    assert list(json_records(path)) == []


@pytest.mark.parametrize("text", ["", "{}", "3", "[", "[1", "[1,", "[1,]", "[1 2]", "[1] 2", "[,1]", '[{"a": 1]', "[1}", '["torn', "[1, tru"])
@pytest.mark.parametrize("block", [1, 1 << 20])
def test_what_is_no_list_of_records_is_told_by_file(tmp_path, monkeypatch, text, block):
    monkeypatch.setattr(json_stream, "BLOCK", block)
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"table\.json"):
        list(json_records(path))


def test_other_files_are_told(tmp_path):
    (tmp_path / "binary.json").write_bytes(b"[\xff\xfe]")
    for name in ("binary.json", "absent.json"):
        with pytest.raises(DataError, match=name):
            list(json_records(tmp_path / name))


def test_a_record_without_an_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "MAX_RECORD", 1 << 12)
    monkeypatch.setattr(json_stream, "BLOCK", 1 << 10)
    path = tmp_path / "table.json"
    path.write_text('["' + "x" * (1 << 20))
    tracemalloc.start()
    with pytest.raises(DataError, match="cannot be read as JSON"):
        list(json_records(path))
    assert tracemalloc.get_traced_memory()[1] < 1 << 17
    tracemalloc.stop()


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "table.json"
    record = json.dumps({"token": "x" * 32, "values": list(range(50))}, indent=0)
    path.write_text("[" + ",\n".join([record] * 60_000) + "]")
    assert path.stat().st_size > 15_000_000
    tracemalloc.start()
    assert sum(1 for _ in json_records(path)) == 60_000
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()
