"""What things are for, what they do and where they belong, in many words: for training only."""

from __future__ import annotations

from .. import instructions as first
from . import wordings as w
from .wider_carriers import split

_HEADS = ("a thing", "the thing", "an object", "the object", "the item", "anything", "some thing")

# Each says what "something" is, and all shapes that would do; a scene that shows two of these is not asked.
_WAYS: dict[tuple[str, ...], str] = {
    ("mug",): """
        for a hot drink | to put my coffee in | for my morning coffee | for hot milk | i can sip my coffee
        from | for an espresso | to serve coffee in | for cocoa | for hot cocoa | to serve an espresso in | to
        pour hot milk into | that holds hot coffee | to have a hot drink from | to hold my coffee | you fill
        with coffee every morning""",
    ("ball",): """
        that bounces | to bounce | to play catch with | to play soccer with | to kick | to throw and catch |
        you can roll across the floor | for a game of catch | to juggle with | shaped like a sphere | a
        striker kicks | to hit with a bat | to roll into a goal | to dribble with | to score a goal with | to
        play fetch with""",
    ("bowl",): """
        for soup | to eat cereal out of | to hold a salad | to mix a salad in | to mix dough in | for a salad
        | to eat rice from | to serve soup in | for my breakfast cereal | deep and round for food | to beat
        eggs in | for yogurt | to eat noodles from | to stir batter in | to have soup from | for oatmeal""",
    ("plate",): """
        to eat a steak from | to serve pizza on | for a slice of cake | flat to eat from | to serve cookies on
        | to lay a slice of bread on | to serve food on | flat for food | for my toast | to serve fish on | a
        waiter carries food on | to cut a steak on | for spaghetti | a cake is served on | a pizza fits on |
        to put cookies on | to have a steak on""",
    ("block",): """
        to build with | to stack up | children build with | to build a wall with | i can build a tower from |
        to make a toy castle from | with edges and corners to build with | to make a toy wall from | a toddler
        stacks | solid with flat faces | to add to a tower | to build a castle from | a tower is built with""",
    ("bottle",): """
        for wine | to pour wine from | that holds oil | to put a message in | to store vinegar in | with a
        slim neck | with a thin neck | that holds vinegar | a message is sent in | for red wine | that wine is
        sold in | to take along on a hike for drinking | you screw a cap on""",
    ("cone",): """
        pointed | that marks a road | for road work | shaped like a funnel | shaped like a pointed hat | like
        the hat of a witch | with a round base and a tip | to run around in sports practice | shaped like a
        volcano | you see on a road | shaped like a wizard hat | a clown puts on his head""",
    ("can",): """
        soup is sold in | that peas are sold in | that holds preserved food | with a metal lid | made of tin |
        preserved food is sold in | fish is preserved in | with preserved food inside | you need an opener for
        | to open with an opener | that corn is sold in | to take from the shelf with preserved food | for
        preserved peaches""",
    ("banana",): """
        sweet to eat | healthy to eat | that grows on trees | an ape eats | with potassium in it | to slice
        into a smoothie | that grows in the tropics | edible | monkeys like | i can eat | with a peel | to put
        in a smoothie | that grows in bunches | i can have for a snack | tasty | to eat before sports""",
    ("key",): """
        to unlock a door with | that opens a lock | to lock the door with | that fits in a lock | you turn in
        a lock | that opens a padlock | to unlock the front door with | you insert into a lock | that unlocks
        things | to unlock a treasure chest with | to open the gate with | a janitor carries | that belongs in
        a lock | to open a safe with | to lock up with""",
    ("box",): """
        to mail a gift in | to pack books in | for packing | to carry many things in | made of cardboard |
        with four walls | to send a gift in | i can pack things into | to pack my toys in | a delivery is
        packed in | that holds many things | to store books in | a cat likes to sit in | to collect old papers
        in | to put my toys away in""",
    ("bowl", "plate"): "to eat from | to serve a meal in or on",
    ("block", "ball"): "to play with | a toddler plays with | to put into a toy chest",
    ("bottle", "can"): "that holds beer | beer is sold in | juice is sold in",
    ("mug", "bottle", "can"): "to drink from when i am thirsty",
}  # fmt: skip
_WHOLE: dict[tuple[str, ...], str] = {
    ("mug",): "the vessel for hot drinks",
    ("ball",): "a toy that bounces | a toy for my dog | the toy that rolls",
    ("bowl",): "a dish for soup",
    ("block",): "a toy to stack | a part of a toy castle",
    ("bottle",): "a container for wine",
    ("cone",): "the pointed shape",
    ("can",): "a metal container for food",
    ("banana",): "a healthy snack | a snack | a treat for an ape | food with a peel",
    ("key",): "the thing for the lock | the opener of locks",
    ("box",): "a container made of cardboard",
}  # fmt: skip
_NEVER = {*w.HELD_OUT_USES, *first.HELD_OUT_USES}


def _uses() -> dict[str, tuple[str, ...]]:
    found = {text: shapes for shapes, options in _WHOLE.items() for text in split(options)}
    for shapes, options in _WAYS.items():
        for way in split(options):
            found |= {f"{head} {way}": shapes for head in ("something", *_HEADS)}
    for text, shapes in w.USES.items():
        if text.startswith("something "):
            found |= {f"{head} {text.removeprefix('something ')}": shapes for head in _HEADS}
    return {text: shapes for text, shapes in found.items() if text not in _NEVER and text not in w.USES}


USES: dict[str, tuple[str, ...]] = _uses()  # phrase -> shapes that answer it
