"""Run the benchmarks, each in a process of its own, and print one table: python bench/run.py [NAME ...] [--write]."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import platform
import subprocess
import sys
from datetime import date
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"


def main(argv: list[str] | None = None) -> int:
    """Run all benchmarks, or those named; 1 where one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="pdm for bench_pdm.py; all of them if left out")
    parser.add_argument("--write", action="store_true", help="also write docs/performance.md; with names, their sections of it")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # inside the process of one benchmark
    options = parser.parse_args(argv)
    if options.one:
        print(json.dumps(importlib.import_module(f"bench_{options.one}").measure()))
        return 0
    known = sorted(file.stem.removeprefix("bench_") for file in HERE.glob("bench_*.py"))
    unknown = sorted(set(options.names) - set(known))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(known)}")
    parts, failed = {}, []
    print(machine())
    for name in known if not options.names else options.names:
        part = section(name)
        if part is None:
            failed.append(name)
            continue
        print(part, flush=True)
        parts[name] = part
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
        return 1
    if options.write:
        PAGE.parent.mkdir(exist_ok=True)
        kept = sections(PAGE.read_text(encoding="utf-8")) if options.names and PAGE.is_file() else {}
        merged = {name: part for name, part in sorted({**kept, **parts}.items()) if name in known}
        PAGE.write_text("\n".join(["# Performance\n", *merged.values()]), encoding="utf-8")
    return 0


def sections(page: str) -> dict[str, str]:
    """The sections of the page by name, as `section` made them."""
    parts = ("\n" + page).split("\n## ")[1:]
    return {part.split("\n", 1)[0]: f"## {part.rstrip()}\n" for part in parts}


def section(name: str) -> str | None:
    """One benchmark's heading, table, load and machine; None where it failed (its own error is on stderr)."""
    file = HERE / f"bench_{name}.py"
    before = os.times()
    done = subprocess.run([sys.executable, str(HERE / "run.py"), "--one", name], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return None
    after = os.times()
    wall, own = after.elapsed - before.elapsed, after.children_user + after.children_system - before.children_user - before.children_system
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    rows = json.loads(done.stdout.splitlines()[-1])
    lines = [f"## {name}", "", doc, "", "| what | value | unit | note |", "|---|---|---|---|"]
    lines += [f"| {what} | {value:.4g} | {unit} | {note} |" for what, value, unit, note in rows]
    lines += ["", f"Took {wall:.0f} s on {own / wall:.1f} cores; load over the last minute {_load()}. {machine()}", ""]
    return "\n".join(lines)


def machine() -> str:
    """Date, processor, cores, Python and torch, in one line."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        processor = next((line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")), processor)
    return f"{date.today()}, {processor}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {metadata.version('torch')}."


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


if __name__ == "__main__":
    sys.exit(main())
