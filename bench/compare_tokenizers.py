"""The action tokenizers side by side: `python bench/compare_tokenizers.py --root data/embedded --out out/compare`.

Each is fitted on the training split of the embedded world and reported on the plans of its test split. Then the tiny model is
fine-tuned on each (SFT alone, equal seed, steps and settings, fast answers, hard labels) and scored by pdms_v1_1 on test scenes,
evenly spread. `--only NAME` does one of them; each leaves a file in --out, and the table is printed over all that are there.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from drive.benchmarks.pdms import evaluate_pdms
from drive.cli.config import load_config
from drive.cli.train import load_splits, starting_policy, typed_sections
from drive.core.runs import RunFolder
from drive.core.types import PLAN_STEPS, Scenario
from drive.datasets.select import select, spread
from drive.planners.vla.planner import VlaPlanner
from drive.planners.vla.policy import VlaPolicy
from drive.stages.codebook import KINDS, ego_plans
from drive.stages.sft import train_sft

HEAD = (
    "| tokenizer | ADE cm | FDE cm | heading deg | coverage % | usage % | vocabulary | tokens per plan | infeasible % | pdms_v1_1 [95 %] | undecodable |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def settings(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The train config of one tokenizer: the project's own for the tiny model, less what suits one tokenizer alone."""
    overrides = [f"tokenizer={name}", f"dataset.root={arguments.root}", "dataset.workers=1", f"stage.seed={arguments.seed}"]
    budget = [
        f"stage.steps={arguments.steps}",
        f"stage.batch={arguments.batch}",
        f"stage.micro_batch={arguments.batch}",
        f"stage.checkpoint_every={arguments.steps}",
        "stage.validate_scenes=0",
        f"stage.max_scenes={arguments.scenes}",
    ]
    alike = [
        "stage.label_spread=0.0",
        "stage.slow_share_complex=0.0",
        "stage.slow_share_simple=0.0",
        f"stage.optim.embedding_lr_share={arguments.embedding_lr_share}",
    ]
    config = load_config("train", ["stage=sft", *overrides, *budget, *alike, f"threads={arguments.threads}", "device=cpu"])
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return plain


def row(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures of one tokenizer."""
    config = settings(name, arguments)
    policy = starting_policy(config, cache(partial(load_splits, config)))
    test = select(config["dataset"], "test").scenarios
    figures = policy.codebook.report(ego_plans(test, PLAN_STEPS, policy.codebook.dt)).to_dict()
    folder = RunFolder.create(Path(arguments.out) / "runs", name, config, ["bench/compare_tokenizers.py", *sys.argv[1:]], "sft")
    start = time.perf_counter()
    train_sft(folder, policy, load_splits(config).train.scenarios, None, typed_sections(config)["stage"])
    took = time.perf_counter() - start
    return {"name": name, "report": figures, **scored(policy, test, arguments.test_scenes), "training_s": took, **vars(arguments)}


def scored(policy: VlaPolicy, test: Sequence[Scenario], count: int) -> dict[str, Any]:
    """pdms_v1_1 (0-100) of greedy fast plans on `count` test scenes, its 95 % interval over logs, and how many plans did not
    decode."""
    result = evaluate_pdms([test[i] for i in spread(len(test), count)], VlaPlanner(policy, "fast"), batch=25)
    low, high = result.interval("score")
    failed = sum(found.poses_ego is None for found in result.rows)
    return {
        "pdms_v1_1": 100.0 * result.mean("score"),
        "interval": [100.0 * low, 100.0 * high],
        "logs": result.logs,
        "undecodable": failed,
    }


def line(found: dict[str, Any]) -> str:
    """One row of the table."""
    r = found["report"]
    shown = [100.0 * r["ade"], 100.0 * r["fde"], r["heading_error_deg"], 100.0 * r["rebuilt"], 100.0 * r["usage"]]
    cells = [f"{value:.2f}" for value in shown[:3]] + [f"{value:.1f}" for value in shown[3:]]
    low, high = found["interval"]
    score = f"{found['pdms_v1_1']:.1f} [{low:.1f}, {high:.1f}]"
    cells += [
        f"{r['vocab_size']:,}",
        f"{r['tokens_per_plan']:.1f}",
        f"{100.0 * r['infeasible']:.2f}",
        score,
        str(found["undecodable"]),
    ]
    return f"| {found['name']} | {' | '.join(cells)} |"


def main() -> None:
    """Do the tokenizers asked for, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data/embedded", help="folder of the embedded scenes; made where they are not there")
    parser.add_argument("--out", default="out/compare")
    parser.add_argument("--only", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--scenes", type=int, default=1500, help="training scenes")
    parser.add_argument("--test-scenes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--embedding-lr-share", type=float, default=1.0, help="of the learning rate, for the rows of the tokens")
    arguments = parser.parse_args()
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        (out / f"{name}.json").write_text(json.dumps(row(name, arguments), indent=1))
    found = [json.loads((out / f"{name}.json").read_text()) for name in KINDS if (out / f"{name}.json").is_file()]
    print("\n".join([HEAD, *map(line, found)]))
    before = 100.0 * found[0]["report"]["infeasible_before"]
    plans, took = found[0]["report"]["plans"], ", ".join(f"{each['name']} {each['training_s']:.0f}" for each in found)
    print(f"\n{arguments.test_scenes} scenes of {found[0]['logs']} logs scored; training took, in s: {took}")
    print(f"{plans} test plans; of their own steps {before:.2f} % lie outside the bounds")


if __name__ == "__main__":
    main()
