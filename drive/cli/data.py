"""Examples:
  drive data generate                                    train, val and test scenes of the embedded world
  drive data generate split=train dataset.train_scenes=10000 dataset.workers=8
  drive data generate dataset.root=/data/big dataset.seed=1

Each split is a folder of episodes with a card. A killed generation goes on where it was: run the same command again.
"""

from __future__ import annotations

from typing import Any

HELP = "generate scene sets of the embedded world"


def run(argv: list[str]) -> int:
    """`drive data generate [key=value …]`."""
    from omegaconf import OmegaConf

    from drive.cli.config import load_config
    from drive.core.errors import ConfigError

    if not argv or argv[0] != "generate":
        raise ConfigError("drive data takes one action: drive data generate [split=train] [dataset.train_scenes=3000]")
    config: Any = OmegaConf.to_container(load_config("data", argv[1:]), resolve=True)
    if config["dataset"]["name"] != "embedded":
        raise ConfigError("only dataset=embedded is generated; logged datasets are read where they are")
    from drive.datasets.select import select

    for split in [config["split"]] if config["split"] else ["train", "val", "test"]:
        data = select(config["dataset"], split)
        print(f"{split}: {len(data.scenarios)} scenes in {config['dataset']['root']}, fingerprint {data.fingerprint[:12]}")
    return 0
