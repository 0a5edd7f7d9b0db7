"""What is said around an instruction, in many ways: for training only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .. import instructions as first
from . import wordings as w

OneOf = Callable[[Sequence[str]], str]


def split(options: str) -> tuple[str, ...]:
    """Of one text with bars between the options."""
    return tuple(" ".join(option.split()) for option in options.split("|"))


CARRIERS = split("""
        where can i find {} | i ' d like to see {} | i ' d like to find {} | i ' d like to have {} | let ' s
        find {} | let ' s track {} | let ' s look for {} | do you see {} | i am looking for {} | i ' d like {}
        | may i have {} | can i have {} | let me have {} | let me see {} | how about {} | have you seen {} |
        the target is {} | target : {} | it is {} that i want | i am talking about {} | i ' d love to have {}
        | i ' m in need of {} | show us {} | where do you see {} | and now {} | also {} | maybe {} | do you
        have {} | do we have {} | let us see {} | give us {} | namely {} | segment {} in the image | mask for
        {} | a mask of {} please | yes , {} | my friend asks for {} | now , {} | find me {} | i just need {} |
        i wish for {} | thanks , now {} | hello , {} | please show me {} now | please give me {} | please
        bring me {} | segment {} please | find {} , thanks | can you see {} , please | can you find {} ? | is
        {} there ? | we want {} | i need {} , please | i mean {} | i meant {} | please , {} | now {} | next {}
        | next , {} | then {} | this time {} | eyes on {} | do you know where {} is | where ' s {} | i want to
        see {} | i want to have {} | i really need {} | i need {} now | i need to see {} | i was asking for {}
        | my choice is {} | {} , please | {} , thank you | {} , quickly | {} for me | just {} | only {} |
        simply {} | task : find {} | query : {} | {} ? | {} . | is it possible to find {} | i ' m looking for
        {} | i ' ll take {} | we need {} | we are looking for {} | my friend wants {} | um , {} | uh {} | so ,
        {} | actually {} | sorry , i meant {} | all i want is {} | make sure you have {} | concentrate on {} |
        pay attention to {} | which pixels belong to {} | draw a mask around {}""")
OPENERS = split("""
        hey | hey , | ok , | okay , | hello , | hi , | excuse me , | um , | um | uh | so , | all right , | now
        , | listen , | sorry , | good morning , | please ,""")
REQUESTS = split("""
        {} | can you {} | will you {} | can you please {} | i want you to {} | i need you to {} | please {} |
        you should {} | you have to {} | try to {} | now {} | i ' d like you to {} | just {} | can you quickly
        {} | are you able to {} | next {} | then {} | kindly {} | help me and {} | it is time to {}""")
VERBS = split("""
        find | get | grab | take | fetch | pick up | bring me | give me | pass me | show me | look for |
        search for | select | choose | highlight | track | follow | segment | identify | spot | detect | watch
        | focus on | reach for | lift | move | check | hold | touch | see | pick | outline | seek | get hold
        of | observe | catch | recognize | collect | lift up | get me""")
CLOSERS = split("""
        please | , please | for me | for me please | now | right now | thanks | , thanks | thank you | , thank
        you | ? | . | quickly | , will you ? | for us | please ? | for me ? | immediately | and nothing else |
        , ok ? | as soon as possible""")


def _plain(carrier: str) -> str:
    return " ".join(word for word in carrier.split() if word not in {",", ".", "?", ":", "'"})


_NEVER = {_plain(carrier) for carrier in (*w.HELD_OUT_CARRIERS, *first.HELD_OUT_CARRIERS)}


def draw_carrier(one_of: OneOf) -> str:
    """A whole one, or one put together from an opening, a request, what to do and an end. one_of: draws one."""
    while True:
        asked = one_of(REQUESTS).format(one_of(VERBS)) + " {}"
        parts = [one_of(("", one_of(OPENERS))), asked, one_of(("", one_of(CLOSERS)))]
        carrier = one_of((one_of(CARRIERS), " ".join(part for part in parts if part)))
        if _plain(carrier) not in _NEVER:
            return carrier
