"""TFRecord framing and wire format: known checksums, whole files, and every way in which a file can be damaged."""

import struct
import tracemalloc

import numpy as np
import pytest
from waymo_files import damaged, framed, masked, pack, varint, write

from drive.core.errors import DataError
from drive.datasets import tfrecord
from drive.datasets.tfrecord import Record, crc32c, read, record_at, records
from drive.datasets.waymo_wire import Message

DATA = [b"first", b"", b"the third record", bytes(range(256)) * 3]


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "some.tfrecord", *DATA)


def faults(path):
    """(number, fault) of the records that cannot be read, and the data of the others."""
    bad, good = [], []
    for record in records(path):
        try:
            good.append(read(record).tobytes())
        except DataError as error:
            bad.append((record.number, str(error)))
    return bad, good


def message(*fields):
    return Message(np.frombuffer(pack(list(fields)), np.uint8), "file: record 0")


def test_checksums_of_known_bytes():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA and crc32c(b"\xff" * 32) == 0x62A8AB43  # RFC 3720, B.4
    assert crc32c(bytes(range(32))) == 0x46DD794E and crc32c(b"") == 0
    noise = np.random.default_rng(0).integers(0, 256, 1000, np.uint8)
    assert all(tfrecord.masked(noise[:n].tobytes()) == masked(noise[:n].tobytes()) for n in range(40))


def test_records_in_order_with_their_places(path):
    found = list(records(path))
    assert [read(record).tobytes() for record in found] == DATA
    assert [(r.number, r.offset, r.length) for r in found] == [(0, 0, 5), (1, 21, 0), (2, 37, 16), (3, 69, 768)]
    assert all(path.read_bytes()[r.data_offset :].startswith(data) for r, data in zip(found, DATA, strict=True))
    assert record_at(path, 2, 37) == found[2]
    assert list(records(write(path.parent / "empty.tfrecord"))) == []
    with pytest.raises(DataError, match=r"absent\.tfrecord cannot be read"):
        list(records(path.parent / "absent.tfrecord"))


@pytest.mark.parametrize("lost", [1, 5, 700, 772, 776])
def test_a_truncated_file_keeps_what_is_whole(path, lost):
    path.write_bytes(path.read_bytes()[:-lost])
    bad, good = faults(path)
    assert good == DATA[:3] and len(bad) == 1 and bad[0][0] == 3
    assert f"{path}: record 3 at byte 69: the file ends within its" in bad[0][1]


def test_wrong_data_is_one_fault_and_the_rest_is_read(path):
    damaged(path, 37 + 12 + 4)
    bad, good = faults(path)
    assert good == [DATA[0], DATA[1], DATA[3]]
    assert [number for number, _ in bad] == [2] and "record 2 at byte 37: the checksum of its data is wrong" in bad[0][1]
    damaged(path, 37 + 12 + 4)
    damaged(path, 37 + 12 + 16)  # the checksum itself
    assert faults(path)[1] == [DATA[0], DATA[1], DATA[3]]


def test_a_wrong_checksum_of_an_intact_length_is_one_fault(path):
    damaged(path, 37 + 8)
    bad, good = faults(path)
    assert good == [DATA[0], DATA[1], DATA[3]]
    assert [number for number, _ in bad] == [2] and "the checksum of its length is wrong" in bad[0][1] and "lost" not in bad[0][1]
    damaged(path, 37 + 8)
    damaged(path, 69 + 8)  # of the last record, behind which the file ends
    assert faults(path)[1] == DATA[:3]


def test_a_wrong_length_ends_the_file_and_says_what_is_lost(path):
    damaged(path, 37)
    bad, good = faults(path)
    size = path.stat().st_size
    assert good == DATA[:2] and len(bad) == 1 and f"the {size - 37} bytes from there on are lost" in bad[0][1]


