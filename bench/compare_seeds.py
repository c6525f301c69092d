"""GRPO against its SFT start over several demos: `python bench/compare_seeds.py out/seed0 out/seed1 out/seed2`.

Reads results/results.json of each `drive demo seed=… out=…`. Scenes are paired; whole logs are resampled, as scenes of
one drive are not independent. "over seeds" takes the seeds as the sample instead: Student's t over their mean gains.
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy import stats

from drive.benchmarks.statistics import paired_interval


def scores(folder: Path, planner: str) -> dict[str, tuple[float, int, str]]:
    """{scenario id: (score, generated tokens, log)} of one planner of one demo."""
    stored = json.loads((folder / "results" / "results.json").read_text())
    found = next(result for result in stored["results"] if result["planner"] == planner)
    return {row["scenario_id"]: (row["score"], row["tokens"], row["log_id"]) for row in found["rows"]}


def main(folders: list[str]) -> None:
    """Print the table."""
    print("| demo | SFT | GRPO | gain [95 %] | tokens SFT | tokens GRPO | expert |\n| --- | --- | --- | --- | --- | --- | --- |")
    gains, logs = [], []
    for folder in map(Path, folders):
        sft, grpo, expert = (scores(folder, name) for name in ("vla after SFT", "vla after GRPO", "expert"))
        ids = sorted(sft)
        a, b, e = (np.array([row[i][0] for i in ids]) * 100 for row in (sft, grpo, expert))
        ta, tb = (np.mean([row[i][1] for i in ids]) for row in (sft, grpo))
        logs = [sft[i][2] for i in ids]
        mean, (low, high) = paired_interval(b, a, logs)
        gains.append(b - a)
        print(f"| {folder.name} | {a.mean():.1f} | {b.mean():.1f} | {mean:+.1f} [{low:+.1f}, {high:+.1f}] | {ta:.1f} | {tb:.1f} | {e.mean():.1f} |")
    mean, (low, high) = paired_interval(np.mean(gains, axis=0), np.zeros(len(gains[0])), logs)
    print(f"| all {len(gains)}, paired over {len(gains[0])} scenes of {len(set(logs))} logs | | | {mean:+.1f} [{low:+.1f}, {high:+.1f}] | | | |")
    if len(gains) > 1:
        each = np.array([gain.mean() for gain in gains])
        reach = stats.t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / len(each) ** 0.5
        print(f"| over seeds | | | {each.mean():+.1f} [{each.mean() - reach:+.1f}, {each.mean() + reach:+.1f}] | | | |")


if __name__ == "__main__":
    main(sys.argv[1:])
