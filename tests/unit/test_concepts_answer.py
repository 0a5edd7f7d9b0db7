"""A head that knows every concept as the labels tell it gives the answers of the questions."""

from __future__ import annotations

import numpy as np
import torch

from instructseg.data.tabletop2.facts import WorldFacts
from instructseg.data.tabletop2.world import draw_world
from instructseg.modules.object_latents import GEOMETRY, ObjectLatents
from instructseg.modules.relational_mask_head import CHOICES, RelationalMaskHead
from instructseg.modules.scene_concepts import SceneConcepts
from instructseg.modules.video_perceiver import MOTION_CODE
from instructseg.training.concept_labels import UNKNOWN, choice_of, concept_labels
from instructseg.training.questions import Asker

SURE = 20.0


def sure(labels: np.ndarray) -> torch.Tensor:
    """Logits of one scene: sure of what is told, undecided of the rest."""
    told = torch.from_numpy(labels).float()
    return torch.where(told == UNKNOWN, 0.0, (told * 2 - 1) * SURE)[None]


def test_the_choice_that_a_question_needs_gives_its_answer_from_the_labels() -> None:
    head, compared = RelationalMaskHead(16, 5, MOTION_CODE, 8), set()
    asker = Asker(np.random.default_rng(4), "train", wide=0.5)
    for number in range(12):
        facts = WorldFacts(draw_world("train", 200 + number))
        labels, ids = concept_labels(facts), np.array([o.id for o in facts.objects])
        k = len(ids)
        pairs = np.ix_(ids, ids)
        concepts = SceneConcepts(sure(labels.relations[pairs]), sure(labels.orders[pairs]), sure(labels.doings[ids]))
        nowhere = torch.zeros(1, k, GEOMETRY), torch.zeros(1, k, 7), torch.ones(1, k), torch.ones(1, k).bool()
        latents = ObjectLatents(torch.zeros(1, k, 1, 1), *nowhere)
        for _ in range(40):
            question = asker.ask(facts)
            for slot in question.slots:
                choice = choice_of(question, slot, facts)
                if choice == UNKNOWN or CHOICES[choice][0] == "between":  # which a place decides, not a concept
                    continue
                named, anchor = ([[SURE if i in s else -SURE for i in ids]] for s in (slot.candidates, slot.anchors))
                holds = head._holds(
                    latents, concepts, torch.tensor(named), torch.tensor(anchor), -SURE * torch.ones(1, k)
                )
                found = {int(i) for i, held in zip(ids, holds[0, :, choice].tolist(), strict=True) if held > 0.4}
                assert found & slot.candidates == slot.targets, (question.text, CHOICES[choice])
                compared.add(CHOICES[choice][0])
    assert compared == {"none", "relation", "without", "doing", "order"}
