"""Many more ordinary ways to say what ``wordings`` says: for training only, never in a question of the benchmark.

No entry is a held-out wording, and none has a word that only held-out wordings have.
"""

from __future__ import annotations

from .. import instructions as first
from . import wordings as w
from .wider_carriers import CARRIERS, CLOSERS, OPENERS, REQUESTS, VERBS, split
from .wider_uses import USES
from .wordings import Words


def _table(**options: str) -> Words:
    return {name: split(text) for name, text in options.items()}


# --- what things are called

NOUNS = _table(
    block="""
        toy block | cuboid | square block | play block | toy cube | solid cube | cube of wood | square brick |
        plain block""",
    ball="round ball | globe | bouncy ball | play ball | playing ball | round toy | rubber ball | bouncing ball",
    can="""
        soup can | food can | preserve can | pea can | closed can | soda can | drink can | soup tin | metal
        can | beverage can | can of food | tin of food""",
    cone="road cone | toy cone | pointed cone | safety cone | pointy cone | marker cone | cone shape",
    mug="""
        coffee mug | teacup | drinking cup | tankard | drinking mug | cocoa mug | espresso cup | breakfast mug
        | cup with a handle""",
    bowl="""
        cereal bowl | mixing bowl | round bowl | serving bowl | rice bowl | breakfast bowl | noodle bowl |
        pasta bowl | deep bowl""",
    plate="""
        saucer | round plate | dessert plate | side plate | serving plate | lunch plate | cake plate | pizza
        plate | steak plate | cookie plate""",
    bottle="drink bottle | beer bottle | glass bottle | juice bottle | oil bottle | milk bottle | flagon",
    box="""
        cardboard box | storage box | packing box | shoe box | toy box | package | parcel | cardboard carton |
        open carton | chest""",
    banana="ripe banana | yummy banana | plastic banana | whole banana | sweet banana | fresh banana | toy banana",
    key="""
        metal key | toy key | front door key | old key | master key | skeleton key | gate key | padlock key |
        spare key | iron key""",
)
ANYTHING = split(
    """
        thing on the table | object on the table | item on the table | thingy | entity | thing here | object
        here | item here | thing you see | object you see | object in view | thing in view | object in the
        image | solid object"""
)
PLURALS = {
    "can of food": "cans of food", "tin of food": "tins of food", "cup with a handle": "cups with a handle",
    "piece of fruit": "pieces of fruit", "entity": "entities", "shoe box": "shoe boxes", "toy box": "toy boxes",
    "cardboard box": "cardboard boxes", "storage box": "storage boxes", "packing box": "packing boxes",
    "dinner dish": "dinner dishes", "thingy": "thingies",
    **{f"{noun} {rest}": f"{noun}s {rest}" for noun in ("thing", "object", "item")
       for rest in ("on the table", "here", "you see", "in view", "in the picture", "in the image")},
}  # fmt: skip
COLOR_WORDS = _table(
    red="""
        bright red | dark red | deep red | pure red | vivid red | strong red | cherry red | fire red | blood
        red | ruby red | ruby | reddish | signal red | tomato red""",
    green="""
        bright green | dark green | deep green | leaf green | emerald | emerald green | forest green |
        greenish | vivid green | strong green | medium green | fern green""",
    blue="""
        bright blue | dark blue | deep blue | cobalt blue | cobalt | sapphire | azure | ocean blue | bluish |
        strong blue | vivid blue | medium blue""",
    yellow="""
        bright yellow | sunny yellow | canary yellow | sun yellow | yellowish | vivid yellow | strong yellow |
        sunflower yellow | pure yellow""",
    orange="""
        bright orange | pumpkin orange | deep orange | dark orange | vivid orange | carrot orange | strong
        orange | pure orange""",
    purple="""
        dark purple | deep purple | purplish | bright purple | indigo | dark violet | deep violet | amethyst |
        vivid purple | strong violet""",
    white="""
        pure white | bright white | plain white | milk white | chalk white | whitish | snowy | paper white |
        milky""",
    black="""
        pitch black | coal black | deep black | pure black | ink black | ebony | blackish | plain black | dark
        black""",
    brown="""
        dark brown | coffee brown | chestnut | chestnut brown | wood brown | deep brown | brownish | nut brown
        | walnut brown | earth brown""",
    pink="bright pink | hot pink | rosy | bubblegum pink | pinkish | candy pink | vivid pink | strong pink",
    grey="""
        dark grey | dark gray | charcoal grey | charcoal | slate grey | ash grey | greyish | grayish | iron
        grey | steel grey | graphite | metal gray | deep gray""",
)  # each fits all tones that ``things.TONES`` draws for its colour
COLORED = split("{1} in {0} | {1} painted {0} | {1} all in {0} | {1} made in {0} | {1} in plain {0}")
COLORED_ONE = split("""
        {1} that is {0} | {1} which is {0} | {1} that is all {0} | {1} that is painted {0} | {1} that ' s {0}""")
