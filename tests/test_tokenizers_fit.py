"""`drive tokenizer fit | report` of every kind, on one dataset and on several by weight."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import nuscenes_files
import pytest
from scenarionet_logs import record, write
from toy_scenes import toy_scenario

from drive.cli import main
from drive.cli.tokenizer import split_sources
from drive.core.errors import ConfigError, DataError
from drive.stages.codebook import (
    KINDS,
    CodebookConfig,
    Source,
    UnicycleConfig,
    UniformBinsConfig,
    ego_plans,
    fit_codebook,
    fit_tokenizer,
    mixture,
    settings_class,
)
from drive.tokenizers.load import load_tokenizer

SMALL = {"kdisk": ["tokenizer.k=64"], "fast": ["tokenizer.vocab_size=600"]}


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> SimpleNamespace:
    place = tmp_path_factory.mktemp("fit")
    for log in ("scene-0061", "scene-0103"):  # one to train on, one to test
        (place / "logs" / log).mkdir(parents=True)
        write(place / "logs" / log / f"{log}.pkl", record(log))
    nuscenes_files.write(place / "nuscenes", nuscenes_files.tables(("scene-0655", "scene-0916")))  # other drives than the logs
    mixed = [
        "dataset=[scenarionet,nuscenes]",
        f"dataset.scenarionet.root={place}/logs",
        f"dataset.nuscenes.root={place}/nuscenes",
        f"dataset.nuscenes.version={nuscenes_files.VERSION}",
    ]
    return SimpleNamespace(place=place, logs=["dataset=scenarionet", f"dataset.root={place}/logs"], mixed=mixed)


def source(name: str, count: int = 4, weight: float = 1.0, start: int = 0) -> Source:
    return Source(name, [toy_scenario(start + i) for i in range(count)], f"print-{name}", weight)


# ---------------------------------------------------------------- one dataset


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_is_fitted_reported_and_has_its_settings(kind, roots, capsys):
    out = roots.place / kind
    settings = [f"tokenizer={kind}", *SMALL.get(kind, []), *roots.logs, f"out={out}"]
    assert main(["tokenizer", "fit", *settings]) == 0
    tokenizer = load_tokenizer(out)
    assert tokenizer.name == kind and isinstance(tokenizer.record.sources, str) and tokenizer.tolerance == 0.04
    capsys.readouterr()
    assert main(["tokenizer", "report", *settings, "report_split=test"]) == 0
    shown = capsys.readouterr().out
    assert "reconstruction ADE" in shown and "infeasible steps" in shown
    assert (out / "codebook.png").exists() == (kind == "kdisk") == ("plot:" in shown)


def test_a_drive_that_two_sources_hold_is_refused(roots, tmp_path, capsys):
    nuscenes_files.write(tmp_path / "nuscenes", nuscenes_files.tables(("scene-0061", "scene-0103")))
    mixed = [word.replace(f"{roots.place}/nuscenes", f"{tmp_path}/nuscenes") for word in roots.mixed]
    assert main(["tokenizer", "fit", *SMALL["kdisk"], *mixed, f"out={tmp_path}/out"]) == 2
    assert "scenarionet and nuscenes hold 1 drives both, such as scene-0061" in capsys.readouterr().err


def test_report_finds_out_which_kind_it_reads(roots, capsys):
    out = roots.place / "found"
    assert main(["tokenizer", "fit", "tokenizer=unicycle", *roots.logs, f"out={out}"]) == 0
    assert main(["tokenizer", "report", *roots.logs, f"out={out}", "report_split=test"]) == 0
    capsys.readouterr()
    assert main(["tokenizer", "report", "tokenizer=fast", *roots.logs, f"out={out}", "report_split=test"]) == 2
    assert "of kind unicycle, not fast" in capsys.readouterr().err
    assert main(["tokenizer", "report", *roots.logs, f"out={out}", "report_split=test", "plot=x.png"]) == 2
    assert "no codebook to draw" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["tokenizer=unicycle", "tokenizer.bins=10"], "must be odd"),
        (["tokenizer=fast", "tokenizer.scale=0"], "scale=0.0 must be above 0"),
        (["tokenizer=bev_grid", "tokenizer.cells=1"], "cells=1 must be at least 3"),
        (["tokenizer=uniform_bins", "tokenizer.k=7"], "no such key"),
        (["tokenizer=fast", "tokenizer.vocab_size=20"], "has no room"),
        (["split=test"], "evaluation split"),
    ],
)
def test_settings_that_cannot_be_are_told_in_one_line(settings, words, roots, capsys):
    assert main(["tokenizer", "fit", *settings, *roots.logs, f"out={roots.place}/none"]) == 2
    shown = capsys.readouterr().err
    assert words in shown and "Traceback" not in shown
    assert not (roots.place / "none").exists()


def test_a_kind_without_code_is_refused():
    with pytest.raises(ConfigError, match="tokenizer=vq has settings and no code"):
        settings_class("vq")


def test_one_source_gives_the_codebook_that_it_always_gave():
    scenes, config = [toy_scenario(i) for i in range(6)], CodebookConfig(k=32)
    old, new = fit_codebook(scenes, config, "print-toy"), fit_tokenizer("kdisk", config, [Source("toy", scenes, "print-toy", 3.0)])
    assert old.fingerprint == new.fingerprint and old.record == new.record


# ---------------------------------------------------------------- several datasets


def test_sources_of_the_command_line_are_mixed_recorded_and_reported_one_by_one(roots, capsys):
    out = roots.place / "mixed"
    settings = [*roots.mixed, "weights.nuscenes=2", "tokenizer.k=64", f"out={out}"]
    assert main(["tokenizer", "fit", *settings]) == 0
    shown = capsys.readouterr().out
    assert "scenarionet (weight 1, " in shown and "nuscenes (weight 2, " in shown and shown.count("ADE") == 2
    sources = json.loads((out / "tokenizer.json").read_text())["record"]["sources"]
    assert list(sources) == ["scenarionet", "nuscenes"] and sources["nuscenes"]["weight"] == 2.0
    assert sources["nuscenes"]["motions"] == pytest.approx(2 * sources["scenarionet"]["motions"], abs=1)
    assert any(each["motions"] == each["of"] for each in sources.values()), "the scarcest is taken whole"
    assert load_tokenizer(out).tolerance == 0.04, "the finest of the two"
    assert main(["tokenizer", "report", *roots.mixed, f"out={out}", "report_split=test"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert "scenes end before the 5 s of a plan and are left out" in printed.err, "what is lost is told"
    assert lines[0].startswith("scenarionet: ADE") and lines[1].startswith("nuscenes: ADE")


def test_any_kind_can_be_fitted_on_a_mixture(roots, capsys):
    out = roots.place / "mixed-uniform"
    assert main(["tokenizer", "fit", "tokenizer=uniform_bins", *roots.mixed, f"out={out}"]) == 0
    assert capsys.readouterr().out.count("ADE") == 2
    assert set(load_tokenizer(out).record.sources) == {"scenarionet", "nuscenes"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["dataset=[scenarionet,kitti]"], "no dataset of the name 'kitti'"),
        (["dataset=[scenarionet,scenarionet]"], "scenarionet is named twice"),
        (["dataset=[]"], "no dataset of the name ''"),
        (["dataset=[scenarionet,av2]", "weights.av2=-1"], "a weight is a number above 0"),
        (["dataset=[scenarionet,av2]", "weights.av2=0"], "a weight is a number above 0"),
        (["dataset=[scenarionet,av2]", "weights.av2=nan"], "a weight is a number above 0"),
        (["dataset=[scenarionet,av2]", "weights.av2=much"], "a weight is a number above 0"),
        (["dataset=[scenarionet,av2]", "weights.kitti=1"], "no dataset 'kitti' is in the list"),
        (["dataset=[scenarionet,av2]", "dataset.root=data"], "dataset.scenarionet.root=data"),
        (["dataset=[scenarionet,av2]", "dataset.nuscenes.root=data"], "say whose setting it is"),
        (["dataset=[scenarionet,av2]", "dataset.scenarionet.root=data"], "dataset.av2.root: must be given"),
        (["dataset=[embedded]", "dataset.embedded.rooot=data"], "did you mean dataset.embedded.root?"),
        (["dataset=[embedded,av2]", "dataset.av2.root=data", "split=val"], "'val' is an evaluation split"),
        (["dataset=embedded", "weights.embedded=2"], "no such key"),
    ],
)
def test_lists_that_cannot_be_are_told_in_one_line(settings, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["tokenizer", "fit", *settings, "out=none"]) == 2
    shown = capsys.readouterr().err
    assert words in shown and "Traceback" not in shown and not list(Path(tmp_path).iterdir())


def test_all_faults_of_a_list_are_told_at_once():
    with pytest.raises(ConfigError, match="3 errors"):
        split_sources(["dataset=[scenarionet,kitti]", "weights.scenarionet=-2", "dataset.root=x"])


def test_each_source_gets_its_own_settings_and_the_common_ones():
    first, second = split_sources(["tokenizer=fast", "dataset=[embedded, av2]", "dataset.av2.root=a=b", "weights.av2=0.5", "out=x"])
    assert (first.name, first.weight, first.overrides) == ("embedded", 1.0, ["dataset=embedded", "tokenizer=fast", "out=x"])
    assert (second.name, second.weight, second.overrides) == ("av2", 0.5, ["dataset=av2", "dataset.root=a=b", "tokenizer=fast", "out=x"])
    assert split_sources(["dataset=av2", "out=x"]) == [("", 1.0, ["dataset=av2", "out=x"])]


def test_scenes_that_end_too_early_are_left_out_and_counted(capsys):
    whole, cut = toy_scenario(1), replace(toy_scenario(2), teacher=None)
    short = replace(cut, ego=replace(cut.ego, **{key: value[:60] for key, value in vars(cut.ego).items()}))
    assert len(ego_plans([whole, short, cut], 10, 0.5)) == 2
    assert "1 of 3 scenes end before the 5 s of a plan" in capsys.readouterr().err
    with pytest.raises(DataError, match="none of the 1 scenes"):
        ego_plans([short], 10, 0.5)


# ---------------------------------------------------------------- the mixture


def test_shares_of_a_mixture_are_the_weights():
    sources = [source("a", weight=1.0), source("b", weight=3.0)]
    taken, told = mixture(sources, [100, 60], seed=0)
    assert [len(index) for index in taken] == [20, 60] and taken[1].tolist() == list(range(60))
    assert len(set(taken[0].tolist())) == 20 and max(taken[0]) > 30, "drawn from all of it, none twice"
    assert isinstance(told, dict)
    assert told["a"] == {"fingerprint": "print-a", "weight": 1.0, "motions": 20, "of": 100}


def test_a_mixture_depends_on_the_seed_alone():
    sources = [source("a"), source("b")]
    first, again, other = (mixture(sources, [100, 10], seed)[0][0].tolist() for seed in (0, 0, 1))
    assert first == again != other
    swapped = mixture(sources[::-1], [10, 100], 0)[0][1].tolist()
    assert swapped == first, "nor on the order in which sources are named"


def test_only_the_proportion_of_weights_counts():
    one, many = ([len(i) for i in mixture([source("a", weight=w), source("b", weight=2 * w)], [70, 90], 0)[0]] for w in (0.01, 5.0))
    assert one == many == [45, 90]


def test_a_source_without_motions_is_named():
    with pytest.raises(ConfigError, match="b: no motion to fit on"):
        mixture([source("a"), source("b")], [10, 0], 0)


def test_weights_pull_the_bins_towards_a_source():
    """Slow scenes beside fast ones: the more weight the fast ones have, the further the bins reach."""
    slow, fast = [], []
    for scene in map(toy_scenario, range(40)):
        assert scene.teacher is not None
        (fast if scene.teacher.poses[0, 0] > 4.0 else slow).append(scene)

    def reach(weight: float) -> float:
        parts = [Source("slow", slow, "s"), Source("fast", fast, "f", weight)]
        return fit_tokenizer("uniform_bins", UniformBinsConfig(), parts).high[0]  # pyright: ignore[reportAttributeAccessIssue]

    assert len(slow) > 3 and len(fast) > 3 and reach(0.02) < reach(1.0)


def test_a_mixture_counts_motions_not_plans():
    parts = [source("a", 4), source("b", 6, start=10)]
    sources = fit_tokenizer("unicycle", UnicycleConfig(), parts).record.sources
    assert sources["a"]["motions"] == sources["b"]["motions"] == 40 and sources["b"]["of"] == 60
    codebook = fit_tokenizer("kdisk", CodebookConfig(k=16), parts)
    assert codebook.record.segments == sum(each["motions"] for each in codebook.record.sources.values())
    assert np.isfinite(codebook.speed_cap or 0.0)
