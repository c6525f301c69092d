"""Examples:
  drive tokenizer fit                                                 a codebook of the embedded world, into out/codebook
  drive tokenizer fit tokenizer.k=1024 out=out/k1024
  drive tokenizer fit dataset=scenarionet dataset.root=/data/scenarionet out=out/nuscenes
  drive tokenizer report out=out/nuscenes dataset=scenarionet dataset.root=/data/scenarionet report_split=test

`report` prints reconstruction error, coverage, usage, speed cap and infeasible tokens on plans that the fit has not seen, and draws
the codebook.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

HELP = "fit an action codebook, or report how well one reconstructs plans"


def run(argv: list[str]) -> int:
    """`drive tokenizer fit|report [key=value …]`."""
    from omegaconf import OmegaConf

    from drive.cli.config import load_config, to_dataclass
    from drive.core.errors import ConfigError
    from drive.core.types import PLAN_STEPS
    from drive.datasets.select import select
    from drive.datasets.splits import refuse_evaluation_split
    from drive.stages.codebook import CodebookConfig, ego_plans, fit_codebook
    from drive.tokenizers.kdisk import KDiskTokenizer
    from drive.tokenizers.report import plot_codebook, report

    if not argv or argv[0] not in ("fit", "report"):
        raise ConfigError("drive tokenizer takes one action: drive tokenizer fit, or drive tokenizer report")
    config: Any = OmegaConf.to_container(load_config("tokenizer", argv[1:]), resolve=True)
    section = to_dataclass({k: v for k, v in config["tokenizer"].items() if k not in ("name", "codebook")}, CodebookConfig, "tokenizer")
    folder = Path(config["out"])
    if argv[0] == "fit":
        refuse_evaluation_split(config["split"], can_force=False)
        data = select(config["dataset"], config["split"])
        codebook = fit_codebook(data.scenarios, section, data.fingerprint)
        codebook.save(folder)
        print(codebook.record)
        print(f"written: {folder}")
        return 0
    codebook = KDiskTokenizer.load(folder, expect_dt=section.dt)
    data = select(config["dataset"], config["report_split"])
    print(report(codebook, ego_plans(data.scenarios, PLAN_STEPS, codebook.dt)))
    plot = Path(config["plot"] or folder / "codebook.png")
    plot_codebook(codebook, plot)
    print(f"plot: {plot}")
    return 0
