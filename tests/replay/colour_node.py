"""The node's own executable with the colour segmenter of the tests in place of a recipe."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unit.fakes import ColourSegmenter

from instructseg.core import BadInput
from instructseg_node import main, node


def build(settings: node.Settings) -> ColourSegmenter:
    if os.environ.get("COLOUR_NODE_BREAKS"):
        raise BadInput("no weights on purpose")
    return ColourSegmenter()


main.InstructSegNode = functools.partial(node.InstructSegNode, segmenter_factory=build)
sys.exit(main.main())
