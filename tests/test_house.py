"""Rules of the house that a reader cannot see in one file: import directions, packaging, sizes, and what must never be called."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINKED = ("tokenizers", "planners", "simulators", "configs")
FLOORS_1_TO_3 = {"core", "tokenizers", "datasets", "simulators", "metrics", "planners", "rewards"}
FLOORS_1_TO_4 = FLOORS_1_TO_3 | {"benchmarks", "stages"}
MAY_IMPORT = {
    "core": set(),
    "tokenizers": {"core"},
    "datasets": {"core", "simulators"},
    "simulators": {"core"},
    "metrics": {"core"},
    "planners": {"core", "tokenizers", "metrics"},
    "rewards": {"core", "metrics"},
    "benchmarks": FLOORS_1_TO_3,
    "stages": FLOORS_1_TO_3 | {"benchmarks"},  # validation prints the benchmark's own number
    "report": FLOORS_1_TO_4,
    "chat": FLOORS_1_TO_4,
    "cli": FLOORS_1_TO_4 | {"report", "chat"},
    "configs": set(),
}
CORE_PACKAGES = {"numpy", "torch", "shapely", "numba", "yaml"}
DATA = {".yaml", ".xodr", ".npz", ".json", ".safetensors", ".html", ".jinja"}
UNPICKLER = "drive/datasets/unpickle.py"  # the one place that reads others' pickles, with a list of allowed classes


@cache
def files() -> list[str]:
    """Every file of the project that git tracks or would track; links left out."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:  # an unpacked archive
        ignored = {".git", ".venv", "build", "dist", "runs", "out", "data", "__pycache__", ".pytest_cache", ".ruff_cache"}
        paths = [path.relative_to(ROOT) for path in ROOT.rglob("*") if not path.is_symlink()]
        names = [path.as_posix() for path in paths if not ignored & set(path.parts) and "egg-info" not in str(path)]
    else:
        names = listed.stdout.splitlines()
    return [name for name in names if (ROOT / name).is_file() and not (ROOT / name).is_symlink()]


@cache
def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"), name)


def python_files() -> list[str]:
    return [name for name in files() if name.endswith(".py")]


def room_of(name: str) -> str | None:
    """'drive/core/seeds.py' -> 'core', 'planners/idm.py' -> 'planners'; None for tests, bench and drive's own top."""
    parts = name.split("/")
    if parts[0] == "drive" and len(parts) > 2:
        return parts[1]
    return parts[0] if parts[0] in LINKED else None