SIZE_WORDS = _table(
    small="wee | petite | miniature | small sized | compact | teeny | undersized | dwarf | pocket sized",
    large="huge | larger | bigger | giant | oversized | large sized | massive | jumbo | sizable | enormous",
    tall="taller | towering | lofty | stretched | tall standing | lengthened | tall shaped",
    flat="flatter | flattened | squashed | stubby | thin | short | low standing | levelled",
)
DETERMINERS = split("that | this | my | our")
FOREIGN_NOUNS = split("""
        knife | pan | pot | kettle | toaster | lamp | laptop | keyboard | computer mouse | monitor |
        television | remote control | clock | purse | backpack | handbag | hat | cap | glove | sock | shirt |
        jacket | scarf | belt | tie | boot | sandal | slipper | towel | sponge | bar of soap | toothbrush |
        comb | hairbrush | mirror | pillow | blanket | chair | stool | sofa | pear | peach | strawberry |
        carrot | potato | onion | loaf of bread | sandwich | pizza | burger | cookie | cake | donut | egg |
        pineapple | mango | watermelon | melon | coconut | pumpkin | mushroom | wrench | saw | drill | nail |
        screw | bolt | roll of tape | ruler | stapler | notebook | envelope | letter | newspaper | magazine |
        calculator | guitar | violin | drum | trumpet | flute | piano | doll | teddy bear | toy train |
        airplane | boat | bicycle | racket | dart | skateboard | flower | plant | leaf | flower pot | battery
        | charger | cable | plug | light bulb | flashlight | fan | hair dryer | iron | broom | mop | lighter |
        coin | credit card | ticket | magnet | compass | ladle | whisk | spatula | grater | corkscrew | can
        opener | bottle opener | box cutter | paper clip | rope | zipper | tablet | speaker | headset |
        printer | router | radio | pacifier | puzzle | kite | whistle | thermometer | stethoscope | bandage |
        tennis racket | hanger | apron | napkin | straw | chopstick | rolling pin | cutting board | dumbbell |
        yoga mat | dog leash | bird | cat | dog | toy horse | dinosaur | rubber duck""")
LOOK_ALIKES = _table(  # of shapes by their name; all others are never on the table
    block="domino | eraser | bar of soap | gift | sponge | book | stick of butter", box="""
        suitcase | drawer | aquarium | basket | tray | block""",
    mug="jug | pitcher | pot | bucket | vase | can", can="battery | jar | barrel | drum | tube | mug",
    bottle="jar | jug | bowling pin | lamp | pitcher | lighthouse | can", bowl="""
        pot | pan | hat | ashtray | basket | plate | helmet""",
    plate="coaster | lid | vinyl record | tray | pan | coin | clock | bowl", ball="""
        peach | egg | balloon | planet | melon | onion""",
    cone="tent | carrot | funnel | lampshade | toy tree | rocket", banana="""
        pepper | half moon | bean | pickle | hook | corn cob | horn""",
    key="wrench | knife | fork | comb | nail file | bottle opener | toothbrush",
)  # fmt: skip

