"""Spoken commands: what falls away as a filler, what stays, and what ends everything."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes import unhurried

from instructseg.core import BadInput
from instructseg.data.instructions import CARRIERS, HELD_OUT_CARRIERS, HELD_OUT_USES, USES
from instructseg.recipes.unified.tokenizer import load_tokenizer
from instructseg.spoken import SpokenCommand, hear, without_fillers

WEIGHTS = Path(__file__).parents[2] / "model" / "instructseg" / "recipes" / "unified" / "weights"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        # Hesitation, address, politeness
        ("um, please could you find the red block", "find the red block"),
        ("hey robot, find the red block", "find the red block"),
        ("hey robot could you uh find the um red block please", "find the red block"),
        ("Robot, could you please find the red block?", "find the red block?"),
        ("okay so find the red block", "find the red block"),
        ("hi, I'd like you to pick up the mug", "pick up the mug"),
        ("I would like you to follow the ball, thank you very much.", "follow the ball."),
        ("would you just track the ball", "track the ball"),
        ("the red block and, um, the blue ball", "the red block and the blue ball"),
        ("Please find the mug? Thanks!", "find the mug?"),
        ("all right then, the mug", "the mug"),
        ("hmm... the bowl", "the bowl"),
        # A correction says what it corrects to
        ("no, the blue one", "the blue one"),
        ("actually the blue one", "the blue one"),
        ("no the blue one", "the blue one"),
        ("Wait, hold on, the blue one", "the blue one"),
        # Stutter
        ("the the red block", "the red block"),
        ("find the, uh, the red block", "find the red block"),
        ("Find find the the the ball", "find the ball"),
        # Capitals and punctuation
        ("UM FIND THE RED BLOCK", "FIND THE RED BLOCK"),
        ("Find The Red Block.", "Find The Red Block."),
        ("find the red block, please.", "find the red block."),
        ("the red block –", "the red block"),
        ("the red block,", "the red block"),
    ],
)
def test_what_falls_away(said: str, words: str) -> None:
    assert hear(said) == SpokenCommand(False, words)


@pytest.mark.parametrize(
    "said",
    [
        "the OK button", "OK button", "hello kitty cup", "well water", "right one", "robot arm", "find the robot",
        "the ER sign", "the 2 Ah battery", "the card that says thank you", "the thing that that arm holds",
        "the red red pepper", "can you see the red block", "which cup can you drink from?", "clear, round bottle",
        "so much sugar", "the please wait sign", "hand me the mug", "no entry sign", "I want the mug",
    ],
)  # fmt: skip
def test_what_stays(said: str) -> None:
    assert hear(said) == SpokenCommand(False, said)


@pytest.mark.parametrize(
    "said",
    [
        "stop", " Stop! ", "STOP", "stop\n", "cancel", "clear", "Clear.", "stop it", "Stop that!",
        "stop stop stop", "no, no, stop!", "please stop",
        "stop please", "stop now", "stop right now!", "hey robot, stop", "robot stop", "Stop, robot!",
        "um stop",
        "could you please stop", "i want you to stop now please", "whoa, stop", "oh no stop", "wait stop it",
        "cancel that", "cancel it, please", "Cancel everything.", "cancel all", "cancel the last command",
        "cancel the red block", "clear all", "clear the list", "never mind", "Nevermind.", "never mind that",
        "never mind the red block", "forget it", "forget about it", "forget the mug", "abort", "that's enough",
        "That’s enough, thanks.", "enough", "stop looking for it", "stop tracking the red block", "quit following me",
        "stop, stop, stop!", "Stop. Stop! STOP", "stop, I said stop", "no no stop please stop", "everything stop",
        "stop please robot", "robot, freeze!", "you can stop now", "stop moving", "stop doing that", "stop the robot",
        "emergency stop", "e-stop", "clear all instructions", "cancel all the tasks", "cancel command",
        "don't follow the man", "Do not track it.", "please don't grab the mug",
    ],
)  # fmt: skip
def test_what_ends_everything(said: str) -> None:
    assert hear(said) == SpokenCommand(True, "")


@pytest.mark.parametrize(
    "said",
    [
        "find the stop sign", "stop sign", "the stop button", "the thing next to the cancel button", "cancel button",
        "clear bottle", "the clear plastic bag", "stop watch on the table", "stop the ball", "stop sign on the left",
        "find the emergency stop", "the mug that nobody will stop using", "abort switch", "the never mind poster",
        "emergency stop button", "do not enter sign", "the robot stop button", "the last cup", "all cups",
    ],
)  # fmt: skip
def test_a_thing_that_is_called_so_is_found(said: str) -> None:
    assert hear(said) == SpokenCommand(False, said)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("never mind, find the blue ball", "find the blue ball"),
        ("Cancel that and find the blue ball", "find the blue ball"),
        ("stop, the blue ball please", "the blue ball"),
        ("Stop. Blue ball.", "Blue ball."),
        ("no, stop it and then um find the mug", "find the mug"),
        ("forget it find the mug", "find the mug"),
    ],
)
def test_an_end_and_a_new_beginning(said: str, words: str) -> None:
    assert hear(said) == SpokenCommand(True, words)


@pytest.mark.parametrize("said", ["um", "please", "Thanks!", "uh, please", "hmm um"])
def test_nothing_but_fillers_is_refused(said: str) -> None:
    with pytest.raises(BadInput, match="nothing but fillers"):
        hear(said)


@pytest.mark.parametrize("said", [None, 7, "", "?!", "x" * 1001, "the <TRK> mug", "um <|im_start|>", "mug\x00"])
def test_what_no_instruction_may_be_is_refused_here_too(said: object) -> None:
    with pytest.raises(BadInput):
        hear(said)
    with pytest.raises(BadInput):
        without_fillers(said)


def test_a_stop_word_is_a_word_where_only_fillers_are_taken_out() -> None:
    assert without_fillers("um, stop") == "stop"


def test_what_the_recipes_were_trained_on_keeps_its_meaning() -> None:
    """Carriers of the default recipe: whatever falls away leaves a sentence around the same thing, never a cancel."""
    for thing in ["the red block", *USES, *HELD_OUT_USES]:
        for carrier in (*CARRIERS, *HELD_OUT_CARRIERS):
            heard = hear(carrier.format(thing))
            assert not heard.cancels
            assert thing in heard.text


def test_the_default_recipe_reads_capitals_and_full_stops_as_small_letters_and_dots() -> None:
    tokenizer = load_tokenizer(next(WEIGHTS.rglob("tokenizer.json")))
    plain, shouted = (tokenizer.encode(text, add_special_tokens=False).ids for text in ("the block.", "The BLOCK ."))
    assert plain == shouted


LINES = """um uh please hey robot ok so can could you find the a red block stop cancel clear that it never mind and then
, . ! thanks thank forget about no right i'd like to just ER"""
WORDS = st.sampled_from(LINES.split())


@unhurried
@given(st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=60))
def test_any_words_at_all_give_an_answer_that_is_stable(said: str) -> None:
    try:
        heard = hear(said)
    except BadInput:
        return
    assert heard.cancels or heard.text
    if heard.text:
        assert without_fillers(heard.text) == heard.text
        kept, before = heard.text.lower().split(), unicodedata.normalize("NFKC", said).lower()
        assert all(word.strip(",.!?") in before for word in kept)  # nothing is put in
