"""Pairing by stamp: the nearest within the tolerance, in whatever order things come; nothing else, and nothing late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from unit.fakes import unhurried

from instructseg_node.spatial.pairing import SECOND, Pairing

MS = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def pairing(tolerance_ms: float = 20, **values) -> Pairing:
    return Pairing(round(tolerance_ms * MS), **values)


def names(pairs) -> list[tuple]:
    return [(pair.frame, pair.depth, pair.info) for pair in pairs]


def at(ms: float) -> int:
    return SECOND + round(ms * MS)


def test_exact_stamps_pair_in_every_order_of_arrival() -> None:
    steps = {
        "frame": lambda p: p.add_frame(at(0), "f"),
        "depth": lambda p: p.add_depth(at(0), "d"),
        "info": lambda p: p.add_info(at(0), "i"),
    }
    for order in (["frame", "depth", "info"], ["info", "depth", "frame"], ["depth", "frame", "info"]):
        one = pairing(0)
        got = [names(steps[step](one)) for step in order]
        assert got == [[], [], [("f", "d", "i")]], order
        assert not one.counts


def test_the_nearest_depth_within_the_tolerance_is_taken() -> None:
    one = pairing()
    one.add_info(at(0), "i")
    one.add_depth(at(-15), "early")
    one.add_depth(at(5), "near")
    one.add_depth(at(15), "late")
    assert names(one.add_frame(at(0), "f")) == [("f", "near", "i")]


def test_an_earlier_depth_is_not_taken_while_a_nearer_one_may_come() -> None:
    one = pairing()
    one.add_info(at(0), "i")
    one.add_depth(at(-15), "early")
    assert one.add_frame(at(0), "f") == []
    assert names(one.add_depth(at(3), "near")) == [("f", "near", "i")]
    two = pairing()
    two.add_info(at(0), "i")
    two.add_depth(at(-15), "early")
    two.add_frame(at(0), "f")
    assert names(two.add_depth(at(18), "far")) == [("f", "early", "i")]


def test_frames_without_a_partner_are_counted_by_cause_and_never_paired_later() -> None:
    one = pairing(waiting=1)
    assert one.add_frame(at(0), "a") == []
    one.add_frame(at(100), "b")
    assert one.counts == {"no depth": 1}
    one.add_depth(at(50), "d")
    one.add_frame(at(200), "c")
    assert one.counts == {"no depth": 1, "depth of another time": 1}
    one.add_depth(at(200), "d")
    one.add_frame(at(300), "e")
    assert one.counts["no camera_info"] == 1
    one.add_info(at(0), "i")
    one.add_depth(at(300), "d")
    one.add_frame(at(400), "g")
    assert one.counts["camera_info of another time"] == 1
    assert one.add_depth(at(0), "a's, too late") == []


def test_a_frame_that_waited_too_long_is_not_shown_as_current() -> None:
    clock = Clock()
    one = pairing(wait_s=0.5, clock=clock)
    one.add_info(at(0), "i")
    one.add_frame(at(0), "f")
    clock.now = 0.6
    assert one.add_depth(at(0), "d") == []
    assert one.counts == {"paired too late": 1}
    patient = pairing(wait_s=0.0, clock=clock)
    patient.add_info(at(0), "i")
    patient.add_frame(at(0), "f")
    clock.now = 60.0
    assert names(patient.add_depth(at(0), "d")) == [("f", "d", "i")]


def test_when_the_queue_is_full_what_is_there_must_do() -> None:
    one = pairing(waiting=1)
    one.add_info(at(0), "i")
    one.add_depth(at(-15), "early")
    one.add_frame(at(0), "f")
    assert names(one.add_frame(at(30), "g")) == [("f", "early", "i")]


def test_a_camera_info_without_stamp_fits_every_frame() -> None:
    one = pairing()
    one.add_info(0, "static")
    one.add_depth(at(5), "d")
    assert names(one.add_frame(at(5), "f")) == [("f", "d", "static")]


def test_a_recording_that_begins_anew_does_not_meet_its_own_past() -> None:
    one = pairing(1000)
    one.add_info(0, "i")
    one.add_depth(at(9000), "of the first run")
    one.add_depth(at(0), "of the second run")
    assert names(one.add_frame(at(0), "f")) == [("f", "of the second run", "i")]
    assert "1 depth images" in repr(one)


def test_what_is_forgotten_is_gone() -> None:
    one = pairing()
    one.add_info(at(0), "i")
    one.add_depth(at(0), "d")
    one.forget()
    assert one.add_frame(at(0), "f") == []
    one.stop_waiting()
    one.add_info(at(0), "i")
    assert one.add_depth(at(0), "d") == []


@unhurried
@given(st.lists(st.tuples(st.sampled_from("fdi"), st.integers(0, 400)), max_size=60), st.integers(0, 60))
def test_pairs_are_always_within_the_tolerance_and_storage_is_bounded(events, tolerance: int) -> None:
    one = pairing(tolerance, keep=4, waiting=2)
    frames, pairs = 0, []
    for kind, ms in events:
        add = {"f": one.add_frame, "d": one.add_depth, "i": one.add_info}[kind]
        frames += kind == "f"
        pairs += add(at(ms), ms)
    for pair in pairs:
        assert abs(pair.frame - pair.depth) <= tolerance and abs(pair.frame - pair.info) <= tolerance
    assert max(len(one._depths), len(one._infos)) <= 4 and len(one._frames) <= 2
    assert len(pairs) + one.counts.total() + len(one._frames) <= frames
