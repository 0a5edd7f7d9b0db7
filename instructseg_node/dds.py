"""Keep ROS 2 traffic on this host: choose a committed Fast DDS profile before the first ``rclpy.init``.

Fast DDS falls back to its normal transports, open to the network, when the profile file is missing, broken, or named by
the variable of another distribution. Nothing here relies on that fallback: a profile is read and checked before any
variable is set, and :func:`assert_loopback_only` looks at the sockets that are really open. No rclpy import.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import psutil

PROFILES = ("shm", "loopback")
LOOPBACK = frozenset({"127.0.0.1", "::1"})
MAX_DOMAIN_ID = 101  # above it the UDP ports of a domain may fall into the range the system hands out by itself

# Set by a user's shell, each of these opens a further transport or peer beside the profile's own, or replaces them.
CONFLICTING = ("FASTDDS_BUILTIN_TRANSPORTS", "ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER")


class DdsProfileError(RuntimeError):
    """The profile cannot be used, or traffic is not confined to this host."""


def use_profile(name: str = "shm", domain_id: int | None = None) -> Path:
    """Confine this process (and the children it starts from now on) to this host; call before the first ``rclpy.init``.

    name: "shm" (no sockets at all) or "loopback" (shared memory and 127.0.0.1). domain_id: 0..101, or None to leave
    ROS_DOMAIN_ID as it is. Returns the profile's path. Raises DdsProfileError and changes nothing where the file is
    missing or would not confine the traffic, or where rclpy is initialised already.
    """
    environment = profile_environment(name, domain_id)
    path = Path(environment["FASTRTPS_DEFAULT_PROFILES_FILE"])
    if _rclpy_is_initialised() and os.environ.get("FASTRTPS_DEFAULT_PROFILES_FILE") != str(path):
        raise DdsProfileError(f"DDS profile {path} chosen after rclpy.init and so too late; call use_profile before")
    for variable in CONFLICTING:
        os.environ.pop(variable, None)
    os.environ.update(environment)
    return path


def profile_environment(name: str = "shm", domain_id: int | None = None) -> dict[str, str]:
    """The variables that select a profile, for a child process; arguments and errors as in :func:`use_profile`."""
    path = find_profile(name)
    check_profile(path)
    environment = {
        "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp",  # the profile means nothing to another middleware
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT",  # LOCALHOST would add an unrestricted UDP transport
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(path),  # the name that Jazzy reads
        "FASTDDS_DEFAULT_PROFILES_FILE": str(path),  # the name that Kilted reads
    }
    if domain_id is not None:
        if not 0 <= domain_id <= MAX_DOMAIN_ID:
            raise DdsProfileError(f"domain_id must be in 0..{MAX_DOMAIN_ID}; got {domain_id}")
        environment["ROS_DOMAIN_ID"] = str(domain_id)
    return environment


def own_domain_id() -> int:
    """A domain (1..100) for this process and its children, so that runs side by side do not hear each other."""
    return 1 + os.getpid() % 100


def find_profile(name: str) -> Path:
    """The committed file of a profile: from the source tree, else from the installed share directory."""
    if name not in PROFILES:
        raise DdsProfileError(f"unknown DDS profile {name!r}; there are: {', '.join(PROFILES)}")
    candidates = [directory / "config" / "dds" / f"{name}.xml" for directory in _roots()]
    for path in candidates:
        if path.is_file():
            return path
    tried = ", ".join(str(path) for path in candidates)
    raise DdsProfileError(f"DDS profile {name!r} not found (tried {tried}); install the package again")


def check_profile(path: Path) -> None:
    """Raise DdsProfileError unless the file is a Fast DDS profile that confines traffic to this host."""
    try:
        root = ElementTree.parse(path).getroot()
    except OSError as error:
        raise DdsProfileError(f"DDS profile {path} cannot be read: {error}") from error
    except ElementTree.ParseError as error:
        raise DdsProfileError(f"DDS profile {path} is not well-formed XML: {error}") from error
    participants = [p for p in _find(root, "participant") if p.get("is_default_profile") == "true"]
    if len(participants) != 1:
        raise DdsProfileError(f"DDS profile {path} must hold one default participant; it has {len(participants)}")
    builtin = [_text(element) for element in _find(participants[0], "useBuiltinTransports")]
    if builtin != ["false"]:
        raise DdsProfileError(f"DDS profile {path} must set useBuiltinTransports to false once; has {builtin}")
    used = [_text(e) for group in _find(participants[0], "userTransports") for e in _find(group, "transport_id")]
    descriptors = _find(root, "transport_descriptor")
    declared = [_text(e) for descriptor in descriptors for e in _find(descriptor, "transport_id")]
    if not used or not set(used) <= set(declared):
        raise DdsProfileError(f"DDS profile {path}: userTransports {used} must name some of the declared {declared}")
    for descriptor in descriptors:
        kind = [_text(element) for element in _find(descriptor, "type")]
        hosts = {_text(e) for group in _find(descriptor, "interfaceWhiteList") for e in _find(group, "address")}
        if kind != ["SHM"] and not (hosts and hosts <= LOOPBACK):
            got = f"transport {kind} with interfaces {sorted(hosts)}"
            raise DdsProfileError(f"DDS profile {path}: {got}; allowed: SHM, or an interfaceWhiteList of loopback only")


def udp_addresses() -> set[str]:
    """Local addresses of the UDP sockets this process has open."""
    return {socket.laddr.ip for socket in psutil.Process().net_connections(kind="udp") if socket.laddr}


def assert_loopback_only() -> None:
    """Raise DdsProfileError where this process has a UDP socket that is not bound to a loopback address."""
    outside = udp_addresses() - LOOPBACK
    if outside:
        raise DdsProfileError(
            f"UDP sockets on {', '.join(sorted(outside))}: the DDS profile is not in force; "
            "call instructseg_node.dds.use_profile before the first rclpy.init"
        )


def _roots() -> Iterator[Path]:
    """Directories that may hold config/: the source tree this file is in, then share/ of every sourced prefix."""
    yield Path(__file__).resolve().parents[1]
    prefixes = [prefix for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    for prefix in [*prefixes, sys.prefix]:
        yield Path(prefix) / "share" / "instructseg_node"


def _find(element: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
    """Descendants by local name: Fast DDS takes its files with and without the namespace."""
    return [e for e in element.iter() if isinstance(e.tag, str) and e.tag.rpartition("}")[2] == tag]


def _text(element: ElementTree.Element) -> str:
    return (element.text or "").strip()


def _rclpy_is_initialised() -> bool:
    rclpy = sys.modules.get("rclpy")
    return bool(rclpy and rclpy.ok())
