"""Examples:
  drive tokenizer fit                                                 a codebook of the embedded world, into out/codebook
  drive tokenizer fit tokenizer.k=1024 out=out/k1024
  drive tokenizer fit tokenizer=fast out=out/fast                     or uniform_bins, unicycle, bev_grid, text_waypoints
  drive tokenizer fit dataset=scenarionet dataset.root=/data/scenarionet out=out/nuscenes
  drive tokenizer fit 'dataset=[embedded,av2]' dataset.av2.root=/data/av2 weights.av2=2
  drive tokenizer report out=out/nuscenes dataset=scenarionet dataset.root=/data/scenarionet report_split=test

`report` prints reconstruction error, coverage, usage, speed cap and infeasible steps on plans that the fit has not seen, and
draws the codebook where the tokens are motions.

Several datasets are named in brackets, each with its own settings as dataset.NAME.KEY=… and a weight, weights.NAME=…, 1 unless
given. A dataset's share of the motions is its weight over the sum of the weights: of the one that is scarcest for its weight all
are taken, of the others as many as that allows. Each dataset then gets a line of its own. The tolerance is the finest of theirs
unless tokenizer.tolerance= is given.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from drive.datasets.select import Selected

HELP = "fit an action tokenizer, or report how well one reconstructs plans"


class SourceSettings(NamedTuple):
    """One dataset of the command line."""

    name: str
    weight: float
    overrides: list[str]  # what the command would be for this dataset alone


def run(argv: list[str]) -> int:
    """`drive tokenizer fit|report [key=value …]`."""
    from omegaconf import OmegaConf

    from drive.cli.config import load_config, to_dataclass
    from drive.core.errors import ConfigError
    from drive.datasets.splits import refuse_evaluation_split
    from drive.stages.codebook import settings_class

    if not argv or argv[0] not in ("fit", "report"):
        raise ConfigError("drive tokenizer takes one action: drive tokenizer fit, or drive tokenizer report")
    sources = split_sources(argv[1:])
    configs: list[Any] = []
    for source in sources:
        try:
            configs.append(OmegaConf.to_container(load_config("tokenizer", source.overrides), resolve=True))
        except ConfigError as error:  # a fault is told in the words of the command line
            told = str(error).replace("dataset.", f"dataset.{source.name}.") if source.name else str(error)
            raise ConfigError(told) from error
    config = configs[0]
    kind = config["tokenizer"]["name"]
    given = {k: v for k, v in config["tokenizer"].items() if k not in ("name", "codebook")}
    section = to_dataclass(given, settings_class(kind), "tokenizer")
    section = replace(section, tolerance=min(each["tokenizer"]["tolerance"] for each in configs))
    if argv[0] == "fit":
        refuse_evaluation_split(config["split"], can_force=False)
        return _fit(kind, section, sources, configs)
    named = any(argument.startswith("tokenizer=") for argument in argv)
    return _report(kind if named else None, section.dt, sources, configs)


def _fit(kind: str, section: Any, sources: list[SourceSettings], configs: list[Any]) -> int:
    from drive.core.types import PLAN_STEPS
    from drive.datasets.select import select
    from drive.stages.codebook import Source, ego_plans, fit_tokenizer

    selected = [select(config["dataset"], config["split"]) for config in configs]
    _refuse_same_drives(sources, selected)
    parts = [Source(s.name, data.scenarios, data.fingerprint, s.weight) for s, data in zip(sources, selected)]
    tokenizer = fit_tokenizer(kind, section, parts)
    tokenizer.save(configs[0]["out"])
    print(tokenizer.record)
    if len(parts) > 1:
        print("reconstruction of the plans fitted on:")
        for part in parts:
            taken = tokenizer.record.sources[part.name]
            share = f"weight {part.weight:g}, {taken['motions']:,} of {taken['of']:,} motions"
            print(f"{part.name} ({share}): {tokenizer.report(ego_plans(part.dataset, PLAN_STEPS, tokenizer.dt)).line()}")
    print(f"written: {configs[0]['out']}")
    return 0


def _refuse_same_drives(sources: list[SourceSettings], selected: list[Selected]) -> None:
    """Raise ConfigError where two sources hold the same drives: their motions would count twice."""
    from drive.core.errors import ConfigError

    for i, first in enumerate(selected):
        for k in range(i):
            both = sorted(first.logs & selected[k].logs)
            if both:
                raise ConfigError(f"{sources[k].name} and {sources[i].name} hold {len(both)} drives both, such as {both[0]}: leave one of the two out")


def _report(kind: str | None, dt: float, sources: list[SourceSettings], configs: list[Any]) -> int:
    from drive.core.errors import ConfigError, TokenizerError
    from drive.core.types import PLAN_STEPS
    from drive.datasets.select import select
    from drive.stages.codebook import ego_plans
    from drive.tokenizers.kdisk import KDiskTokenizer
    from drive.tokenizers.load import load_tokenizer
    from drive.tokenizers.report import plot_codebook

    folder = Path(configs[0]["out"])
    tokenizer = load_tokenizer(folder, expect_dt=dt)
    if kind is not None and tokenizer.name != kind:
        raise TokenizerError(f"{folder} holds a tokenizer of kind {tokenizer.name}, not {kind}: leave tokenizer={kind} out, or name another out=")
    drawn = isinstance(tokenizer, KDiskTokenizer)
    if configs[0]["plot"] and not drawn:
        raise ConfigError(f"plot={configs[0]['plot']}: a token of {tokenizer.name} is no motion, so there is no codebook to draw: leave plot= out")
    for source, config in zip(sources, configs):
        figures = tokenizer.report(ego_plans(select(config["dataset"], config["report_split"]).scenarios, PLAN_STEPS, tokenizer.dt))
        print(figures if len(sources) == 1 else f"{source.name}: {figures.line()}")
    if drawn:
        plot = Path(configs[0]["plot"] or folder / "codebook.png")
        plot_codebook(tokenizer, plot)
        print(f"plot: {plot}")
    return 0


def split_sources(arguments: list[str]) -> list[SourceSettings]:
    """The datasets of `dataset=[a,b]` with what each one's own command would be; without brackets one, `arguments` as they are.

    Raises ConfigError that lists every fault at once: an unknown or repeated name, a setting that does not say whose it is, a weight
    that is no number above 0.
    """
    from drive.cli.config import groups
    from drive.cli.schema import report, suggestion

    lists = [text for text in arguments if text.startswith("dataset=[")]
    if not lists:
        return [SourceSettings("", 1.0, arguments)]
    names = [name.strip() for name in lists[-1].removeprefix("dataset=[").rstrip("]").split(",")]
    known = groups()["dataset"]
    faults = [f"{lists[-1]}: no dataset of the name {name!r}{suggestion(name, known)}" for name in names if name not in known]
    faults += [f"{lists[-1]}: {name} is named twice" for name in sorted({name for name in names if names.count(name) > 1})]
    own: dict[str, list[str]] = {name: [f"dataset={name}"] for name in names}
    weights, common = dict.fromkeys(names, 1.0), []
    for text in arguments:
        key, _, value = text.partition("=")
        room, _, rest = key.partition(".")
        name, dot, field = rest.partition(".")
        if text in lists:
            continue
        if room == "weights":
            _set_weight(weights, rest, value, text, faults)
        elif room == "dataset" and dot and name in own:
            own[name].append(f"dataset.{field}={value}")
        elif room == "dataset":
            faults.append(f"{text}: say whose setting it is, as in dataset.{names[0]}.{field or rest or 'root'}={value}; there are {', '.join(names)}")
        else:
            common.append(text)
    report(faults, "datasets of tokenizer")
    return [SourceSettings(name, weights[name], [*own[name], *common]) for name in names]


def _set_weight(weights: dict[str, float], name: str, value: str, text: str, faults: list[str]) -> None:
    """Put the weight of `name` in, or a fault where there is no such dataset or it is no number above 0."""
    if name not in weights:
        faults.append(f"{text}: no dataset {name!r} is in the list; there are {', '.join(weights)}")
        return
    try:
        weights[name] = float(value)
    except ValueError:
        weights[name] = -1.0
    if not 0.0 < weights[name] < float("inf"):
        faults.append(f"{text}: a weight is a number above 0; leave the dataset out of the list where it shall count for nothing")
