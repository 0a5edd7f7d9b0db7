"""LISA: free generation from its own folder layout, CLIP from a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from instructseg.modules.sam_masks import upscale_masks
from instructseg.recipes.gsva.decoding import ImagePrefix, free_answer, image_prefix_ids
from instructseg.recipes.gsva.modeling import slot_positions

from .golden import Golden, load_case, metadata
from .gsva_recordings import lisa
from .test_gsva import ENCODER, MASKS, STATES, close


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.inference_mode():
        yield


@pytest.mark.golden("gsva", "max_new_tokens", "output_ids", "last_hidden_state", "seg_embeddings")
def test_greedy_answer_and_its_masks(case: Path, golden: Golden) -> None:
    tensors, loaded = load_case(case), lisa(golden)
    model, vocabulary = loaded.model, loaded.vocabulary
    assert vocabulary.seg == tensors["seg_token_idx"].item() and vocabulary.rej is None
    ids = vocabulary.pieces.encode_with_images(metadata(case)["prompt"])
    assert ids == tensors["input_ids"][0].tolist()

    rows = model.see(tensors["images_clip"])  # (1, P, D)
    prefix = ImagePrefix(model, vocabulary, rows[0], image_prefix_ids(ids))
    answer = free_answer(prefix, ids, int(tensors["max_new_tokens"]))
    output = tensors["output_ids"][0]
    assert [*ids, *answer.ids] == output.tolist()
    fed = output[None, :-1]  # the last token was never fed
    states = model.read(model.splice(fed, rows))
    close(states, tensors["last_hidden_state"], STATES)

    # Published LISA also takes a [SEG] of the user's own text; the answer's are the last ones.
    places, _ = slot_positions(output, [vocabulary.seg], rows.shape[1])
    close(model.prompts(states[0, places]), tensors["seg_embeddings"][:, 0], STATES)
    said = len(answer.slots)
    assert said == sum(token == vocabulary.seg for token in answer.ids) <= len(places)
    for slot, expected in zip(answer.slots, tensors["seg_embeddings"][len(places) - said :, 0], strict=True):
        close(model.prompts(slot.state), expected, STATES)

    embeddings = model.sam.encode(tensors["images"])
    close(embeddings, tensors["image_embeddings"], ENCODER)
    low_res = model.masks(embeddings, tensors["seg_embeddings"][:, 0])
    close(low_res, tensors["low_res_masks"][:, 0], MASKS)
    resized, original = tuple(tensors["resize"].tolist()), tuple(tensors["original_size"].tolist())
    close(upscale_masks(low_res, resized, original, model.sam.sizes.image_size), tensors["pred_masks"], MASKS)
