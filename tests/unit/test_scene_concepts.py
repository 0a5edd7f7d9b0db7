"""Concepts of a scene, their labels, and how the mask head chooses among them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from instructseg.data.tabletop2.facts import WorldFacts
from instructseg.data.tabletop2.questions import KINDS, Questioner
from instructseg.data.tabletop2.world import draw_world
from instructseg.modules.object_latents import ObjectLatents
from instructseg.modules.relational_mask_head import CHOICE, CHOICES, HAPPENED, RelationalMaskHead
from instructseg.modules.scene_concepts import DOINGS, ORDERS, RELATIONS, ConceptNetwork, SceneConcepts, pair_features
from instructseg.modules.video_perceiver import MOTION_CODE
from instructseg.training.concept_labels import UNKNOWN, choice_of, concept_labels

NAMED = 5
SURE = 30.0


def latents_in_a_row(k: int = 4) -> ObjectLatents:
    """From the left to the right, all of the same size."""
    geometry = torch.tensor([[0.2 + 0.15 * i, 0.5, 0.55, 0.1, 0.1, 0.1] for i in range(k)])[None]
    appearance = torch.zeros(1, k, NAMED + 2)
    appearance[..., 0] = 1.0
    return ObjectLatents(torch.zeros(1, k, 1, 1), geometry, appearance, torch.ones(1, k), torch.ones(1, k).bool())


def concepts_of(k: int = 4) -> SceneConcepts:
    """Sure of the order from the left and of what is left of what; of nothing else."""
    relations = torch.full((1, k, k, len(RELATIONS)), -SURE)
    orders = torch.zeros(1, k, k, len(ORDERS))
    for i in range(k):
        for j in range(k):
            orders[0, i, j, ORDERS.index("left")] = SURE * np.sign(j - i)
            relations[0, i, j, RELATIONS.index("left")] = SURE if i < j else -SURE
    return SceneConcepts(relations, orders, torch.full((1, k, len(DOINGS)), -SURE))


def test_the_network_gives_antisymmetric_orders_for_any_number_of_things() -> None:
    torch.manual_seed(0)
    network = ConceptNetwork(NAMED)
    for k in (1, 3):
        found = network(latents_in_a_row(k), torch.randn(1, k, MOTION_CODE))
        assert found.relations.shape == (1, k, k, len(RELATIONS)) and found.doings.shape == (1, k, len(DOINGS))
        assert torch.allclose(found.orders, -found.orders.transpose(1, 2), atol=1e-6)
        assert torch.isfinite(found.relations).all()


def test_a_slot_that_is_empty_changes_nothing_that_is_said_of_the_others() -> None:
    torch.manual_seed(0)
    network, motion = ConceptNetwork(NAMED), torch.randn(1, 4, MOTION_CODE)
    some, other = latents_in_a_row(), latents_in_a_row()
    for latents in (some, other):
        latents.valid[0, 3] = False
    other.geometry[0, 3] = 0.9
    one, two = network(some, motion), network(other, motion)
    assert torch.allclose(one.doings[0, :3], two.doings[0, :3])
    assert torch.allclose(one.relations[0, :3, :3], two.relations[0, :3, :3])


def test_features_of_a_pair_are_seen_from_the_second() -> None:
    features = pair_features(latents_in_a_row(2).geometry)
    assert features[0, 0, 1, 0] < 0 < features[0, 1, 0, 0], "the first is to the left"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (("order", "left", 0), [1, 0, 0, 0]), (("order", "right", 0), [0, 0, 0, 1]),
        (("order", "left", 1), [0, 1, 0, 0]), (("order", "right", 1), [0, 0, 1, 0]),
        (("order", "left", 3), [0, 0, 0, 1]), (("relation", "left", 0), [1, 1, 0, 0]),
        (("without", "", 0), [1, 1, 0, 1]), (("none", "", 0), [1, 1, 1, 1]), (("doing", "pushed", 0), [0, 0, 0, 0]),
    ],
)  # fmt: skip
def test_what_a_choice_holds_of(choice: tuple[str, str, int], expected: list[int]) -> None:
    torch.manual_seed(0)
    head = RelationalMaskHead(16, NAMED, MOTION_CODE, 8)
    named = torch.full((1, 4), SURE)  # all four are candidates
    anchor = torch.tensor([[-SURE, -SURE, SURE, -SURE]])  # the third
    holds = head._holds(latents_in_a_row(), concepts_of(), named, anchor, torch.full((1, 4), -SURE))
    assert holds.shape == (1, 4, len(CHOICES))
    assert holds[0, :, CHOICE[choice]].round().int().tolist() == expected


def test_an_order_counts_candidates_only() -> None:
    torch.manual_seed(0)
    head = RelationalMaskHead(16, NAMED, MOTION_CODE, 8)
    named = torch.tensor([[-SURE, SURE, -SURE, SURE]])
    holds = head._holds(latents_in_a_row(), concepts_of(), named, torch.zeros(1, 4) - SURE, torch.zeros(1, 4) - SURE)
    assert holds[0, [1, 3], CHOICE["order", "left", 1]].round().int().tolist() == [0, 1], "the second of two"


def test_what_moved_first_is_sought_among_what_moved() -> None:
    torch.manual_seed(0)
    head = RelationalMaskHead(16, NAMED, MOTION_CODE, 8)
    concepts = concepts_of()
    concepts.orders[..., ORDERS.index("first")] = concepts.orders[..., ORDERS.index("left")]  # from left to right
    concepts.doings[0, 1:3, DOINGS.index("displaced")] = SURE
    nothing = torch.full((1, 4), -SURE)
    holds = head._holds(latents_in_a_row(), concepts, torch.full((1, 4), SURE), nothing, nothing)
    assert holds[0, :, CHOICE["order", "first", 0]].round().int().tolist() == [0, 1, 0, 0]


def test_labels_agree_with_the_questions_of_the_same_scenes() -> None:
    """What a question of one concept answers is what the labels say of its candidates."""
    questioner, compared = Questioner(np.random.default_rng(3), frozenset()), set()
    for index in range(40):
        facts = WorldFacts(draw_world("train", index))
        labels = concept_labels(facts)
        for kind in KINDS:
            question = questioner.ask(facts, kind)
            if question is None:
                continue
            for slot in question.slots:
                choice = choice_of(question, slot, facts)
                if choice == UNKNOWN:
                    continue
                group, name, place = CHOICES[choice]
                if group == "relation":
                    (anchor,) = slot.anchors
                    table = labels.relations[:, anchor, RELATIONS.index(name)]
                elif group == "doing":
                    table = labels.doings[:, DOINGS.index(name)]
                elif group == "order" and place == 0 and name in ORDERS:
                    others = sorted(slot.candidates)
                    if name in HAPPENED:
                        others = [j for j in others if j in facts.events]
                    (target,) = slot.targets
                    assert all(labels.orders[target, j, ORDERS.index(name)] == 1 for j in others if j != target)
                    compared.add(group)
                    continue
                else:
                    continue
                told = {i for i in slot.candidates - slot.anchors if table[i] == 1}
                assert told == slot.targets, (question.text, name)
                compared.add(group)
    assert compared == {"relation", "doing", "order"}


def test_labels_of_a_pair_are_known_or_unknown_on_both_sides() -> None:
    labels = concept_labels(WorldFacts(draw_world("train", 4)))
    forth, back = labels.orders, labels.orders.transpose(1, 0, 2)
    known = forth != UNKNOWN
    assert (known == (back != UNKNOWN)).all() and (forth[known] + back[known] == 1).all()
    assert (labels.relations[0] == UNKNOWN).all(), "0 is no thing"
