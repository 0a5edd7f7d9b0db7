"""The bag that is played: which of its topics are the cameras', what is in them, and what is played of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from rosbags.interfaces import Connection

from instructseg.core import BadInput

from ..conversions import stamp_ns
from ..spatial.compressed_depth import COMPRESSED as PNG_DEPTH
from ..spatial.compressed_depth import COMPRESSED_DEPTH, RAW
from .arguments import Options
from .bags import COMPRESSED, IMAGE, INFO, STRING, Decoder, open_bag, read
from .commands import Command

MAIN = "camera"  # what the node calls its only camera
DEPTHS = ("16UC1", "32FC1")
COLOURED = ("rgb", "bgr", "bayer", "yuv", "8UC3", "8UC4", "jpeg", "jpg", "nv12", "uyvy", "yuyv")


@dataclasses.dataclass(frozen=True)
class Topic:
    """One topic that is played. role: image, depth or info. camera: its name in the node. transport: of depth."""

    name: str
    kind: str
    camera: str
    role: str
    transport: str = RAW


@dataclasses.dataclass(frozen=True)
class Sample:
    """One message to be played. time_ns: when it was recorded. stamp_ns, frame_id: of its header."""

    topic: Topic
    time_ns: int
    data: bytes
    stamp_ns: int
    frame_id: str


class Source:
    """An open bag and the choice made of it. A context manager.

    zero_ns: log time of the first image, from which all seconds count. start, end: what is played, in these seconds.
    unreadable: messages by topic whose bytes are none of their type; they are left out.
    """

    def __init__(self, options: Options) -> None:
        self.path = options.bag
        self._reader = open_bag(options.bag)
        try:
            self._decoder = Decoder()
            self.topics = _choose(self._reader, self._decoder, options)
            self.unreadable: dict[str, int] = {}
            self.zero_ns = self._first_image_ns()
            last = (self._reader.end_time - self.zero_ns) / 1e9
            self.start, self.end = options.start, min(options.start + options.duration, last)
            if self.start >= last:
                raise BadInput(f"--start is {self.start:g} s; {self.path} ends {last:.3f} s after its first image")
        except BaseException:
            self._reader.close()
            raise

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    @property
    def images(self) -> dict[str, Topic]:
        """The image topic of every camera."""
        return {topic.camera: topic for topic in self.topics if topic.role == "image"}

    @property
    def compressed(self) -> bool:
        return next(iter(self.images.values())).kind == COMPRESSED

    @property
    def depth_transport(self) -> str:
        """Of all depth images, as the node's parameter of that name."""
        return next((topic.transport for topic in self.topics if topic.role == "depth"), RAW)

    def seconds(self, time_ns: int) -> float:
        """A log time as seconds after the first image."""
        return (time_ns - self.zero_ns) / 1e9

    def log_time(self, seconds: float) -> int:
        return self.zero_ns + round(seconds * 1e9)

    def samples(self) -> Iterator[Sample]:
        """What is to be played, in order of log time."""
        chosen = {topic.name: topic for topic in self.topics}
        # What was recorded just before the first image (its camera_info) belongs to it.
        start = self.log_time(self.start) if self.start else None
        for connection, time_ns, data in self._read(chosen, start, self.log_time(self.end)):
            try:
                header = self._decoder.decode(connection, data).header
            except BadInput:
                self.unreadable[connection.topic] = self.unreadable.get(connection.topic, 0) + 1
                continue
            yield Sample(chosen[connection.topic], time_ns, bytes(data), stamp_ns(header.stamp), str(header.frame_id))

    def image_at(self, camera: str, time_ns: int) -> Any:
        """The image message that was recorded at this time."""
        topic = self.images[camera]
        connection, _, data = next(self._read({topic.name: topic}, time_ns, time_ns + 1))
        return self._decoder.decode(connection, data)

    def commands(self, topic: str) -> tuple[Command, ...]:
        """What was said on a topic of the bag (std_msgs/String). Raises BadInput where there is no such topic."""
        found = [c for c in self._reader.connections if c.topic == topic and c.msgtype == STRING]
        if not found:
            there = ", ".join(sorted({c.topic for c in self._reader.connections if c.msgtype == STRING})) or "none"
            raise BadInput(f"--command-topic {topic}: not in {self.path} as {STRING}; topics of that type: {there}")
        messages = read(self._reader, found)
        return tuple(
            Command(stamp_ns=time_ns, text=self._decoder.decode(c, data).data, place=topic)
            for c, time_ns, data in messages
        )

    def _read(
        self, topics: Mapping[str, Topic], start: int | None, stop: int
    ) -> Iterator[tuple[Connection, int, bytes]]:
        wanted = [c for c in self._reader.connections if c.topic in topics and c.msgtype == topics[c.topic].kind]
        return read(self._reader, wanted, start, stop)

    def _first_image_ns(self) -> int:
        firsts = []
        for topic in self.images.values():
            first = next(self._read({topic.name: topic}, None, 2**63 - 1), None)
            if first is None:
                raise BadInput(f"{self.path} holds no message on {topic.name}")
            firsts.append(first[1])
        return min(firsts)


