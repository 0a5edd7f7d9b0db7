"""``instructseg recipes``: what can be loaded by name, and the options of one of them."""

from __future__ import annotations

import argparse

from ..core import BadInput
from ..options import describe_options
from ..registry import RECIPES


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "recipes", help="list the recipes, or the options of one", description="List the recipes, or one's options."
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a recipe, to list its options")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.name:
        print_options(arguments.name)
        return 0
    width = max(len("recipe"), *(len(name) for name in RECIPES))
    print(f"{'recipe':{width}}  weights   summary")
    for recipe in RECIPES.values():
        weights = "shipped" if recipe.shipped else "yours"
        print(f"{recipe.name:{width}}  {weights:8}  {recipe.summary}")
    return 0


def print_options(name: str) -> None:
    """The options of a recipe, one a line. Raises BadInput for an unknown name."""
    if name not in RECIPES:
        raise BadInput(f"unknown recipe {name!r}; known are {sorted(RECIPES)}")
    recipe = RECIPES[name]
    print(f"{recipe.name}: {recipe.summary}")
    options = describe_options(recipe.options_class)
    if not options:
        print("it has no options")
    for key, default, text in options:
        print(f"  {key} = {default}\n      {text}")
