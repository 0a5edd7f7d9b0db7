"""``instructseg recipes``: what can be loaded by name."""

from __future__ import annotations

import argparse

from ..registry import RECIPES


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("recipes", help="list the recipes", description="List the recipes.")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    width = max(len("recipe"), *(len(name) for name in RECIPES))
    print(f"{'recipe':{width}}  weights   summary")
    for recipe in RECIPES.values():
        weights = "shipped" if recipe.shipped else "yours"
        print(f"{recipe.name:{width}}  {weights:8}  {recipe.summary}")
    return 0
