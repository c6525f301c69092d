"""usage: drive report FOLDER

Writes or refreshes report.html in a run folder: what was run, curves of every metric and, where the folder holds an evaluation,
its table with the best and worst plans. In the folder of an evaluation alone (drive eval out=), its table and plans; of a closed loop, where drive eval has written it already, its place. One file: it can be
mailed, opened without a network, and printed.

examples:
  drive report runs/20260131-235959-grpo
  drive eval planner=vla out=out/eval && drive report out/eval
  drive eval planner=vla checkpoint=RUN out=RUN && drive report RUN    with a fresh evaluation in it
"""

from __future__ import annotations

HELP = "write or refresh the one-file HTML report of a run or an evaluation"


def run(argv: list[str]) -> int:
    """Write the report of the folder named."""
    from pathlib import Path

    from drive.core.errors import ConfigError
    from drive.core.runs import STATUS, RunFolder
    from drive.report.html import write_evaluation_report, write_report
    from drive.report.tables import RESULTS, holds_closed_loop

    if len(argv) != 1:
        raise ConfigError("drive report takes one run folder or evaluation folder: drive report runs/<date>-<name>")
    folder = Path(argv[0])
    if holds_closed_loop(folder):
        page = folder / "report.html"
        if not page.is_file():
            raise ConfigError(f"{folder} holds a closed-loop evaluation without its report: the drive eval that made it writes it again, with the same out=")
        print(page)
        return 0
    evaluation = (folder / RESULTS).is_file() and not (folder / STATUS).is_file()
    print(write_evaluation_report(folder) if evaluation else write_report(RunFolder.open(folder)))
    return 0
