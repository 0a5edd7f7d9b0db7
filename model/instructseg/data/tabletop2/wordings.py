"""How things, relations, uses and events are said. Two tables each: what training may say, and what it never says.

Words are lower case and separated by blanks, as the default recipe's tokenizer wants them.
"""

from __future__ import annotations

Words = dict[str, tuple[str, ...]]

NOUNS: Words = {
    "block": ("block", "cube", "brick"), "ball": ("ball", "sphere"), "can": ("can", "cylinder", "tin"),
    "cone": ("cone",), "mug": ("mug", "cup"), "bowl": ("bowl", "basin"), "plate": ("plate", "dish"),
    "bottle": ("bottle", "flask"), "box": ("box", "carton"), "banana": ("banana",), "key": ("key",),
}  # fmt: skip
HELD_OUT_NOUNS: Words = {
    "block": ("building block", "toy brick"), "ball": ("orb", "toy ball"), "can": ("tin can", "canister"),
    "cone": ("pylon", "traffic cone"), "mug": ("coffee cup", "tea mug"), "bowl": ("salad bowl", "soup bowl"),
    "plate": ("platter", "dinner plate"), "bottle": ("wine bottle", "water bottle"), "box": ("crate", "open box"),
    "banana": ("plantain", "bent fruit"), "key": ("door key", "latchkey"),
}  # fmt: skip
ANYTHING, HELD_OUT_ANYTHING = ("thing", "object", "item"), ("one", "piece", "article")
COLOR_WORDS: Words = {
    **{color: (color,) for color in ("red", "green", "blue", "yellow", "orange", "white", "black", "brown", "pink")},
    "purple": ("purple", "violet"), "grey": ("grey", "gray"),
}  # fmt: skip
HELD_OUT_COLOR_WORDS: Words = {
    "red": ("crimson", "scarlet"), "yellow": ("lemon yellow",), "orange": ("tangerine",), "pink": ("rose colored",),
    "brown": ("chocolate colored",), "black": ("jet black",), "white": ("snow white",), "green": ("grass green",),
    "blue": ("royal blue",),
}  # fmt: skip
SIZE_WORDS: Words = {"small": ("small", "little", "tiny"), "large": ("large", "big"), "tall": ("tall", "high"),
                     "flat": ("flat", "low")}  # fmt: skip
HELD_OUT_SIZE_WORDS: Words = {"small": ("mini",), "large": ("full size",), "tall": ("elongated",),
                              "flat": ("squat", "shallow")}  # fmt: skip
PLURALS = {"dish": "dishes", "box": "boxes", "brush": "brushes", "scissors": "scissors", "open box": "open boxes",
           "bent fruit": "bent fruits", "glass": "glasses"}  # fmt: skip
