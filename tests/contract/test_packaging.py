"""The wheel contains all of `tallystream` and nothing else, and can be installed together with a package named
`agents`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tallystream

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("src", "schemas", "streams", "agents")
NOT_SOURCE = shutil.ignore_patterns("__pycache__", "*.egg-info")


def uv(*args: str) -> None:
    """Run the installer that `make` puts beside Python."""
    program = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert program is not None, "uv is missing: `make test` installs it"
    done = subprocess.run([program, "--quiet", *args], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Built from a copy, because setuptools leaves a build folder whose stale files the next wheel would include.
    source = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=NOT_SOURCE)
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, source)
    out = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(out), str(source))
    (path,) = out.glob("*.whl")
    return path


def test_wheel_contains_all_of_tallystream_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"tallystream-{tallystream.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"tallystream", info}
    for folder, prefix in (
        ("src/tallystream", ""),
        ("schemas", "schemas/"),
        ("streams", "streams/"),
        ("agents", "agents/"),
    ):
        ours = {
            f"tallystream/{prefix}{path.relative_to(ROOT / folder).as_posix()}"
            for path in (ROOT / folder).rglob("*")
            if path.suffix in (".py", ".json", ".toml", ".typed") and "__pycache__" not in path.parts
        }
        assert ours, folder
        assert ours <= names, sorted(ours - names)


def test_wheel_can_be_installed_together_with_a_package_named_agents(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    python = environment / "bin" / "python"
    uv("venv", "--python", sys.executable, str(environment))
    locks = [
        argument for name in ("runtime", "neighbour") for argument in ("-r", str(ROOT / f"requirements/{name}.lock"))
    ]
    uv("pip", "install", "--python", str(python), "--require-hashes", "--no-deps", *locks)
    before = neighbour(python)
    assert len(before) > 50
    uv("pip", "install", "--python", str(python), "--no-deps", "--no-index", str(wheel))
    assert neighbour(python) == before, "no file of the neighbour was overwritten"

    program = (
        "import importlib.util, json\n"
        "print(json.dumps([importlib.util.find_spec(name).origin for name in ('agents', 'tallystream')]))"
    )
    found = json.loads(subprocess.check_output([python, "-I", "-c", program], text=True))
    assert [Path(origin).parent.name for origin in found] == ["agents", "tallystream"]
    assert found[0] in before

    version = subprocess.check_output([environment / "bin" / "tallystream", "--version"], text=True)
    assert version == f"tallystream {tallystream.__version__}\n"


def neighbour(python: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that openai-agents has installed."""
    program = (
        "import importlib.metadata as m, json\n"
        "print(json.dumps([str(f.locate()) for f in m.files('openai-agents') if f.suffix == '.py']))"
    )
    files: list[str] = json.loads(subprocess.check_output([python, "-I", "-c", program], text=True))
    return {file: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files}