# --- where things are

RELATIONS = _table(
    left="""
        which is left of | standing to the left of | that is to the left of | further left than | that is on
        the left side of | that lies to the left of | farther left than | somewhere left of | located left of
        | located to the left of""",
    right="""
        which is right of | standing to the right of | that is to the right of | further right than | that is
        on the right side of | that lies to the right of | farther right than | located right of | located to
        the right of | somewhere right of""",
    front="""
        which is in front of | standing in front of | closer to me than | on this side of | that is closer
        than | closer to you than | standing right in front of | that is closer to me than | located in front
        of""",
    behind="""
        which is behind | standing behind | farther away than | farther than | farther from me than | that
        lies behind | further from me than | that is farther away than | located behind | that is further away
        than | farther from you than | further than""",
    near="""
        right next to | right beside | alongside | just beside | just next to | standing next to | that is
        near | which is beside | near to | that is close to | nearby | located next to | that stays near |
        located near | that is right beside""",
    far="""
        that is far from | which is far from | that is far away from | distant from | standing far away from |
        not anywhere near | remote from | located far from | that is distant from | really far from""",
    on="""
        that is on | resting on | stacked on | stacked on top of | atop | which is on | that lies on | that is
        on top of | that was put on | that is stacked on | balanced on | that is balanced on | stood on | up
        on""",
    **{"in": """
        that is in | inside of | that is inside | which lies in | stored in | that is stored in | located
        inside | that was put in | contained in | kept in | that lies inside | which is in | put into | that
        was put into"""},
)  # fmt: skip
BETWEEN = split("""
        that is between {} and {} | which is between {} and {} | standing between {} and {} | in between {}
        and {} | that is in between {} and {} | somewhere between {} and {} | that separates {} and {} |
        located between {} and {} | that is right between {} and {} | enclosed between {} and {} | that
        separates {} from {} | that you find between {} and {}""")
SUPERLATIVES = _table(
    left="""
        furthest left {} | {} that is furthest left | {} most to the left | far left {} | {} that is farthest
        to the left | farthest left {} | {} that is leftmost""",
    right="""
        furthest right {} | {} that is furthest right | {} most to the right | far right {} | {} that is
        farthest to the right | farthest right {} | {} that is rightmost""",
    front="""
        {} nearest to me | {} nearest me | frontmost {} | {} that is closest | {} that is nearest | {} closest
        to you | {} nearest to you | foremost {} | {} that is nearest to me""",
    behind="""
        {} farthest away | furthest {} | {} furthest away | {} furthest from me | {} farthest from me |
        rearmost {} | {} that is the farthest | {} that is furthest away | most remote {} | {} farthest from
        you""",
    biggest="""
        {} that is the biggest | {} that is largest | {} that is the largest | {} that is biggest | hugest {}
        | {} that is the hugest | most sizable {} | {} with the largest extent | most massive {}""",
    smallest="""
        tiniest {} | littlest {} | {} that is the smallest | {} that is smallest | most tiny {} | most petite
        {} | {} with the smallest extent | {} that is the tiniest""",
    tallest="""
        {} that is the tallest | {} with the greatest height | {} that is tallest | most tall {} | {} of the
        greatest height""",
)
ORDINALS = (("second", "third", "fourth"), ("2nd", "3rd", "4th"))
NUMBERS = ("two", "three", "four")
_SIDE = """
        {{0}} {{1}} when counting from the {0} | {{0}} {0}most {{1}} | {{1}} that is {{0}} from the {0} |
        {{1}} number {{2}} from the {0} | {{0}} of the {{3}} from the {0} | {{0}} {{1}} as seen from the {0}"""