RELATIONS: Words = {
    "left": ("to the left of", "left of", "on the left side of"),
    "right": ("to the right of", "right of", "on the right side of"),
    "front": ("in front of", "closer than"), "behind": ("behind", "further away than"),
    "near": ("next to", "beside", "close to", "near"), "far": ("far from", "far away from"),
    "on": ("on", "on top of"), "in": ("in", "inside"),
}  # fmt: skip
HELD_OUT_RELATION_WORDS: Words = {
    "left": ("that is on the left hand side of",), "right": ("that is on the right hand side of",),
    "front": ("standing before", "that is nearer than"), "behind": ("at the back of", "standing beyond"),
    "near": ("right by", "adjacent to", "sitting by"), "far": ("a long way from", "well away from"),
    "on": ("standing on", "that rests on", "placed upon"), "in": ("within", "lying inside of", "that sits in"),
}  # fmt: skip
BETWEEN, HELD_OUT_BETWEEN = (
    ("between {} and {}",),
    ("in the middle of {} and {}", "that has {} on one side and {} on the other"),
)
SUPERLATIVES: Words = {
    "left": ("leftmost {}", "{} furthest to the left", "{} on the far left"),
    "right": ("rightmost {}", "{} furthest to the right", "{} on the far right"),
    "front": ("nearest {}", "closest {}", "{} closest to me"), "behind": ("farthest {}", "most distant {}"),
    "biggest": ("biggest {}", "largest {}"), "smallest": ("smallest {}",), "tallest": ("tallest {}",),
}  # fmt: skip
HELD_OUT_SUPERLATIVES: Words = {
    "left": ("{} that is more to the left than any other",), "right": ("{} at the right hand end",),
    "front": ("{} nearest the camera",), "behind": ("{} at the very back",), "biggest": ("{} that takes up most room",),
    "smallest": ("{} of the least size",), "tallest": ("{} that stands the highest",),
}  # fmt: skip
ORDINALS = ("second", "third", "fourth")
ORDINAL_PHRASES: Words = {
    "left": ("{0} {1} from the left", "{0} {1} counting from the left"),
    "right": ("{0} {1} from the right", "{0} {1} counting from the right"),
    "front": ("{0} closest {1}", "{0} nearest {1}"),
}  # fmt: skip
HELD_OUT_ORDINAL_PHRASES: Words = {
    "left": ("{1} that comes {0} if you start at the left",), "right": ("{1} in {0} place from the right side",),
    "front": ("{1} that is {0} in line starting from me",),
}  # fmt: skip
USES: dict[str, tuple[str, ...]] = {  # phrase -> shapes that answer it
    "something to drink from": ("mug",), "something i can drink out of": ("mug",),
    "something to pour coffee into": ("mug",), "something that can roll away": ("ball",),
    "something to throw": ("ball",), "a toy to kick": ("ball",), "something to eat soup from": ("bowl",),
    "something for my cereal": ("bowl",), "something to put food on": ("plate",),
    "something to serve a sandwich on": ("plate",), "something to build a tower with": ("block",),
    "something that holds wine": ("bottle",), "something with a narrow neck": ("bottle",),
    "something with a handle": ("mug",), "something with a pointed tip": ("cone",),
    "something that looks like a party hat": ("cone",), "something that preserves food": ("can",),
    "something to open with a can opener": ("can",), "something to eat": ("banana",), "something to peel": ("banana",),
    "a snack for a monkey": ("banana",), "something to open a lock with": ("key",),
    "something that opens the door": ("key",), "something to pack things into": ("box",),
    "something to store toys in": ("box",),
}  # fmt: skip
HELD_OUT_USES: dict[str, tuple[str, ...]] = {
    "what would roll off": ("ball",), "something that would not stay put on a slope": ("ball",),
    "what i need for my tea": ("mug",), "something that keeps my drink warm": ("mug",),
    "something a hungry person would like": ("banana",), "what a monkey would want": ("banana",),
    "something i need to get into my house": ("key",), "something to start a car with": ("key",),
    "something to ship a present in": ("box",), "what my sandwich goes on": ("plate",),
    "something to eat porridge from": ("bowl",), "something with a cork in it": ("bottle",),
    "what a child would stack": ("block",), "something sharp at the top": ("cone",),
    "what sardines come in": ("can",),
}  # fmt: skip
MOTIONS: Words = {
    "any": ("moving {}", "{} that is moving", "{} in motion"),
    "left": ("{} moving left", "{} that is moving to the left", "{} going left"),
    "right": ("{} moving right", "{} that is moving to the right", "{} going right"),
    "toward": ("{} coming closer", "{} moving toward me"), "away": ("{} moving away", "{} that is going away"),
    "pushed": ("{} that was just pushed", "{} that got pushed", "{} that the stick pushed"),
    "first": ("{} that moved first", "{} that started moving first"),
    "last": ("{} that moved last", "{} that started moving last"),
    "stopped": ("{} that has stopped", "{} that stopped moving"),
}  # fmt: skip
HELD_OUT_MOTIONS: Words = {
    "any": ("{} that is on the go", "{} changing its position"), "left": ("{} sliding leftwards",),
    "right": ("{} sliding rightwards",), "toward": ("{} approaching",), "away": ("{} drifting off",),
    "pushed": ("{} somebody has nudged", "{} that was given a shove"), "first": ("{} that set off before the others",),
    "last": ("{} that set off after the others",), "stopped": ("{} that came to rest",),
}  # fmt: skip
COMPARISONS: Words = {
    "nearer": ("{} that is closer to {} than before", "{} that moved closer to {}"),
    "farther": ("{} that is farther from {} than before", "{} that moved away from {}"),
    "was_left": ("{} that was left of {} before",), "was_right": ("{} that was right of {} before",),
    "was_near": ("{} that was next to {} before",),
    "moved_most": ("{} that moved the most", "{} that moved the farthest"),
    "displaced": ("{} that is not where it was before",),
}  # fmt: skip
HELD_OUT_COMPARISONS: Words = {
    "nearer": ("{} whose distance to {} has become smaller",), "farther": ("{} whose distance to {} has grown",),
    "was_left": ("{} that used to be on the left of {}",), "was_right": ("{} that used to be on the right of {}",),
    "was_near": ("{} that used to stand beside {}",), "moved_most": ("{} that covered the longest way",),
    "displaced": ("{} that has changed its place",),
}  # fmt: skip
NOT_COLOR = ("{} that is not {}", "{} which is not {}")
HELD_OUT_NOT_COLOR = ("{} of any color but {}", "{} that has a color other than {}")
NOT_SHAPE = ("{} that is not a {}", "{} which is not a {}")
HELD_OUT_NOT_SHAPE = ("{} but no {}", "{} other than a {}")
CARRIERS = (
    "{}", "{}", "{}", "segment {}", "find {}", "show me {}", "track {}", "follow {}", "pick up {}", "grab {}",
    "i need {}", "please find {}", "look for {}", "give me {}", "bring me {}", "can you see {}", "where is {}",
    "get {} for me", "{} please", "now find {}", "i want {}", "take {}",
)  # fmt: skip
HELD_OUT_CARRIERS = (
    "could you find {} for me", "locate {}", "hand me {} please", "keep an eye on {}", "i would like you to track {}",
    "robot , look for {} now", "point at {}", "would you mind fetching {}", "your next job is {}",
    "mark {} in the picture",    "never lose sight of {}", "tell me where {} is",
)  # fmt: skip
LOOK_ALIKES: Words = {  # what a thing may be taken for; shapes by their name, others are never on the table
    "block": ("box", "dice"), "box": ("block", "drawer"), "mug": ("can", "vase"), "can": ("mug", "candle"),
    "bottle": ("can", "vase"), "bowl": ("plate", "helmet"), "plate": ("bowl", "frisbee"), "ball": ("apple", "tomato"),
    "cone": ("bell", "pyramid"), "banana": ("cucumber", "boomerang"), "key": ("screwdriver", "spoon"),
}  # fmt: skip
FOREIGN_NOUNS = ("spoon", "fork", "apple", "phone", "book", "hammer", "shoe", "scissors")
HELD_OUT_FOREIGN_NOUNS = ("teapot", "screwdriver", "candle", "wallet", "umbrella")


def plural(noun: str) -> str:
    """Of one noun or a group of words that ends in one."""
    return PLURALS.get(noun, noun + "s")


def training_words() -> list[str]:
    """Every word that training phrasings can use, sorted."""
    texts = [*CARRIERS, *USES, *ANYTHING, *ORDINALS, *BETWEEN, *NOT_COLOR, *NOT_SHAPE, *FOREIGN_NOUNS]
    texts += ["the a an , and both all every one of two"]
    tables = (NOUNS, COLOR_WORDS, SIZE_WORDS, RELATIONS, SUPERLATIVES, ORDINAL_PHRASES, MOTIONS, COMPARISONS)
    texts += [option for table in tables for options in table.values() for option in options]
    texts += [word for options in LOOK_ALIKES.values() for word in options]
    nouns = (*ANYTHING, *FOREIGN_NOUNS, *(n for names in NOUNS.values() for n in names))
    texts += [plural(noun) for noun in nouns]
    for mark in ("{}", "{0}", "{1}"):
        texts = [text.replace(mark, " ") for text in texts]
    return sorted({word for text in texts for word in text.split()})
