"""The command's frame, and settings: every mistake told at once with the nearest name, before anything heavy or written."""

import enum
import errno
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml
from omegaconf import OmegaConf

import drive
from drive import cli
from drive.cli.config import CONFIGS, groups, load_config
from drive.cli.doctor import torchvision_fault
from drive.cli.schema import coerce, hint_of, to_dataclass
from drive.core.errors import ConfigError, DataError

FILES = {
    "train.yaml": """
        defaults: [{stage: sft}, {planner: tiny}, _self_]
        seed: 0
        name: run
        out: ${name}/here
        tag: null
        sizes: [1, 2]
        """,
    "eval.yaml": "defaults: [{planner: tiny}, _self_]\nrun: ???\n",
    "stage/sft.yaml": "name: sft\nlearning_rate: 1e-3\nsteps: 100\nquiet: false\n",
    "stage/grpo.yaml": "defaults: [{/reward: pdms}, _self_]\nname: grpo\nlearning_rate: 1e-5\ngroup_size: 4\n",
    "planner/tiny.yaml": "width: 64\nnoise: {scale: 0.5}\n",
    "reward/pdms.yaml": "weight: 5.0\n",
    "reward/l2_stp3.yaml": "weight: 1.0\n",
    "simulator/embedded.yaml": "dt: 0.1\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("configs")
    for name, text in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("\n".join(line.strip() for line in text.strip().splitlines()))
    return root


def faults_of(folder: Path, *overrides: str, config: str = "train") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(config, list(overrides), folder)
    first, *rest = str(caught.value).splitlines()
    return [line.strip() for line in rest] or [first.removeprefix(f"settings of {config}: ")]


def test_groups_are_read_from_the_folders(folder: Path):
    assert groups(folder)["stage"] == ["grpo", "sft"] and groups(folder)["reward"] == ["l2_stp3", "pdms"]


def test_overrides_are_applied(folder: Path):
    overrides = ["stage=grpo", "reward=l2_stp3", "stage.learning_rate=1", "name=007", "tag=7", "sizes=[]", "planner.noise.scale=1e-2"]
    config = load_config("train", overrides, folder)
    assert config.stage == {"name": "grpo", "learning_rate": 1.0, "group_size": 4, "reward": {"weight": 1.0}}
    assert isinstance(config.stage.learning_rate, float)
    assert config.name == "007" and config.out == "007/here" and config.tag == "7" and config.sizes == []
    assert config.planner.noise.scale == 0.01 and "hydra" not in config


def test_every_fault_is_told_at_once_with_the_nearest_name(folder: Path):
    overrides = ["stage=grop", "stage.lerning_rate=1", "planner.width=wide", "seed=1.5", "tag", "group_size=2", "sead=3", "simulator=embedded"]
    assert sorted(faults_of(folder, *overrides)) == sorted(
        [
            "stage=grop: no stage of that name; did you mean grpo?",
            "stage.lerning_rate=1: no such key; did you mean stage.learning_rate?",
            "planner.width=wide: expected int, not 'wide' (str)",
            "seed=1.5: expected int, not 1.5 (float)",
            "tag: expected key=value",
            "group_size=2: no such key; did you mean stage.group_size?",
            "sead=3: no such key; did you mean seed?",
            "simulator=embedded: train has no group simulator; it has: planner, reward, stage",
        ]
    )


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("stage.quiet=1", "expected bool, not 1 (int)"),
        ("stage.steps=true", "expected int, not True (bool)"),
        ("stage.steps=null", "expected int, not null"),
        ("tag=[1]", "expected str or null, not [1] (list)"),
        ("sizes=3", "expected a list such as [1,2], not 3 (int)"),
        ("sizes=[a]", "expected int, not 'a' (str)"),
        ("sizes=1,2", "one value at a time, a run for each; where sizes takes a list it is written in brackets, as in sizes=[1,2]"),
        ("planner.noise=3", "planner.noise is a section; set its keys, such as planner.noise.scale"),
        ("planner.noise.skale=3", "no such key; did you mean planner.noise.scale?"),
        ("+stage.extra=3", "'+', '~' and '@' are not used here; keys that exist are set with key=value"),
        ("~stage=sft", "'+', '~' and '@' are not used here; keys that exist are set with key=value"),
        ("zzz.zzz=3", "no such key; there are: stage.name"),
        ("reward=pdms", "train has no group reward; it has: planner, stage"),
        ("stage=zz", "no stage of that name; there are: grpo, sft"),
        ("name=[", "cannot be read"),
        ("seed=", "expected int, not '' (str)"),
    ],
)
def test_a_fault_says_what_and_the_way_out(folder: Path, override: str, fault: str):
    (told,) = faults_of(folder, override)
    assert told.startswith(f"{override}: {fault}")


def test_a_key_without_a_value_must_be_given(folder: Path):
    assert faults_of(folder, config="eval") == ["run: must be given, as in run=VALUE"]
    assert load_config("eval", ["run=runs/a"], folder).run == "runs/a"
    with pytest.raises(ConfigError, match="no config named evil; did you mean eval"):
        load_config("evil", [], folder)


def test_checking_imports_nothing_heavy_and_writes_nothing(folder: Path, tmp_path: Path):
    code = (
        "import sys, pathlib\n"
        "from drive.cli.config import load_config\n"
        f"print(load_config('train', ['stage=grpo'], pathlib.Path({str(folder)!r})).stage.name)\n"
        "assert not {'torch', 'transformers', 'numba'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "grpo\n" and done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_shipped_configs_compose():
    """Every config with every choice of its groups; only a key that the user has to give may be amiss."""
    for file in CONFIGS.glob("*.yaml"):
        defaults = yaml.safe_load(file.read_text()).get("defaults", [])
        used = [group for entry in defaults if isinstance(entry, dict) for group in entry]
        for override in ["", *(f"{group}={choice}" for group in used for choice in groups()[group])]:
            try:
                load_config(file.stem, [override] if override else [])
            except ConfigError as error:
                first, *rest = str(error).splitlines()
                assert all("must be given, as in" in line for line in rest or [first]), f"{file.stem} {override}: {error}"


class Side(enum.Enum):
    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True)
