"""What stands on the table of version 2: shapes, sizes, colours, and what is kept out of training."""

from __future__ import annotations

SHAPES = ("block", "ball", "can", "cone", "mug", "bowl", "plate", "bottle", "box", "banana", "key")
CLUTTER_KINDS = ("pen", "ring", "stone", "wedge")
ROD = "rod"  # what pushes things: a robot's finger, never asked for
SIZES: dict[str, tuple[str, ...]] = {  # the sizes that a shape comes in
    "block": ("small", "large", "tall", "flat"), "ball": ("small", "large"), "can": ("small", "large", "tall", "flat"),
    "cone": ("small", "large", "tall"), "mug": ("small", "large", "tall"), "bowl": ("small", "large", "flat"),
    "plate": ("small", "large"), "bottle": ("small", "large"), "box": ("small", "large", "tall", "flat"),
    "banana": ("small", "large"), "key": ("small", "large"),
    **dict.fromkeys((*CLUTTER_KINDS, ROD), ("small",)),
}  # fmt: skip
SCALES: dict[str, tuple[float, float, float]] = {  # of the large size, along x, y, z
    "small": (0.625, 0.625, 0.625), "large": (1.0, 1.0, 1.0), "tall": (0.82, 0.82, 1.6), "flat": (1.12, 1.12, 0.45),
}  # fmt: skip
# Hue in degrees, saturation, value: ranges that keep each name apart from its neighbours.
TONES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((-5, 5), (0.82, 0.97), (0.68, 0.92)), "green": ((112, 148), (0.62, 0.9), (0.45, 0.75)),
    "blue": ((212, 236), (0.72, 0.95), (0.6, 0.95)), "yellow": ((50, 57), (0.82, 0.97), (0.9, 1.0)),
    "orange": ((22, 29), (0.88, 0.98), (0.92, 1.0)), "purple": ((270, 286), (0.6, 0.8), (0.5, 0.72)),
    "white": ((0, 360), (0.0, 0.03), (0.93, 1.0)), "black": ((0, 360), (0.0, 0.1), (0.06, 0.13)),
    "brown": ((20, 30), (0.6, 0.75), (0.3, 0.42)), "pink": ((325, 342), (0.42, 0.6), (0.93, 1.0)),
    "grey": ((0, 360), (0.0, 0.05), (0.3, 0.4)),
}  # fmt: skip
COLORS = tuple(TONES)
# Never drawn but where the axis "pairs" is held out. The first six are those of version 1.
HELD_OUT_PAIRS = frozenset({
    ("red", "bottle"), ("green", "mug"), ("blue", "cone"), ("yellow", "bowl"), ("purple", "ball"), ("white", "block"),
    ("pink", "can"), ("brown", "plate"), ("grey", "box"), ("orange", "key"), ("black", "banana"), ("blue", "box"),
})  # fmt: skip
# Relation and shape that it refers to: never asked but where the axis "relations" is held out.
HELD_OUT_RELATIONS = frozenset({
    ("left", "mug"), ("right", "bottle"), ("front", "box"), ("behind", "ball"), ("near", "cone"), ("far", "block"),
    ("on", "can"), ("in", "box"), ("left", "banana"), ("behind", "bowl"),
})  # fmt: skip
TABLE_TEXTURES = ("wood", "speckle_table", "checker", "plain_table")
HELD_OUT_TABLE_TEXTURES = ("planks", "stripes", "clouds")
OBJECT_TEXTURES = ("plain", "speckle", "marble")
HELD_OUT_OBJECT_TEXTURES = ("bands",)
CAMERA_PATHS = ("static", "drift")
HELD_OUT_CAMERA_PATHS = ("orbit", "dolly", "shake")
CLUTTER, HELD_OUT_CLUTTER = (0, 3), (5, 8)  # fewest and most things without a name

AXES = ("pairs", "relations", "textures", "cameras", "clutter", "phrasing")
# Which axes a split takes from what training never sees; each alone, and all of them at once. The instructions of the
# split "written" are those of written.yaml.
SPLITS: dict[str, frozenset[str]] = {
    "train": frozenset(), "val": frozenset(), **{axis: frozenset({axis}) for axis in AXES}, "held_out": frozenset(AXES),
    "written": frozenset(),
}  # fmt: skip
