"""Examples:
  drive data inspect /data/nuscenes /data/some.tfrecord             what files and folders hold, whichever source they are of
  drive data generate                                               train, val and test scenes of the embedded world
  drive data generate split=train dataset.train_scenes=10000 dataset.workers=8
  drive data convert dataset=av2 dataset.root=/data/av2/sensor out=cache/av2 workers=8
                                                                    logs as memory-mapped Arrow files: dataset=cache dataset.root=cache/av2
  drive data export-123d dataset=av2 dataset.root=/data/av2/sensor out=/data/py123d
                                                                    logs in the Arrow layout of py123d: dataset=py123d dataset.root=/data/py123d
  drive data card dataset=av2 dataset.root=/data/av2/sensor split=val out=out/av2
                                                                    counts, histograms and a sample of a split, as README.md, card.json and card.png
  drive data collect out=data/drives share=0.5                       drives of the closed loop, the expert's plan at every step (DAgger)
  drive data annotate dataset=av2 dataset.root=/data/av2/sensor split=train out=out/reasons
                                                                    reasoning text, by rule or by a teacher (drive data annotate --help)

A killed generation, collection, conversion, export or annotation goes on where it was: run the same command again. Logs that cannot be read are told by file and
record, counted, and make the exit code 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

HELP = "inspect, generate, collect, convert, export, describe or annotate scene sets"


def run(argv: list[str]) -> int:
    """`drive data inspect PATH … | generate | collect | convert | export-123d | card | annotate [key=value …]`."""
    from drive.cli.schema import suggestion
    from drive.core.errors import ConfigError

    actions = {"inspect": inspect, "generate": generate, "collect": collect, "convert": convert, "export-123d": export_123d, "card": card, "annotate": annotate}
    if not argv or argv[0] not in actions:
        raise ConfigError(f"drive data takes one action: {', '.join(actions)}{suggestion(argv[0], actions) if argv else ''}")
    return actions[argv[0]](argv[1:])


def inspect(argv: list[str]) -> int:
    """Print what every recognised file or folder under the given paths holds."""
    from drive.core.errors import ConfigError, DataError
    from drive.datasets.inspect import walk

    if not argv:
        raise ConfigError("drive data inspect takes files or folders: drive data inspect /data/nuscenes")
    found = faults = 0
    for path in argv:
        before = found + faults
        for item in walk(Path(path)):
            if isinstance(item, DataError):
                faults += 1
                print(f"not read: {item}")
                continue
            found += 1
            faults += len(item.faults)
            print(f"{item.kind}: {item.path}")
            print("".join(f"    {name:<28}{value:,}\n" if isinstance(value, int) else f"    {name:<28}{value}\n" for name, value in item.counts.items()), end="")
            for fault in item.faults:
                print(f"    not read: {fault}")
        if found + faults == before and len(argv) > 1:
            faults += 1
            print(f"not read: {path}: nothing there is of a source that drive knows")
    if not found and not faults:
        raise DataError(f"{', '.join(argv)}: nothing there is of a source that drive knows")
    print(f"{found} read, {faults} {'fault' if faults == 1 else 'faults'}")
    return 1 if faults else 0


def generate(argv: list[str]) -> int:
    """Generate scenes of the embedded world."""
    from drive.core.errors import ConfigError
    from drive.datasets.select import select

    config = _config("data", argv)
    if config["dataset"]["name"] != "embedded":
        raise ConfigError("only dataset=embedded is generated; logged datasets are read where they are")
    for split in [config["split"]] if config["split"] else ["train", "val", "test"]:
        data = select(config["dataset"], split)
        print(f"{split}: {len(data.scenarios)} scenes in {config['dataset']['root']}, fingerprint {data.fingerprint[:12]}")
    return 0


def collect(argv: list[str]) -> int:
    """Record drives of the closed loop with a teacher's plans."""
    from drive.cli.data_collect import run as run_collect

    return run_collect(_config("collect", argv))


def convert(argv: list[str]) -> int:
    """Convert logs to the Arrow cache."""
    from drive.cli.schema import require_at_least
    from drive.core.errors import ConfigError
    from drive.datasets.convert import convert as convert_logs
    from drive.datasets.select import make_reader, reader_settings

    config = _config("convert", argv)
    require_at_least(config, {"workers": 1}, "settings of convert")
    if config["dataset"]["name"] in ("embedded", "cache"):
        raise ConfigError(f"dataset={config['dataset']['name']} is read as fast as it is: convert logs of another source")
    data, split = config["dataset"], config["split"]
    if data.get("filter"):
        raise ConfigError("dataset.filter= is counted by dataset=navsim alone: convert the logs whole, or evaluate them as they are")
    if data["name"] == "nuscenes" and split == "val":
        split = "test"  # nuScenes' val is what papers test on
    done = convert_logs(make_reader(data), Path(data["root"]), Path(config["out"]), split, config["workers"], settings=reader_settings(data))
    for fault in (*done.faults, *done.partly):
        print(f"not read: {fault}")
    print(f"{done.converted} logs converted, {done.kept} there before, {len(done.faults)} not read; {done.bytes / 1e6:.1f} MB in {config['out']}")
    print(f"read them with dataset=cache dataset.root={config['out']}")
    return 1 if done.faults or done.partly else 0


def export_123d(argv: list[str]) -> int:
    """Write logs in py123d's layout."""
    from drive.core.errors import ConfigError
    from drive.datasets.py123d_export import export
    from drive.datasets.select import make_reader, reader_settings

    config = _config("export_123d", argv)
    data, split = config["dataset"], config["split"]
    if data["name"] in ("embedded", "py123d"):
        raise ConfigError(f"dataset={data['name']} cannot be exported: export logs of another source")
    if data.get("filter"):
        raise ConfigError("dataset.filter= is counted by dataset=navsim alone: export the logs whole")
    if data["name"] == "nuscenes" and split == "val":
        split = "test"  # nuScenes' val is what papers test on
    done = export(make_reader(data), Path(data["root"]), Path(config["out"]), split, reader_settings(data))
    for fault in (*done.faults, *done.partly):
        print(f"not read: {fault}")
    print(f"{done.written} logs written, {done.kept} there before, {len(done.faults)} not read; in {config['out']}")
    print(f"read them with py123d, or with dataset=py123d dataset.root={config['out']}")
    return 1 if done.faults or done.partly else 0


def card(argv: list[str]) -> int:
    """Describe one split of a dataset."""
    from drive.datasets.describe import describe
    from drive.datasets.select import asked_for, readable, select, spread
    from drive.report.data_card import write_card

    config = _config("card", argv)
    data = select(config["dataset"], config["split"])
    count = min(len(data.scenarios), config["max_scenes"] or len(data.scenarios))
    scenes, faults = readable(data.scenarios, spread(len(data.scenarios), count))
    expected = asked_for(count, data)
    facts = describe(scenes, expected, [*data.faults, *faults], data.fingerprint)
    for name, value in facts.items():
        print(f"{name:<28}{value}")
    for fault in [*data.faults, *faults]:
        print(f"not read: {fault}")
    if config["out"]:
        print(f"written: {write_card(Path(config['out']), config['dataset'], config['split'], facts, scenes)}")
    return 1 if facts["not read"] else 0


def annotate(argv: list[str]) -> int:
    """Add reasoning text to a dataset."""
    from drive.cli.data_annotate import run as run_annotate

    return run_annotate(argv)


def _config(name: str, argv: list[str]) -> dict[str, Any]:
    from omegaconf import OmegaConf

    from drive.cli.config import load_config

    config: Any = OmegaConf.to_container(load_config(name, argv), resolve=True)
    return config
