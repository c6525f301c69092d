"""Examples:
  drive resume runs/20260131-235959-grpo       go on from the newest checkpoint of a run that was killed

The run ends with the numbers of one that was never killed: batches, roll-outs and dropout depend on the seed and the step alone
(bit for bit on a CPU; a GPU's kernels may add in another order).
"""

from __future__ import annotations

HELP = "go on with a training run that was killed"


def run(argv: list[str]) -> int:
    """Resume the run folder named."""
    from drive.cli.train import START, _on, load_splits, starting_policy, train, use_device
    from drive.core.errors import ConfigError
    from drive.core.runs import RunFolder
    from drive.planners.vla.checkpoint import load_policy

    if len(argv) != 1:
        raise ConfigError("drive resume takes one run folder: drive resume runs/<date>-<name>")
    folder = RunFolder.open(argv[0])
    if folder.is_finished:
        print(f"{folder.path} is finished: nothing to resume")
        return 0
    config = folder.config
    latest = folder.latest_checkpoint()
    folder.truncate_after(latest[0] if latest else 0)
    print(f"resuming {folder.path} at step {latest[0] if latest else 0}")
    splits = load_splits(config)
    policy = None
    if config["stage"]["name"] != "pretrain":
        if latest is not None:
            policy = _on(load_policy(latest[1]), use_device(config))
        elif (folder.path / START).exists():
            policy = _on(load_policy(folder.path / START), use_device(config))
        else:
            policy = starting_policy(config, lambda: splits)
    train(folder, config, splits, policy, latest)
    return 0
