"""scripts/setup_env.py: prerequisites are named with their remedy, and nothing is done twice."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def setup_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, working on a folder of its own."""
    spec = importlib.util.spec_from_file_location("setup_env", ROOT / "scripts" / "setup_env.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    monkeypatch.setattr(module, "STAMPS", tmp_path / ".venv" / "stamps")
    monkeypatch.setattr(module, "LOG", tmp_path / ".venv" / "setup.log")
    (tmp_path / ".venv").mkdir()
    return module


def test_this_machine_passes(setup_env: ModuleType) -> None:
    setup_env.check_prerequisites()
    assert setup_env.missing_prerequisites() == []


@pytest.mark.parametrize("version", [(3, 9, 2), (3, 14, 0)])
def test_a_python_without_wheels(setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch, version: tuple) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(setup_env.SetupError, match=rf"3\.{version[1]}; .* 3\.10 to 3\.13: make setup PYTHON="):
        setup_env.check_prerequisites()


def test_a_machine_without_wheels(setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup_env.platform, "machine", lambda: "aarch64")
    with pytest.raises(setup_env.SetupError, match="aarch64.*apt.*colcon build"):
        setup_env.check_prerequisites()


@pytest.mark.parametrize(
    ("absent", "package"), [("gcc", "build-essential"), ("ensurepip", "python3-venv"), ("Python.h", "python3-dev")]
)
def test_a_missing_prerequisite_is_named_with_its_command(
    setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, absent: str, package: str
) -> None:
    which = setup_env.shutil.which
    monkeypatch.setattr(setup_env.shutil, "which", lambda tool: None if tool == absent else which(tool))
    if absent == "ensurepip":
        monkeypatch.setitem(sys.modules, "ensurepip", None)
    if absent == "Python.h":
        monkeypatch.setattr(setup_env.sysconfig, "get_path", lambda _name: str(tmp_path))
    with pytest.raises(setup_env.SetupError, match=rf"sudo apt-get install -y {package}$"):
        setup_env.check_prerequisites()


def test_a_step_runs_again_only_when_its_sources_changed(setup_env: ModuleType, tmp_path: Path) -> None:
    source, runs = tmp_path / "requirements.txt", []

    def step() -> None:
        setup_env.step("name", "title", setup_env.digest([source]), lambda: runs.append(source.read_text()))

    for text in ("torch==1", "torch==1", "torch==2"):
        source.write_text(text)
        step()
    assert runs == ["torch==1", "torch==2"]


def test_a_step_that_failed_is_run_again(setup_env: ModuleType) -> None:
    def fail() -> None:
        setup_env.run([sys.executable, "-S", "-c", "import sys; sys.exit('no such wheel')"])

    for _ in range(2):
        with pytest.raises(setup_env.SetupError, match=r"exit status 1:\nno such wheel\n\(all of it: .*setup\.log"):
            setup_env.step("name", "title", "hash", fail)
    assert not (setup_env.STAMPS / "name").exists()


def test_digest_depends_on_content_name_and_place(setup_env: ModuleType, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("x")
    two.write_text("x")
    digests = [setup_env.digest(paths) for paths in ([one], [two], [one, two])] + [setup_env.digest([one], "/")]
    assert len(set(digests)) == 4
    assert setup_env.digest([one, two]) == setup_env.digest([two, one])


def test_a_sourced_ros_does_not_reach_pip(setup_env: ModuleType) -> None:
    base = {"PATH": "/usr/bin", "AMENT_PREFIX_PATH": "/opt/ros/jazzy", "PYTHONPATH": "/opt/ros", "HOME": "/home/me"}
    env = setup_env.environment(base)
    assert set(env) == {"PATH", "HOME", "VIRTUAL_ENV"}
    assert env["PATH"] == f"{setup_env.VENV}/bin:/usr/bin"


def test_a_torchvision_that_does_not_import_is_refused(setup_env: ModuleType) -> None:
    package = setup_env.VENV / "lib" / "python3.11" / "site-packages" / "torchvision-0.28.0.dist-info"
    setup_env.refuse_broken_torchvision()  # none: nothing to say
    package.mkdir(parents=True)
    setup_env.PYTHON.parent.mkdir()
    message = "RuntimeError: operator torchvision::nms does not exist"
    setup_env.PYTHON.write_text(f"#!/bin/sh\necho '{message}' >&2\nexit 1\n")
    setup_env.PYTHON.chmod(0o755)
    with pytest.raises(setup_env.SetupError, match=r"nms does not exist\).*pip uninstall -y torchvision"):
        setup_env.refuse_broken_torchvision()


def test_a_broken_venv_is_named(setup_env: ModuleType) -> None:
    with pytest.raises(setup_env.SetupError, match=r"python does not run .* delete .*\.venv"):
        setup_env.create_venv()


@pytest.mark.parametrize(("listed", "cuda"), [("GPU 0: NVIDIA L4 (UUID: 1)\n", True), ("No devices found.\n", False)])
def test_cuda_device(setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch, listed: str, cuda: bool) -> None:
    answer = subprocess.CompletedProcess([], 0, stdout=listed)
    monkeypatch.setattr(setup_env.subprocess, "run", lambda *_arguments, **_options: answer)
    assert setup_env.has_cuda_device() is cuda


def test_every_requirement_is_pinned() -> None:
    """A wheel of another ROS distribution, or a newer transformers, must not slip in unseen."""
    for path in (ROOT / "requirements").glob("*.txt"):
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert lines, path.name
        assert not [line for line in lines if "==" not in line.split(";")[0]], path.name
