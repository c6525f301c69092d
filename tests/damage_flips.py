"""`python tests/damage_flips.py [places]`: of flipped bytes, which share each format tells; the table of docs/datasets.md."""

import sys
import tempfile
from collections import Counter
from pathlib import Path

from damage_sources import SOURCES, Fate, Outcome, Source, files_of, judge, outcome

from drive.core.seeds import numpy_rng


def flip(path: Path, at: int, bits: int) -> None:
    """Flip `bits` of the byte `at` of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= bits
    path.write_bytes(content)


def places(source: Source, root: Path, pattern: str, count: int, seed: int) -> list[tuple[Path, int, int]]:
    """Seeded (file, byte, bits) over the files of one pattern, each byte as likely as any other."""
    files = files_of(source, root, (pattern,))
    ends = [sum(path.stat().st_size for path in files[: k + 1]) for k in range(len(files))]
    draw = numpy_rng(seed, source.name, pattern)
    found = []
    for _ in range(count):
        at = int(draw.integers(ends[-1]))
        number = next(k for k, end in enumerate(ends) if at < end)
        found.append((files[number], at - ends[number] + files[number].stat().st_size, 1 << int(draw.integers(8))))
    return found


def flipped(source: Source, root: Path, pattern: str, count: int, before: Outcome, seed: int = 0) -> list[Fate]:
    """What became of each of `count` flips in the files of `pattern` of a set written below `root`, one at a time."""
    fates = []
    for path, at, bits in places(source, root, pattern, count, seed):
        flip(path, at, bits)
        try:
            fates.append(judge(source, before, outcome(source, root), shared=pattern in source.shared))
        finally:
            flip(path, at, bits)
    return fates


def main() -> None:
    """Print the shares."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    for source in SOURCES.values():
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            source.write(root)
            before = outcome(source, root)
            for pattern in (*source.own, *source.records, *source.shared):
                found = Counter(flipped(source, root, pattern, count, before))
                total = sum(found.values())
                print(f"{source.name:24s} {pattern:48s} " + "  ".join(f"{fate.value} {found[fate]} of {total}" for fate in Fate), flush=True)


if __name__ == "__main__":
    main()
