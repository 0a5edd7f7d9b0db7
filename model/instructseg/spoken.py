"""What a person says to a robot: fillers fall away, "stop it" means stop, and the rest is the instruction.

A speech recogniser writes down what it hears: "um, hey robot, could you please find the the red block". Only words that
carry nothing are taken out, and only where they stand as such ("the OK button" keeps its OK); what remains keeps its
order, its case and its punctuation. The rules are English, as the recipes' instructions are.
"""

from __future__ import annotations

import dataclasses
import itertools
import re

from .core import BadInput
from .language import clean_instruction

_PAUSE = ",;:.!?…–—-"


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_CANCEL_VERBS = _set("stop cancel clear abort halt quit never nevermind forget")
_TASKS = _set(
    "find segment show track follow watch mark highlight locate detect identify select spot search look point pick "
    "grab grasp take get give bring fetch hand keep"
)
_DETERMINERS = _set("the a an my your our this that these those all any some something both two three")
# What can follow a filler: "so find …", "well the …", "hey robot …"; but not "OK button", "well water", "hello kitty".
_GOES_ON = (
    _TASKS
    | _DETERMINERS
    | _CANCEL_VERBS
    | _set("please kindly can could would will i i'd robot no whoa wait hold so well actually")
)
_STUTTERED = (_TASKS | _DETERMINERS | _set("and of to in on at with for next left right please")) - {"that"}
_HESITATION = re.compile(r"u+m+|u+h+m*|e+r+m*|h+m+")
_NAMING = _set("says say saying reads reading word words written labelled labeled marked with")

# Words that open a sentence without saying anything, and what has to follow them for that: a word of the set, or, with
# `pause`, a comma and the like. Tried in this order, again and again.
_ANY = None
_OPENINGS: tuple[tuple[str, frozenset[str] | None, bool], ...] = (
    *((words, _ANY, True) for words in ("please", "kindly")),
    *((words, _GOES_ON, True) for words in ("hey", "hi", "hello", "oh", "ah", "eh", "robot", "okay", "ok", "alright")),
    *((words, _GOES_ON, True) for words in ("so", "well", "and", "then", "actually", "i mean", "i meant", "instead")),
    *((words, frozenset(), True) for words in ("right", "all right", "wait", "hold on")),
    *((words, _set("the this that my"), True) for words in ("no", "yes")),  # a correction; but "no entry sign"
    *((f"{words} then", _GOES_ON, True) for words in ("okay", "ok", "alright", "all right", "now")),
    *(
        (f"{asking} you{manner}", _TASKS | _CANCEL_VERBS, False)
        for asking in ("can", "could", "would", "will")
        for manner in (" please", " kindly", " just", "")
    ),
    *((f"{wish} you to", _TASKS | _CANCEL_VERBS, False) for wish in ("i would like", "i'd like", "i want", "i need")),
    ("just", _TASKS | _CANCEL_VERBS, False),
)
# Words that close one. The second group only behind a comma: "find the robot" keeps its robot.
_POLITE = ("please", "thank you very much", "thank you", "thanks")
_ADDRESSING = ("robot", "okay", "ok", "right", "alright")

_IT = (
    r"(?:it|that|this|them|all|everything|everyone|all of (?:it|that|them)|the last|last"
    r"|(?:all |all of )?(?:(?:the|this|that|these|those|my|your) )?(?:last )?"
    r"(?:search|tracking|commands?|instructions?|requests?|tasks?|selection|list|targets?))"
)
# A whole sentence of these ends everything.
_SHORT_CANCEL = re.compile(
    rf"(?:(?:(?:no|whoa|wait|hold on|everything|everyone|everybody|all|i said|you (?:can|may|should|must|have to)) )*"
    rf"(?:(?:stop|cancel|clear|abort|halt|quit|freeze)(?: {_IT})?(?: (?:right now|now|immediately|at once|here|there))?"
    rf"|emergency stop|e-?stop|never ?mind(?: {_IT})?|forget (?:about )?{_IT}"
    r"|(?:that is|that's|thats) (?:enough|all|it)|enough)"
    r"(?: (?:robot|\Z))?(?: |\Z))+"
)
_LONG_CANCEL = re.compile(
    r"(?:stop|quit) (?:looking|searching|tracking|following|segmenting|watching|finding|showing|moving|going|driving"
    r"|walking|working|doing|grabbing|grasping|picking|reaching|taking)\b.*"
    r"|(?:stop|halt) (?:the|this|that|your) robot\b.*"
    # "Don't follow the man" must not end in following the man.
    r"|(?:please )?(?:don't|dont|do not|never) (?:find|segment|show|track|follow|watch|mark|look|search|point|pick|grab"
    r"|grasp|take|get|give|bring|fetch|hand|keep|move|go)\b.*"
    r"|cancel (?:the|my|your|this|that|these|those) .+|(?:never ?mind|forget(?: about)?) (?:the|my|your|this|that) .+"
)


@dataclasses.dataclass(frozen=True)
class SpokenCommand:
    """cancels: everything so far is to end. text: the instruction that follows, without fillers; "" if none does."""

    cancels: bool
    text: str


