"""The DDS profiles keep traffic on this host, and whatever would not is refused before rclpy.init."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from instructseg_node import dds

# Talks to itself, so that the transports are really in use, then says which addresses its sockets are bound to.
TALK_TO_ONESELF = """
import json, sys, time
from instructseg_node import dds
dds.use_profile(sys.argv[1], domain_id=dds.own_domain_id())
import rclpy
from std_msgs.msg import String
rclpy.init()
node = rclpy.create_node("alone")
heard = []
node.create_subscription(String, "words", heard.append, 1)
publisher = node.create_publisher(String, "words", 1)
deadline = time.monotonic() + 10
while not heard and time.monotonic() < deadline:
    publisher.publish(String(data="hello"))
    rclpy.spin_once(node, timeout_sec=0.05)
dds.assert_loopback_only()
addresses = sorted(dds.udp_addresses())
node.destroy_node()
rclpy.shutdown()
print(json.dumps({"heard": len(heard) > 0, "addresses": addresses}))
"""


@pytest.mark.process
@pytest.mark.parametrize(("profile", "addresses"), [("shm", []), ("loopback", ["127.0.0.1"])])
def test_sockets_of_a_process(profile: str, addresses: list[str]) -> None:
    # The user's shell asks for transports that are open to the network; the profile has to win.
    env = {**os.environ, "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4", "ROS_STATIC_PEERS": "192.0.2.1"}
    command = [sys.executable, "-c", TALK_TO_ONESELF, profile]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"heard": True, "addresses": addresses}


@pytest.mark.process
def test_an_open_socket_is_noticed() -> None:
    script = (
        "import socket\nfrom instructseg_node import dds\n"
        "opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nopened.bind(('127.0.0.1', 0))\n"
        "dds.assert_loopback_only()\n"
        "opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nopened.bind(('0.0.0.0', 0))\n"
        "try:\n    dds.assert_loopback_only()\nexcept dds.DdsProfileError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.startswith("UDP sockets on 0.0.0.0"), done.stderr


def test_use_profile_sets_the_variables_of_both_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_environment(monkeypatch)
    for name in dds.CONFLICTING:
        monkeypatch.setenv(name, "1")
    path = dds.use_profile("shm", domain_id=7)
    assert path.is_file()
    assert os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] == os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] == str(path)
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SYSTEM_DEFAULT"
    assert os.environ["ROS_DOMAIN_ID"] == "7"
    assert not set(dds.CONFLICTING) & set(os.environ)


def test_without_a_domain_the_callers_domain_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_environment(monkeypatch)
    monkeypatch.setenv("ROS_DOMAIN_ID", "42")
    dds.use_profile("shm")
    assert os.environ["ROS_DOMAIN_ID"] == "42"


def test_own_domain_is_safe() -> None:
    assert 1 <= dds.own_domain_id() <= dds.MAX_DOMAIN_ID


@pytest.mark.parametrize("domain_id", [-1, 102])
def test_domain_out_of_range(domain_id: int) -> None:
    with pytest.raises(dds.DdsProfileError, match=rf"0\.\.101; got {domain_id}"):
        dds.profile_environment("shm", domain_id)


def test_unknown_profile() -> None:
    with pytest.raises(dds.DdsProfileError, match=r"'udp'.*shm, loopback"):
        dds.find_profile("udp")


def test_a_missing_file_is_refused_and_nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keep_environment(monkeypatch)
    monkeypatch.setattr(dds, "_roots", lambda: iter([tmp_path]))
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE")
    with pytest.raises(dds.DdsProfileError, match=r"'shm' not found \(tried .*shm\.xml"):
        dds.use_profile("shm")
    assert "FASTRTPS_DEFAULT_PROFILES_FILE" not in os.environ


def test_an_installed_profile_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    committed = dds.find_profile("shm").read_text()
    installed = tmp_path / "share" / "instructseg_node" / "config" / "dds" / "shm.xml"
    installed.parent.mkdir(parents=True)
    installed.write_text(committed)
    monkeypatch.setattr(dds, "__file__", str(tmp_path / "lib" / "instructseg_node" / "dds.py"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'other'}:{tmp_path}")
    assert dds.find_profile("shm") == installed


@pytest.mark.process
def test_too_late_after_init() -> None:
    script = (
        "import os, rclpy\nfrom instructseg_node import dds\n"
        "os.environ.update(dds.profile_environment('shm'))\nrclpy.init()\ndds.use_profile('shm')\n"
        "try:\n    dds.use_profile('loopback')\nexcept dds.DdsProfileError as error:\n    print(error)\n"
        "rclpy.shutdown()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert "loopback.xml chosen after rclpy.init" in done.stdout, done.stderr


@pytest.mark.parametrize("profile", dds.PROFILES)
def test_committed_profiles_pass(profile: str) -> None:
    dds.check_profile(dds.find_profile(profile))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("shm", "</dds>", "", "not well-formed"),
        ("shm", 'is_default_profile="true"', "", "one default participant; it has 0"),
        ("shm", "<useBuiltinTransports>false", "<useBuiltinTransports>true", "useBuiltinTransports to false"),
        ("shm", "<type>SHM", "<type>UDPv4", "UDPv4.*allowed: SHM"),
        ("shm", "<transport_id>shared_memory", "<transport_id>shm", "must name some of the declared"),
        ("loopback", "<address>127.0.0.1", "<address>192.0.2.1", r"192\.0\.2\.1"),
        ("loopback", "<type>SHM", "<type>TCPv4", "TCPv4"),
    ],
)
def test_a_profile_that_would_not_confine(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    text = dds.find_profile(name).read_text()
    assert old in text
    path = tmp_path / "profile.xml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(dds.DdsProfileError, match=message):
        dds.check_profile(path)


def test_an_unreadable_profile(tmp_path: Path) -> None:
    with pytest.raises(dds.DdsProfileError, match="cannot be read"):
        dds.check_profile(tmp_path)


def keep_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo after the test whatever use_profile sets or removes."""
    for name in [*dds.CONFLICTING, *dds.profile_environment("shm", 1)]:
        monkeypatch.setenv(name, os.environ.get(name, ""))
        if not os.environ[name]:
            monkeypatch.delenv(name)