def test_a_huge_length_allocates_nothing(tmp_path):
    length = struct.pack("<Q", 1 << 40)
    path = tmp_path / "huge.tfrecord"
    path.write_bytes(framed(b"good") + length + struct.pack("<I", masked(length)) + b"x" * 100)
    tracemalloc.start()
    bad, good = faults(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert good == [b"good"] and "ends within its data" in bad[0][1] and peak < 4_000_000


def test_a_file_that_shrank_since_it_was_listed(path):
    last = list(records(path))[-1]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="record 3 at byte 69: the file ends within its data"):
        read(last)
    with pytest.raises(DataError, match="cannot be read"):
        read(Record(path.parent / "gone", 0, 0, 4))


def test_listing_reads_no_data(tmp_path):
    path = write(tmp_path / "big.tfrecord", bytes(200_000), b"tail")
    opened = path.read_bytes()
    path.write_bytes(opened[:12] + b"\x01" * 200_000 + opened[200_012:])  # wrong data, right lengths
    assert [(r.length, r.fault) for r in records(path)] == [(200_000, ""), (4, "")]


def test_scalars_texts_and_lists_come_back():
    found = message((1, -5), (2, "äb"), (3, 2.5), (4, np.float32(1.5)), (5, np.array([1, 300, -1])), (5, 7), (6, np.array([1.5, 2.5], np.float32)), (7, 8.0), (7, 9.0))
    assert found.integer(1) == -5 and found.text(2) == "äb" and found.real(3) == 2.5 and found.real(4) == 1.5
    assert found.integers(5).tolist() == [1, 300, -1, 7]
    assert found.reals(6).tolist() == [1.5, 2.5] and found.reals(7, 8).tolist() == [8.0, 9.0]
    assert found.integer(90, 3) == 3 and found.text(90) == "" and np.isnan(found.real(90)) and not found.message(90).kinds and found.reals(90).size == 0


def test_tables_of_repeated_messages():
    found = message((3, [(1, 4), (2, 1.25), (9, "x")]), (3, [(2, np.float32(0.5))]), (3, []))
    np.testing.assert_array_equal(found.table(3, (1, 2)), [[4, 1.25], [np.nan, 0.5], [np.nan, np.nan]])
    assert found.table(8, (1, 2)).shape == (0, 2)


def test_spans_tell_where_bytes_stand():
    found = message((1, 2), (2, [(5, b"picture")]))
    begin, end = found.message(2).spans(5)[0]
    assert found.data[begin:end].tobytes() == b"picture"


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a\x7fab",  # a string longer than the message
        b"\x0b",  # a wire type that is not used
        b"\x00\x01",  # field 0
        b"\x09\x01\x02",  # a double of two bytes
        b"\x08" + b"\xff" * 11,  # a number without an end
        b"\x0a" + varint(-1),  # a negative length
        b"\x80",
    ],
)
def test_what_is_no_message_is_said(data):
    with pytest.raises(DataError, match="file: record 0: no such message"):
        _ = Message(np.frombuffer(data, np.uint8), "file: record 0").rows


def test_fields_of_another_kind_are_said():
    found = message((1, "text"), (2, 5), (3, [(1, b"abc")]), (4, b"\x80"))
    for ask in (lambda: found.integer(1), lambda: found.text(2), lambda: found.real(1), lambda: found.table(2, (1,))):
        with pytest.raises(DataError, match="wire type"):
            ask()
    with pytest.raises(DataError, match="no multiple of 4"):
        found.message(3).reals(1)
    with pytest.raises(DataError, match="cut off"):
        found.integers(4)
    with pytest.raises(DataError, match="no such message"):
        message((1, [(2, 1)]), (1, b"\x0a\x7f")).table(1, (2,))


def test_random_bytes_never_do_more_than_raise():
    random = np.random.default_rng(1)
    raised = 0
    for _ in range(300):
        data = random.integers(0, 256, random.integers(1, 60), np.uint8)
        try:
            Message(data, "noise").table(1, (1, 2))
        except DataError:
            raised += 1
    assert raised > 200
