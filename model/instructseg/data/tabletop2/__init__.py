"""The second version of the tabletop benchmark: more things, colours, placements, events and kinds of instruction.

The first version (``data/tabletop.py``, ``data/instructions.py``) stays as it is: the shipped checkpoint was trained on
it. Everything here is drawn from (split, index) alone; pictures need the extra ``sim``, questions do not.
"""
