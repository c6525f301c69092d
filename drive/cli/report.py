"""usage: drive report RUN

Writes or refreshes report.html in a run folder: what was run, curves of every metric and, where the folder holds an evaluation,
its table with the best and worst plans. One file: it can be mailed, opened without a network, and printed.

examples:
  drive report runs/20260131-235959-grpo
  drive eval planner=vla checkpoint=RUN out=RUN && drive report RUN    with a fresh evaluation in it
"""

from __future__ import annotations

HELP = "write or refresh the one-file HTML report of a run"


def run(argv: list[str]) -> int:
    """Write the report of the run folder named."""
    from drive.core.errors import ConfigError
    from drive.core.runs import RunFolder
    from drive.report.html import write_report

    if len(argv) != 1:
        raise ConfigError("drive report takes one run folder: drive report runs/<date>-<name>")
    print(write_report(RunFolder.open(argv[0])))
    return 0
