"""colcon builds the workspace in this environment, and what it installs is what ROS's tools look for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
EXECUTABLES = (
    "instructseg", "instructseg_agent", "instructseg_node", "instructseg_planner", "instructseg_play",
    "instructseg_replay", "instructseg_rerun",
)  # fmt: skip


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The install space of a build of ``ros2_ws``; half a minute of two cores. The checkout stays as it is."""
    folder = tmp_path_factory.mktemp("colcon")
    before = set(ROOT.joinpath("ros2_ws").iterdir())
    command = [
        str(BIN / "colcon"), "--log-base", str(folder / "log"), "build", "--merge-install",
        "--base-paths", str(ROOT / "ros2_ws" / "src"), "--build-base", str(folder / "build"),
        "--install-base", str(folder / "install"),
    ]  # fmt: skip
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 packages finished" in run.stdout + run.stderr
    assert set(ROOT.joinpath("ros2_ws").iterdir()) == before
    return folder / "install"


def test_the_index_names_both_packages(install: Path) -> None:
    index = install / "share" / "ament_index" / "resource_index" / "packages"
    assert {path.name for path in index.iterdir()} == {"instructseg_msgs", "instructseg_node"}


@pytest.mark.parametrize("folder", ["launch", "config", "config/dds", "config/training", "config/viewers"])
def test_files_that_launch_and_people_look_for(install: Path, folder: str) -> None:
    wanted = {path.name for path in (ROOT / folder).iterdir() if path.is_file() and path.suffix != ".pyc"}
    assert wanted == {path.name for path in (install / "share/instructseg_node" / folder).iterdir() if path.is_file()}


@pytest.mark.parametrize("name", EXECUTABLES)
def test_ros2_run_finds_the_executables(install: Path, name: str) -> None:
    path = install / "lib" / "instructseg_node" / name
    assert os.access(path, os.X_OK)


def test_the_installed_packages_are_the_ones_that_are_used(install: Path) -> None:
    """As ``source install/setup.bash`` would have it: the install space before the environment."""
    (packages,) = install.glob("lib/python3.*/site-packages")
    program = (
        "import instructseg, instructseg_node, instructseg_msgs.msg as m; m.Target(); "
        "from ament_index_python.packages import get_package_share_directory as share; "
        "print(instructseg.__file__, instructseg_node.__file__, m.__file__, share('instructseg_node'), sep='\\n')"
    )
    environment = {
        **os.environ, "PYTHONPATH": str(packages), "AMENT_PREFIX_PATH": str(install),
        "LD_LIBRARY_PATH": f"{install / 'lib'}{os.pathsep}{os.environ.get('LD_LIBRARY_PATH', '')}",
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=install, env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert all(line.startswith(str(install)) for line in run.stdout.split()), run.stdout