class Noise:
    scale: float

    def __post_init__(self) -> None:
        if self.scale < 0:
            raise ValueError(f"scale must not be negative, but is {self.scale}")


@dataclass(frozen=True)
class Settings:
    width: int
    noise: Noise
    mode: Literal["fast", "slow"] = "fast"
    side: Side = Side.LEFT
    rate: float | None = None
    shape: tuple[int, int] = (1, 1)
    names: tuple[str, ...] = ()
    folder: Path = Path("runs")
    weights: dict[str, float] = field(default_factory=dict)


def test_a_section_becomes_a_dataclass():
    section = OmegaConf.create(
        {"width": 3, "noise": {"scale": 1}, "mode": "slow", "side": "right", "rate": 2, "shape": [1, 2], "names": ["a"], "weights": {"a": 1}}
    )
    settings = to_dataclass(section, Settings)
    expected = Settings(3, Noise(1.0), "slow", Side.RIGHT, 2.0, (1, 2), ("a",), Path("runs"), {"a": 1.0})
    assert settings == expected and isinstance(settings.noise.scale, float) and isinstance(settings.rate, float)


def test_every_misfit_of_a_section_is_told_at_once():
    section = {"widht": 3, "noise": {"skale": 1}, "mode": "slwo", "side": "lft", "rate": "x", "shape": [1], "names": "a", "folder": 3}
    with pytest.raises(ConfigError) as caught:
        to_dataclass(section, Settings, where="planner")
    assert str(caught.value).splitlines() == [
        "planner: 10 errors",
        "  widht: no such key; did you mean width?",
        "  width: missing; give it a value (int)",
        "  noise.skale: no such key; did you mean scale?",
        "  noise.scale: missing; give it a value (float)",
        "  mode: expected one of fast, slow, not 'slwo'; did you mean slow?",
        "  side: expected one of left, right, not 'lft'; did you mean left?",
        "  rate: expected float or null, not 'x' (str)",
        "  shape: expected 2 values, not 1",
        "  names: expected a list such as [1,2], not 'a' (str)",
        "  folder: expected Path, not 3 (int)",
    ]


def test_a_class_refuses_values_in_its_own_words():
    with pytest.raises(ConfigError, match="planner: noise: scale must not be negative"):
        to_dataclass({"width": 1, "noise": {"scale": -1.0}}, Settings, where="planner")


def test_types_of_defaults():
    assert hint_of([1, 0.5]) == list[float] and hint_of([]) is list and hint_of(True) is bool and hint_of(None) == str | None
    assert coerce(1, float | int) == 1 and isinstance(coerce(1, float | int), int)
    with pytest.raises(ValueError, match="expected int, not True"):
        coerce(True, int)


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "doctor" in out and "check this installation" in out
    assert cli.main(["doctor", "--help"]) == 0
    assert "usage: drive doctor" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"drive {drive.__version__}\n"


def test_every_verb_has_examples_and_a_run():
    for name, verb in cli.verbs().items():
        assert f"drive {name}" in verb.doc and verb.line, f"the help of {name} shows no example"
        assert "\ndef run(argv: list[str]) -> int:" in (Path(cli.__file__).parent / f"{verb.module}.py").read_text()


def test_an_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["doktor"]) == 2
    assert capsys.readouterr().err == "drive: error: no verb 'doktor', did you mean 'doctor'?; `drive --help` lists them\n"


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (DataError("scene.json: no map: fetch it"), 2, "drive: error: scene.json: no map: fetch it\n"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a"), 2, "No space left on device: runs/a: free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), 2, "Permission denied: runs: choose a folder"),
        (KeyboardInterrupt(), 130, "drive: interrupted"),
    ],
)
def test_what_the_user_can_mend_is_one_line(error: BaseException, code: int, told: str, monkeypatch, capsys: pytest.CaptureFixture[str]):
    def act() -> int:
        raise error

    monkeypatch.delenv("DRIVE_DEBUG", raising=False)
    assert cli.guarded(act) == code
    err = capsys.readouterr().err
    assert told in err and len(err.strip().splitlines()) == 1
    monkeypatch.setenv("DRIVE_DEBUG", "1")
    with pytest.raises(type(error)):
        cli.guarded(act)


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.guarded(lambda: 1 // 0)


def test_doctor_sees_a_broken_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    fault = torchvision_fault()
    assert fault is not None and "BROKEN (operator torchvision::nms does not exist)" in fault and "pip uninstall" in fault


def test_doctor_runs(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["doctor"]) == 0
    assert {"drive", "python", "torch", "carla", "device"} <= {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert cli.main(["doctor", "now"]) == 2


def test_doctor_compiles_the_kernels(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["doctor", "compile"]) == 0
    assert "numeric kernels compiled in" in capsys.readouterr().out
    cached = {file.name.split("-")[0] for file in Path(os.environ["NUMBA_CACHE_DIR"]).rglob("*.nbi")}
    kernels = {"traffic_kernels.step_fleet", "raster.rasterise", "forecast._forecast", "pdms_areas.ego_areas", "kernels.kdisk_walk"}
    assert kernels <= cached, kernels - cached