def imported_modules(module: ast.Module, name: str = "") -> set[str]:
    """Absolute names of all that a module imports, at its top or inside functions, relative imports made absolute."""
    package = name.removeprefix("drive/").split("/")[:-1]
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(["drive", *package[: len(package) - node.level + 1], *([base] if base else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def rooms_imported(modules: set[str]) -> set[str]:
    return {module.split(".")[1] for module in modules if module.startswith("drive.")} & set(MAY_IMPORT)


def run_python(code: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment})


def test_imports_are_read_in_all_their_forms():
    source = "import drive.core.types\nfrom drive import metrics\ndef f():\n    from ..stages import sft\nfrom . import near\n"
    found = imported_modules(ast.parse(source), "planners/idm/model.py")
    assert rooms_imported(found) == {"core", "metrics", "planners"}
    assert "drive.planners.stages.sft" in found and "drive.planners.idm.near" in found


def test_imports_go_one_way():
    wrong, pairs = [], set()
    for name in python_files():
        room = room_of(name)
        if room is None:
            continue
        assert room in MAY_IMPORT, f"{name}: the room {room} has no floor yet; give it one in MAY_IMPORT"
        for other in rooms_imported(imported_modules(tree(name), name)) - {room}:
            pairs.add((room, other))
            if other not in MAY_IMPORT[room]:
                wrong.append(f"{name} imports drive.{other}")
    assert not wrong
    assert not {pair for pair in pairs if pair[::-1] in pairs}, "two rooms import each other"


def test_linked_rooms_are_imported_under_drive():
    """`import planners` would be a second copy of every class, and `import tokenizers` is Hugging Face's package."""
    bare = {"planners", "simulators", "configs"}
    wrong = [name for name in python_files() if {m.split(".")[0] for m in imported_modules(tree(name), name)} & bare]
    assert not wrong


def test_core_stands_on_few_packages():
    wrong = []
    for name in python_files():
        if room_of(name) == "core":
            tops = {module.split(".")[0] for module in imported_modules(tree(name), name)}
            wrong += [f"{name}: {top}" for top in tops - CORE_PACKAGES - set(sys.stdlib_module_names) - {"drive"}]
    assert not wrong


def test_links_are_relative_and_resolve():
    for room in LINKED:
        link = ROOT / "drive" / room
        assert link.is_symlink() and os.readlink(link) == f"../{room}"
        assert link.resolve() == ROOT / room


def test_pages_point_at_files_that_are_there():
    target = re.compile(r"(?:\]\(|src=\")(?!https?://|mailto:|#)([^)#\"]+)")
    pages = [name for name in files() if name.endswith(".md")]
    links = [(name, link) for name in pages for link in target.findall((ROOT / name).read_text(encoding="utf-8"))]
    assert links, "no page links to another: the pattern is wrong"
    assert not [(name, link) for name, link in links if not (ROOT / name).parent.joinpath(link).exists()]


def test_root_folder_does_not_shadow_hugging_face():
    assert not (ROOT / "tokenizers" / "__init__.py").exists()
    code = (
        "import tokenizers, drive.tokenizers\n"
        "from transformers import PreTrainedTokenizerFast\n"
        "assert hasattr(tokenizers, 'Tokenizer'), tokenizers.__path__\n"
        "fast = PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(tokenizers.models.BPE()))\n"
        "print(len(fast), list(drive.tokenizers.__path__)[0].replace(chr(92), '/'))\n"
    )
    done = run_python(code, ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "0" and done.stdout.strip().endswith("drive/tokenizers")


def test_a_copy_without_links_names_the_cure(tmp_path: Path):
    shutil.copytree(ROOT / "drive", tmp_path / "drive", ignore=lambda _, names: {*LINKED, "__pycache__"} & set(names))
    done = run_python("import drive", tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: drive/tokenizers, drive/planners") and "core.symlinks=true" in last


def test_help_and_every_verb_import_nothing_heavy():
    code = (
        "import contextlib, importlib, io, sys\n"
        "import drive.cli\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    assert drive.cli.main(['--help']) == 0\n"
        "for verb in drive.cli.verbs().values():\n"
        "    importlib.import_module(f'drive.cli.{verb.module}')\n"
        "heavy = {'torch', 'transformers', 'numba', 'hydra', 'scipy', 'shapely', 'matplotlib', 'carla', 'av'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = run_python(code, ROOT)
    assert done.returncode == 0, done.stderr


def test_sizes():
    long = []
    for name in python_files():
        lines = (ROOT / name).read_text(encoding="utf-8").count("\n")
        if lines > 500:
            long.append(f"{name}: {lines} lines")
        functions = [node for node in ast.walk(tree(name)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        long += [f"{name}: {node.name}" for node in functions if (node.end_lineno or 0) - node.lineno + 1 > 100]
    assert not long


FORBIDDEN = {"torch.load", "pickle.load", "pickle.loads", "pickle.Unpickler", "os.system", "eval", "exec", "yaml.load", "yaml.unsafe_load"}


def forbidden_calls(module: ast.Module) -> list[str]:
    """Calls that run whatever a file or a string says."""
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            switched_on = {word.arg for word in node.keywords if isinstance(word.value, ast.Constant) and word.value.value is True}
            if called in FORBIDDEN or switched_on & {"shell", "allow_pickle"}:
                found.append(f"line {node.lineno}: {called}")
    return found


def test_forbidden_calls_are_seen():
    source = "torch.load(p)\nsubprocess.run(c, shell=True)\nnp.load(p, allow_pickle=True)\nmodel.eval()\nnp.load(p)\njson.load(f)\n"
    assert [found.split(":")[0] for found in forbidden_calls(ast.parse(source))] == ["line 1", "line 2", "line 3"]


def test_nothing_runs_what_a_file_says():
    assert not [f"{name}, {call}" for name in python_files() if name != UNPICKLER for call in forbidden_calls(tree(name))]


def test_no_path_of_one_machine():
    machine = re.compile(r"(?<![\w.$}/])/(?:work|home|root|tmp|Users)/\w")
    wrong = []
    for name in files():
        if Path(name).suffix in {".py", ".md", ".yaml", ".toml", ".txt", ".json", ".html", ""} and not name.startswith("LICENSE"):
            for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
                if machine.search(line):
                    wrong.append(f"{name}:{number}: {line.strip()[:80]}")
    assert not wrong


def test_constraints_hold_only_names_and_versions():
    line_of = re.compile(r'[a-z0-9-]+==[\w.]+(; python_version (>=|<) "3\.11")?')
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert "torch==2.13.0" in lines and len(lines) > 60
    assert not [line for line in lines if not line_of.fullmatch(line)]


def test_wheel_holds_every_room(tmp_path: Path):
    pytest.importorskip("setuptools")
    source = tmp_path / "source"
    for name in files():
        if not name.startswith(("tests/", "docs/", "bench/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    for room in LINKED:
        os.symlink(f"../{room}", source / "drive" / room, target_is_directory=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    held = set(zipfile.ZipFile(next(tmp_path.glob("drive_vla-*.whl"))).namelist())
    wanted = {
        name if name.startswith("drive/") else f"drive/{name}"
        for name in files()
        if name.split("/")[0] in ("drive", *LINKED) and Path(name).suffix in DATA | {".py"}
    }
    assert not sorted(wanted - held)
    tops = {name.split("/")[0] for name in held}
    assert tops == {"drive", *(top for top in tops if top.endswith(".dist-info"))}, "only drive may be installed at the top"
