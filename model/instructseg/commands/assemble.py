"""``instructseg assemble``: a larger model of the default recipe from pretrained backbones, to be trained."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ..core import BadInput

DESCRIPTION = """Put a larger model of the default recipe together: a pretrained vision backbone in place of the
convolutions, a pretrained language model in place of the small one, or both. The result is a checkpoint that has NOT
been trained; docs/unified_large.md says how to train it. A hub id is fetched because you name it here."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "assemble", help="a larger, untrained model on pretrained backbones", description=DESCRIPTION
    )
    parser.add_argument("--vision", metavar="DIR", help="folder or hub id, as facebook/dinov2-with-registers-small")
    parser.add_argument("--language", metavar="DIR", help="folder or hub id, as HuggingFaceTB/SmolLM2-135M")
    parser.add_argument("--start", metavar="DIR", help="checkpoint for all other parts (default: the shipped one)")
    parser.add_argument(
        "--image-size", type=image_size, metavar="HxW", help="of the encoder's input, as 480x640 (default: as before)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the checkpoint's new folder")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
        raise BadInput(f"--out {arguments.out} must be a new or an empty folder")
    from ..recipes.unified.assemble import assemble, report
    from ..recipes.unified.checkpoint import save_checkpoint

    model, tokenizer = assemble(arguments.vision, arguments.language, arguments.start, arguments.image_size)
    save_checkpoint(arguments.out, model, tokenizer)
    print(f"untrained checkpoint: {arguments.out} ({report(model)})")
    print(f"next: instructseg train --set model={arguments.out} --out runs/large")
    return 0


def image_size(text: str) -> tuple[int, int]:
    """An argparse type: ``HxW`` in pixels."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"must be HEIGHTxWIDTH in pixels, such as 480x640; got {text!r}")
    return int(found[1]), int(found[2])