ORDINAL_PHRASES = _table(  # ordinal, singular phrase, number, plural phrase
    left=_SIDE.format("left"), right=_SIDE.format("right"),
    front="""
        {0} {1} from the front | {0} closest {1} to me | {1} that is {0} closest | {1} {0} closest to me | {0}
        {1} counting from the front | {0} nearest {1} to me | {1} that is {0} nearest | {0} closest of the {3}
        | {1} number {2} from the front""",
)  # fmt: skip

# --- what happens

MOTIONS = _table(
    any="""
        {} that moves | {} which moves | {} that is on the move | {} on the move | {} that is not standing
        still | {} that isn ' t still | {} moving around | {} that is in motion | {} which is in motion | {}
        that is going somewhere | traveling {} | {} moving now""",
    left="""
        {} that moves left | {} moving to the left | {} heading left | {} that is going to the left | {}
        traveling left | {} that slides left | {} going to the left | {} that travels to the left | {} which
        is moving left""",
    right="""
        {} that moves right | {} moving to the right | {} heading right | {} that is going to the right | {}
        traveling right | {} that slides right | {} going to the right | {} that travels to the right | {}
        which is moving right""",
    toward="""
        {} that is coming toward me | {} moving closer | {} getting closer | {} heading toward me | {} coming
        to me | {} moving towards me | {} that gets closer | {} that is heading toward me | {} which is coming
        toward me | {} which is coming closer | {} traveling toward me | {} moving closer to me | {} that
        travels toward me | {} getting closer to me""",
    away="""
        {} going away | {} moving away from me | {} that moves away | {} getting farther away | {} that is
        getting further away | {} heading away | {} that slides away | {} which is moving away""",
    pushed="""
        {} that was pushed | {} which was pushed | pushed {} | {} that has been pushed | {} that someone just
        pushed | {} that the rod pushed | {} the stick pushed | {} the stick moved | {} that got a push | {}
        that has just been pushed | {} that the stick touched | {} which the stick has pushed | just pushed {}""",
    first="""
        first {} to move | {} that was the first to move | {} that began to move first | {} that went first |
        {} which moved first | first {} that moved | {} that began moving first | {} that started first | {}
        to move first""",
    last="""
        last {} to move | {} that was the last to move | {} that began to move last | {} that went last | {}
        which moved last | last {} that moved | {} that began moving last | {} that started last | {} to move
        last""",
    stopped="""
        {} that just stopped | {} that has just stopped | {} which stopped | {} that stopped | {} that stopped
        just now | {} that has now stopped | {} which has stopped | {} which just stopped | {} that is done
        moving | {} that moved and then stopped | {} that has finished moving | {} that quit moving""",
)
_WAS = """
        {{}} which was {0} {{}} earlier | {{}} that stood {0} {{}} before | {{}} that was {0} {{}} a moment
        ago | {{}} that earlier was {0} {{}} | {{}} that started {0} {{}} | {{}} which before was {0} {{}}"""
COMPARISONS = _table(
    nearer="""
        {} that has moved closer to {} | {} that got closer to {} | {} that is now closer to {} | {} that
        approached {} | {} that went toward {} | {} that is closer to {} now | {} that moved toward {} | {}
        that moved towards {}""",
    farther="""
        {} that got farther from {} | {} that has moved away from {} | {} that is now farther from {} | {}
        that is further from {} than before | {} that went away from {} | {} that is farther from {} now | {}
        which moved away from {} | {} that is farther away from {} than before | {} that got further away from
        {}""",
    was_left="|".join(_WAS.format(place) for place in ("left of", "to the left of")),
    was_right="|".join(_WAS.format(place) for place in ("right of", "to the right of")),
    was_near="|".join(_WAS.format(place) for place in ("next to", "beside", "close to", "near")),
    moved_most="""
        {} that traveled the farthest | {} that went the farthest | {} that has moved the most | {} which
        moved the most | {} that moved furthest | {} that traveled most""",
    displaced="""
        {} that is not where it was | {} that is somewhere else now | {} that has been moved | {} that was
        somewhere else before | {} that someone moved | {} that is now somewhere else | {} which has moved |
        {} that was moved | {} that is not where it stood | {} that has moved""",
)

