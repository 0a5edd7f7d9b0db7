"""Random scenes, latencies, commands and gaps on simulated time: what must hold whatever happens."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.drawn_scenes import DrawnScene, Thing, Watcher
from unit.fakes import COLOURS, SECOND, FollowingSegmenter, unhurried

from instructseg.core import State

END_S = 4.0
many = settings(unhurried, max_examples=30)  # a run takes about 40 ms
NAMES = tuple(COLOURS)


@dataclasses.dataclass(frozen=True)
class Command:
    """add: the text, under the id; cancel and reset have none."""

    at: float
    kind: str
    name: str
    text: str


@dataclasses.dataclass(frozen=True)
class Script:
    """Everything one run depends on. seen: by colour, from when until when it is there, and how fast it moves."""

    rate: float
    step_s: float
    ground_s: float
    gap: tuple[float, float]  # no frames in between
    seen: dict[str, tuple[float, float, float]]
    commands: tuple[Command, ...]

    def run(self) -> Watcher:
        def path(begin: float, end: float, speed: float, start: float):
            return lambda t: start + speed * t if begin <= t < end else None

        scene = DrawnScene(
            **{
                colour: Thing(colour, path(*self.seen[colour], start=20 + 90 * place), top=4 + 20 * place)
                for place, colour in enumerate(self.seen)
            }
        )
        watcher = Watcher(scene, FollowingSegmenter(), END_S, self.rate, self.step_s, self.ground_s)
        watcher.keep = lambda t: not self.gap[0] <= t < self.gap[1]
        for command in self.commands:
            if command.kind == "add":
                watcher.instruct(command.at, command.text, command.name)
            elif command.kind == "cancel":
                watcher.stream.at(round(command.at * SECOND), lambda c=command: watcher.engine.cancel(c.name))
            else:
                watcher.stream.at(round(command.at * SECOND), watcher.engine.reset)
        return watcher.run()


# Such that in most runs something is found, and in many it is lost, covered by a gap, cancelled or replaced.
commands = st.builds(
    Command,
    at=st.floats(0.0, END_S - 1.0),
    kind=st.sampled_from(["add", "add", "add", "add", "cancel", "reset"]),
    name=st.sampled_from(["a", "b"]),
    text=st.sampled_from([*NAMES, "red and blue", "green and red"]),
)
stays = st.tuples(st.floats(0.0, 1.5), st.floats(1.5, 2.0 * END_S), st.floats(-30.0, 30.0))
scripts = st.builds(
    Script,
    rate=st.sampled_from([5.0, 10.0, 30.0]),
    step_s=st.sampled_from([0.0, 0.01, 0.04, 0.15]),
    ground_s=st.sampled_from([0.0, 0.05, 0.4, 1.5]),
    gap=st.tuples(st.floats(0.0, END_S), st.floats(0.0, 1.5)).map(lambda g: (g[0], g[0] + g[1])),
    seen=st.fixed_dictionaries({"red": stays}, optional={"green": stays, "blue": stays}),
    commands=st.lists(commands, min_size=1, max_size=6).map(lambda c: tuple(sorted(c, key=lambda x: x.at))),
)


@given(scripts)
@many
def test_results_come_in_order_and_every_frame_is_accounted_for(script: Script) -> None:
    watcher = script.run()
    stamps = [result.frame.stamp_ns for _, result in watcher.results]
    assert stamps == sorted(set(stamps))
    for when, result in watcher.results:
        assert np.isclose(result.age_s, when - result.frame.stamp_ns / SECOND, atol=1e-9)
        assert result.age_s >= 0.0
    seen = watcher.statistics
    on_their_way = seen.frames_in - seen.frames_out - sum(seen.drops.values())
    assert 0 <= on_their_way <= 2  # one being looked at, one waiting
    assert seen.faults == {} and seen.last_error == ""


@given(scripts)
@many
def test_a_mask_is_always_one_of_its_own_frame_and_of_what_was_asked_for(script: Script) -> None:
    for _, result in script.run().results:
        ids = [target.instance_id for target in result.targets if target.state is State.PRESENT]
        assert len(ids) == len(set(ids)) and 0 not in ids
        for target in result.targets:
            assert (target.mask is not None) == (target.state is State.PRESENT)
            if target.mask is not None:
                (colour,) = {tuple(pixel) for pixel in result.frame.image[target.mask]}
                assert colour in {COLOURS[word] for word in target.instruction.text.split() if word in COLOURS}


@given(scripts)
@many
def test_an_id_belongs_to_one_instruction_for_ever(script: Script) -> None:
    owners: dict[int, tuple[str, str]] = {}
    for _, result in script.run().results:
        for target in result.targets:
            if target.instance_id:
                owner = (target.instruction.id, target.instruction.text)
                assert owners.setdefault(target.instance_id, owner) == owner


@given(scripts)
@many
def test_what_was_cancelled_or_replaced_is_gone_with_the_next_frame(script: Script) -> None:
    wanted: dict[str, str | None] = {"a": None, "b": None}
    changes = [c for c in script.commands if c.kind != "reset"]
    watcher = script.run()
    for number, command in enumerate(changes):
        wanted[command.name] = command.text if command.kind == "add" else None
        until = changes[number + 1].at if number + 1 < len(changes) else END_S
        for _, result in watcher.results:
            stamp = result.frame.stamp_ns / SECOND
            if command.at < stamp < until:  # taken after the command
                for target in result.targets:
                    later = {c.text for c in changes[number:] if c.name == target.instruction.id and c.kind == "add"}
                    assert target.instruction.text in {wanted[target.instruction.id]} | later


@given(scripts)
@many
def test_the_same_script_gives_the_same_results(script: Script) -> None:
    def told(watcher: Watcher) -> list:
        return [
            (when, r.frame.stamp_ns, [(t.instance_id, t.state, t.reason, t.mask is not None) for t in r.targets])
            for when, r in watcher.results
        ]

    one, two = script.run(), script.run()
    assert told(one) == told(two)
    assert one.statistics.groundings == two.statistics.groundings