def hear(text: object) -> SpokenCommand:
    """What was said, understood. Raises BadInput where :func:`language.clean_instruction` does, or where nothing but
    fillers was said.

    "stop", "cancel that", "never mind" end everything; so does "stop tracking …": who says stop is not to see another
    target found. "Never mind, find the ball" ends everything and then asks for the ball. "The stop sign" is a thing.
    """
    line = without_fillers(text)
    words = line.split()
    if rest := _behind_a_cancel(words):
        return SpokenCommand(True, hear(" ".join(rest)).text)  # "stop, stop, stop!" asks for nothing
    if _is_cancel(words):
        return SpokenCommand(True, "")
    return SpokenCommand(False, line)


def without_fillers(text: object) -> str:
    """The words without their fillers and nothing else done to them: "stop" stays "stop". Raises as :func:`hear`."""
    line = clean_instruction(text)
    words = _without_fillers(line.split())
    if not words:
        raise BadInput(f"an instruction must say what to look for; got nothing but fillers: {line[:40]!r}")
    return clean_instruction(" ".join(words))


def _is_cancel(words: list[str]) -> bool:
    bare = [word for word in map(_bare, words) if word not in ("", "please")]
    said, unaddressed = " ".join(bare), " ".join(word for word in bare if word != "robot")
    return bool(_SHORT_CANCEL.fullmatch(unaddressed) or _LONG_CANCEL.fullmatch(said))


def _behind_a_cancel(words: list[str]) -> list[str]:
    """The words behind "stop, " or "cancel that and "; empty where the sentence does not begin so."""
    for count in range(min(len(words) - 1, 8), 0, -1):
        head, rest = words[:count], words[count:]
        if not _SHORT_CANCEL.fullmatch(" ".join(map(_bare, head))):
            continue
        full_stop, comma = head[-1][-1] in ".!?;", head[-1][-1] in _PAUSE
        joined = False
        while rest and _bare(rest[0]) in ("and", "then", "instead"):
            joined, rest = True, rest[1:]
        rest = _without_fillers(rest)
        first = _bare(rest[0]) if rest else ""
        # Without a pause a word alone is none of ours: "stop watch" is a watch. "Clear, round bottle" is a bottle.
        if rest and (full_stop or ((comma or joined) and first in _GOES_ON) or (count > 1 and first in _TASKS)):
            return rest
    return []


def _without_fillers(words: list[str]) -> list[str]:
    """Until nothing more falls away: behind one filler another may stand."""
    shorter = _without_ending(_without_opening(_without_stutter(_without_hesitation(words))))
    return words if shorter == words else _without_fillers(shorter)


def _without_hesitation(words: list[str]) -> list[str]:
    """Without "um" and its kin. In capitals among small letters it is a name: "the ER sign"."""
    shouted = all(word.upper() == word for word in words)
    kept: list[str] = []
    for word in words:
        if not _HESITATION.fullmatch(_bare(word)) or (word.isupper() and not shouted):
            kept.append(word)
        elif kept and word[-1] == kept[-1][-1] == ",":
            kept[-1] = kept[-1][:-1]  # "and, um, the ball": both commas belong to the hesitation
    return kept


def _without_stutter(words: list[str]) -> list[str]:
    pairs = itertools.zip_longest(words, words[1:], fillvalue="")
    return [word for word, following in pairs if _bare(word) not in _STUTTERED or _bare(word) != _bare(following)]


def _without_opening(words: list[str]) -> list[str]:
    while count := _opening(words):
        words = words[count:]
    return words


def _opening(words: list[str]) -> int:
    """How many words at the front say nothing."""
    for phrase, followed_by, pause in _OPENINGS:
        parts = phrase.split()
        count = len(parts)
        if [_bare(word) for word in words[:count]] != parts or any(word[-1] in ".!?" for word in words[: count - 1]):
            continue
        paused = pause and words[count - 1][-1] in _PAUSE
        following = _bare(words[count]) if len(words) > count else ""
        if paused or followed_by is _ANY or following in followed_by:
            return count
    return 0


def _without_ending(words: list[str]) -> list[str]:
    while count := _ending(words):
        closing = words[-1][len(words[-1].rstrip(".!?")) :]
        words = _without_comma(words[:-count])
        if words and words[-1][-1] not in ".!?":
            words[-1] += closing  # the full stop of the sentence stays
    return _without_comma(words)


def _without_comma(words: list[str]) -> list[str]:
    """A sentence does not end in a comma or a dash; a word that is nothing else goes with it."""
    words = list(words)
    while words and words[-1] != (bare := words[-1].rstrip(",;:–—")):
        words[-1:] = [bare] if bare else []
    return words


def _ending(words: list[str]) -> int:
    """How many words at the end say nothing."""
    for phrase in (*_POLITE, *_ADDRESSING):
        parts = phrase.split()
        before = words[: -len(parts)]
        if [_bare(word) for word in words[-len(parts) :]] != parts:
            continue
        if not before:
            return len(parts) if phrase in _POLITE else 0
        paused = before[-1][-1] in _PAUSE
        if paused or (phrase in _POLITE and _bare(before[-1]) not in _NAMING):
            return len(parts)
    return 0


def _bare(word: str) -> str:
    """A word as it is compared: small letters, no punctuation around it."""
    return word.replace("’", "'").strip(_PAUSE + "\"'()").lower()