def _choose(reader: Any, decoder: Decoder, options: Options) -> tuple[Topic, ...]:
    """The topics of every camera, given or found."""
    images = dict(options.images) or {"": _only_image(reader, decoder, options)}
    topics = []
    for name, topic in images.items():
        camera = name or MAIN
        kind = _kind(reader, topic, (IMAGE, COMPRESSED), f"--camera {name}" if name else "--image")
        topics.append(Topic(topic, kind, camera, "image"))
        depth = options.depths.get(name) or _beside(reader, decoder, topic, len(images), "depth")
        info = options.infos.get(name) or _beside(reader, decoder, topic, len(images), "info")
        if depth:
            kind = _kind(reader, depth, (IMAGE, COMPRESSED), "--depth")
            topics.append(Topic(depth, kind, camera, "depth", _transport(reader, decoder, depth, kind)))
        if info:
            topics.append(Topic(info, _kind(reader, info, (INFO,), "--info"), camera, "info"))
    names = [topic.name for topic in topics]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise BadInput(f"{twice} is named twice; every topic can play one part for one camera")
    if len({topic.kind for topic in topics if topic.role == "image"}) > 1:
        raise BadInput("some cameras are raw and some compressed: the node takes one kind; choose topics of one kind")
    if len({topic.transport for topic in topics if topic.role == "depth"}) > 1:
        raise BadInput("depth images are packed in different ways: the node takes one; choose with --depth")
    return tuple(topics)


def _only_image(reader: Any, decoder: Decoder, options: Options) -> str:
    """The topic of the only camera: colour before grey, masks and depth never. BadInput naming what there is."""
    if not reader.message_count:
        raise BadInput(f"{options.bag} is empty: it holds no message")
    colour, grey = [], []
    for connection in reader.connections:
        if connection.msgtype not in (IMAGE, COMPRESSED) or not connection.msgcount:
            continue
        encoding = _encoding(reader, decoder, connection)
        if any(word in encoding.lower() for word in COLOURED):
            colour.append(connection.topic)
        elif not encoding.startswith(DEPTHS):
            grey.append(connection.topic)
    found = sorted(set(colour or grey))
    # The same pictures twice: the raw ones are the exact ones.
    found = [topic for topic in found if topic.removesuffix("/compressed") not in found or topic[-11:] != "/compressed"]
    if len(found) == 1:
        return found[0]
    if not found:
        there = ", ".join(sorted(f"{c.topic} ({c.msgtype})" for c in reader.connections)) or "none"
        raise BadInput(f"{options.bag} holds no camera images; its topics: {there}")
    raise BadInput(
        f"{options.bag} holds several image topics: {', '.join(found)}; choose with --image TOPIC, or several with "
        "--camera NAME=TOPIC"
    )


def _encoding(reader: Any, decoder: Decoder, connection: Connection) -> str:
    """Encoding (or format) of the first image that can be read."""
    for _, _, data in read(reader, [connection]):
        try:
            message = decoder.decode(connection, data)
        except BadInput:
            continue
        return str(message.encoding if connection.msgtype == IMAGE else message.format)
    return ""


def _kind(reader: Any, topic: str, allowed: tuple[str, ...], what: str) -> str:
    kinds = [c.msgtype for c in reader.connections if c.topic == topic]
    if not kinds:
        there = ", ".join(sorted(c.topic for c in reader.connections if c.msgtype in allowed)) or "none"
        raise BadInput(f"{what}: {topic} is not in the bag; topics of that kind: {there}")
    if kinds[0] not in allowed:
        raise BadInput(f"{what}: {topic} is {kinds[0]}; allowed: {', '.join(allowed)}")
    return kinds[0]


def _beside(reader: Any, decoder: Decoder, image: str, cameras: int, role: str) -> str:
    """The calibration or the depth that lies beside an image topic, or is the only one for the only camera; else ""."""
    found = [c for c in reader.connections if c.msgtype == (INFO if role == "info" else IMAGE) and c.msgcount]
    if role == "depth":
        packed = [c for c in reader.connections if c.msgtype == COMPRESSED and c.msgcount]
        found = _depths(reader, decoder, found) or _depths(reader, decoder, packed)
    names = list({_unpacked(c.topic): c.topic for c in sorted(found, key=lambda c: c.topic, reverse=True)}.values())
    near = [name for name in names if _folder(name) == _folder(image)]
    if len(near) == 1:
        return near[0]
    return names[0] if len(names) == 1 and cameras == 1 and not near else ""


def _depths(reader: Any, decoder: Decoder, connections: list[Connection]) -> list[Connection]:
    return [c for c in connections if "depth" in c.topic and _encoding(reader, decoder, c).startswith(DEPTHS)]


def _transport(reader: Any, decoder: Decoder, topic: str, kind: str) -> str:
    """What the node's parameter depth_transport has to be for this topic; the format of its messages decides."""
    if kind == IMAGE:
        return RAW
    connection = next(c for c in reader.connections if c.topic == topic)
    return COMPRESSED_DEPTH if "compresseddepth" in _encoding(reader, decoder, connection).lower() else PNG_DEPTH


def _folder(topic: str) -> str:
    return _unpacked(topic).rpartition("/")[0]


def _unpacked(topic: str) -> str:
    """The name of the images themselves, of which this topic may be a packed form."""
    return topic.removesuffix("/compressedDepth").removesuffix("/compressed")