# --- what is left out: the same set as that of ``wordings.NOT_COLOR`` and ``NOT_SHAPE``; "the" where it is one thing

NOT_COLOR = split("""
        {} that isn ' t {} | {} which isn ' t {} | only {} that is not {} | {} , just not {} | {} that ' s not
        {} | {} which ' s not {} | {} , only not {} | {} , not a {} one | {} that is not a {} one | {} which
        is not a {} one""")
NOT_THE_COLORED = split("""
        {} , not the {} one | {} , and not the {} one | {} that is not the {} one | {} which is not the {} one""")
NOT_SHAPE = split("""
        {} that isn ' t a {} | {} which isn ' t a {} | {} that ' s not a {} | only {} that is not a {} | {} ,
        not a {} | {} , just not a {} | {} which ' s not a {} | {} , only not a {}""")
NOT_THE_SHAPE = split("""
        {} that is not the {} | {} except the {} | {} apart from the {} | {} besides the {} | {} , not the {}
        | {} that isn ' t the {} | {} aside from the {}""")
OF_COLOR = split("anything {} | something {} | whatever is {} | everything {}")  # "anything blue except the ball"

# --- several

ALL_OF = split("""
        each of the {} | all of the {} | every single one of the {} | each one of the {} | all those {} | all
        these {} | these {} | those {} | the group of {} | all my {} | all of these {} | all {} that you see |
        all the {} you can find | all visible {}""")
EVERY = split("every {} | each {} | each and every {} | every single {} | each single {} | every {} there is")
COUNTED: dict[int, tuple[str, ...]] = {
    2: split("both of the {} | both the {} | the pair of {} | both of these {} | these two {} | all two {}"),
    3: split("the three {} | all three {} | all three of the {} | these three {}"),
    4: split("the four {} | all four {} | all four of the {} | these four {}"),
}
TWO = split("""
        {} and also {} | both {} and {} | {} together with {} | {} plus {} | {} along with {} | {} , and {} |
        {} and then {} | {} , also {} | {} and additionally {}""")
THREE = split("{} , {} , and {} | {} and {} and {} | {} , {} and also {} | {} plus {} plus {}")


def plural(noun: str) -> str:
    """Of one noun or a group of words."""
    return PLURALS.get(noun) or w.plural(noun)


def entries() -> list[str]:
    """Every wording of these tables."""
    single = (
        ANYTHING, USES, COLORED, COLORED_ONE, DETERMINERS, FOREIGN_NOUNS, BETWEEN, *ORDINALS, NUMBERS, NOT_COLOR,
        NOT_THE_COLORED, NOT_SHAPE, NOT_THE_SHAPE, OF_COLOR, ALL_OF, EVERY, TWO, THREE, CARRIERS, OPENERS, REQUESTS,
        VERBS, CLOSERS,
    )  # fmt: skip
    named = (
        NOUNS, COLOR_WORDS, SIZE_WORDS, LOOK_ALIKES, RELATIONS, SUPERLATIVES, ORDINAL_PHRASES, MOTIONS, COMPARISONS,
        COUNTED,
    )  # fmt: skip
    nouns = (*ANYTHING, *(noun for names in NOUNS.values() for noun in names))
    return [*(entry for table in single for entry in table), *map(plural, nouns),
            *(entry for table in named for options in table.values() for entry in options)]  # fmt: skip


def training_words() -> list[str]:
    """Every word that training may say: these tables, those of ``wordings`` and those of version 1, sorted."""
    marks = ("{}", "{0}", "{1}", "{2}", "{3}")
    words = {word for entry in entries() for word in entry.split() if word not in marks}
    return sorted(words | {"an"} | set(w.training_words()) | set(first.training_words()))
