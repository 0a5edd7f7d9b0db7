"""Version 2 of the tabletop benchmark without pictures: the same everywhere, held out as it says, answers exact."""

from __future__ import annotations

import collections
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from instructseg.core import BadInput
from instructseg.data.scene import CLUTTER
from instructseg.data.tabletop2 import assets, benchmark, things, wordings
from instructseg.data.tabletop2.benchmark import Case, draw_case, fingerprint, read_written, size_of, written_questions
from instructseg.data.tabletop2.facts import BEFORE, WorldFacts
from instructseg.data.tabletop2.paths import Event
from instructseg.data.tabletop2.placement import seat
from instructseg.data.tabletop2.questions import KINDS, Questioner
from instructseg.data.tabletop2.world import KEY, THEMES, TIMES, World, draw_world
from instructseg.data.tabletop_spec import position
from instructseg.recipes.unified.configuration import UnifiedConfig
from instructseg.recipes.unified.modeling import REJ, TRK
from instructseg.recipes.unified.tokenizer import build_tokenizer
from instructseg.training.bank import CLIP_TIMES
from instructseg.training.bank import KEY as BANK_KEY
from instructseg.training.questions import collate

# Scenes and questions as descriptions. Another fingerprint means another benchmark: figures cannot be compared.
FINGERPRINTS = {
    "train": "b9973723bae8ef52bc35e9a1035512c51994f53c34475e1e4addadb824cb8f6c",
    "val": "7cd152c610cea8930c951f620be24216cc1a614f0b4f26e25393c3a757667727",
    "held_out": "2f12c9bd7ed9b2c70c02eb6a2a7af893c6a92e066379fbb11666bb46ddfa950e",
    "relations": "40d7dd7250c5b3a867066def117d7462ab55d4c5d5849f63fe67b9f57bddbc39",
    "written": "299498a5f5c5ac4989e8328e93e00b265dfe4011325109142ca07e3c4d7a3397",
}
SCENES = 10


@pytest.fixture(scope="module")
def cases() -> dict[str, list[Case]]:
    return {split: [draw_case(split, i) for i in range(SCENES)] for split in ("train", *things.AXES, "held_out")}


@pytest.mark.parametrize("split", FINGERPRINTS)
def test_scenes_and_questions_are_those_of_the_published_figures(split: str) -> None:
    assert fingerprint(split, 8) == FINGERPRINTS[split]


def test_a_fingerprint_sees_a_changed_question_and_a_moved_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fingerprint("val", 1)
    case = draw_case("val", 0)
    for changed in (
        Case(case.world, case.questions[1:]),
        Case(draw_world("val", 1), case.questions),
    ):
        monkeypatch.setattr(benchmark, "draw_case", lambda split, index, changed=changed: changed)
        assert fingerprint("val", 1) != whole


def test_the_clips_of_training_are_the_beginning_of_these() -> None:
    assert TIMES[: len(CLIP_TIMES)] == CLIP_TIMES
    assert KEY == BANK_KEY and TIMES[KEY] == 0.0


def drawn_pairs(case: Case) -> set[tuple[str, str]]:
    return {(o.color, o.shape) for o in case.world.objects if o.shape != CLUTTER}


def asked_relations(case: Case) -> set[tuple[str, str]]:
    """Relation and shape of what it refers to."""
    shapes = {o.id: o.shape for o in case.world.objects}
    simple = [q for q in case.questions if q.kind == "relation" and q.detail != "between"]
    return {(q.detail, shapes[number]) for q in simple for number in q.slots[0].anchors}


def moves_like(case: Case) -> int:
    """Keys of the camera path."""
    return len(case.world.spec.camera)


def test_training_draws_nothing_that_is_held_out(cases: dict[str, list[Case]]) -> None:
    for case in cases["train"]:
        spec = case.world.spec
        clutter = [o for o in spec.objects if o.object.shape == CLUTTER and o.thing != things.ROD]
        assert not drawn_pairs(case) & things.HELD_OUT_PAIRS
        assert not asked_relations(case) & things.HELD_OUT_RELATIONS
        assert {spec.table.texture, spec.floor.texture} <= set(things.TABLE_TEXTURES)
        assert {item.texture for item in spec.objects} <= set(things.OBJECT_TEXTURES)
        assert len(clutter) <= things.CLUTTER[1]
        words = {word for q in case.questions for word in q.text.split()}
        assert words <= set(wordings.training_words()), words - set(wordings.training_words())


def test_each_axis_shows_what_it_holds_out_and_nothing_else(cases: dict[str, list[Case]]) -> None:
    known = set(wordings.training_words())
    seen: dict[str, dict[str, float]] = {}
    for split, some in cases.items():
        spec = [case.world.spec for case in some]
        clutter = [sum(o.shape == CLUTTER for o in case.world.objects) for case in some]
        texts = [q.text for case in some for q in case.questions]
        seen[split] = {
            "pairs": np.mean([bool(drawn_pairs(case) & things.HELD_OUT_PAIRS) for case in some]),
            "relations": sum(bool(asked_relations(case) & things.HELD_OUT_RELATIONS) for case in some),
            "textures": np.mean([s.table.texture in things.HELD_OUT_TABLE_TEXTURES for s in spec]),
            "clutter": np.mean([number >= things.HELD_OUT_CLUTTER[0] for number in clutter]),
            "phrasing": np.mean([not set(text.split()) <= known for text in texts]),
        }
    for split, shares in seen.items():
        for axis, share in shares.items():
            if axis in things.SPLITS[split]:
                assert share > 0.4, f"{split} shows {axis}"
            else:
                assert share == 0, f"{split} shows no {axis}"
    assert all(moves_like(case) > 2 for case in cases["cameras"])


def test_camera_paths_of_training_are_straight_and_held_out_ones_are_not(cases: dict[str, list[Case]]) -> None:
    def bend(case: Case) -> float:
        eyes = np.array([key.eye for key in case.world.spec.camera])
        return float(np.abs(np.diff(eyes, n=2, axis=0)).max()) if len(eyes) > 2 else 0.0

    def slide(case: Case) -> float:
        eyes = np.array([key.eye for key in case.world.spec.camera])
        return float(np.ptp(eyes, axis=0).max())

    assert max(bend(case) for case in cases["train"]) < 1e-9
    assert max(bend(case) for case in cases["cameras"]) > 1e-4
    assert all(slide(case) > 0.03 or bend(case) > 1e-4 for case in cases["cameras"])


def test_every_type_is_asked_and_scenes_have_their_theme(cases: dict[str, list[Case]]) -> None:
    counted = collections.Counter(q.kind for some in cases.values() for case in some for q in case.questions)
    assert set(counted) == set(KINDS)
    assert min(counted.values()) >= 8, counted
    for case in cases["train"]:
        happened = {event.kind for event in case.world.events}
        assert case.world.theme == THEMES[case.world.index % len(THEMES)]
        assert case.world.theme != "push" or "pushed" in happened
        assert case.world.theme != "stack" or case.world.supports
        assert case.world.theme != "order" or sum(event.kind == "moved" for event in case.world.events) >= 2
        assert case.world.theme != "leave" or WorldFacts(case.world).returning


def test_answers_are_things_of_the_scene_and_phrases_stand_in_the_text(cases: dict[str, list[Case]]) -> None:
    for case in (case for some in cases.values() for case in some):
        ids = {o.id for o in case.world.objects}
        for question in case.questions:
            assert question.kind != "absent" or not any(slot.targets for slot in question.slots)
            assert question.kind == "absent" or all(slot.targets for slot in question.slots), question
            assert len(question.slots) <= 3
            for slot in question.slots:
                assert slot.targets <= ids and not slot.targets & slot.anchors
                for words, matched in slot.phrases:
                    assert f" {words} " in f" {question.text} ", "training looks for the phrase in the text"
                    assert matched <= ids


def things_of(case: Case) -> dict[int, tuple[str, str]]:
    return {o.id: (o.color, o.shape) for o in case.world.objects}


def test_attributes_and_negations_answer_as_a_reader_would(cases: dict[str, list[Case]]) -> None:
    """Read back from the words alone, with the plain words of training."""
    nouns = {name: shape for shape, names in wordings.NOUNS.items() for name in names}
    colors = {name: color for color, names in wordings.COLOR_WORDS.items() for name in names}
    read = 0
    for case in cases["train"]:
        for q in case.questions:
            words = q.text.removeprefix("can you see").split()
            color = next((colors[word] for word in words if word in colors), None)
            shape = next((nouns[word] for word in words if word in nouns), None)
            if q.kind == "attribute" and q.detail != "size":
                fits = {i for i, (c, s) in things_of(case).items() if color in (None, c) and shape in (None, s)}
            elif q.kind == "negation" and q.detail == "color":
                fits = {i for i, (c, s) in things_of(case).items() if s == shape and c != color}
            elif q.kind == "negation":
                fits = {i for i, (c, s) in things_of(case).items() if c == color and s != shape}
            elif q.kind == "absent" and q.detail == "attribute":
                fits = {i for i, (c, s) in things_of(case).items() if (c, s) == (color, shape)}
            else:
                continue
            read += 1
            assert set(q.slots[0].targets) == fits, q.text
    assert read > 20


def test_what_a_question_refers_to_is_the_second_phrase_of_its_slot(cases: dict[str, list[Case]]) -> None:
    checked = collections.Counter()
    for case in (case for split in ("train", "pairs", "textures", "cameras", "clutter") for case in cases[split]):
        looks = things_of(case)
        for q in case.questions:
            if q.kind not in ("negation", "comparison", "relation") or q.detail in ("moved_most", "displaced"):
                continue
            (slot,) = q.slots
            assert slot.phrases[0][1] == slot.candidates
            assert frozenset().union(*(ids for _, ids in slot.phrases[1:])) == slot.anchors
            assert len(slot.phrases) == (3 if q.detail == "between" else 2)
            if q.kind == "negation":
                said, place = slot.phrases[1][0], 0 if q.detail == "color" else 1
                table = wordings.COLOR_WORDS if q.detail == "color" else wordings.NOUNS
                (name,) = (name for name, words in table.items() if said in words)
                assert slot.anchors <= {i for i, look in looks.items() if look[place] == name}
                assert slot.anchors and slot.candidates - slot.anchors == slot.targets
            checked[q.kind] += 1
    assert min(checked[kind] for kind in ("negation", "comparison", "relation")) >= 2, checked


def test_what_lies_on_or_in_something_is_over_it_and_rests_there(cases: dict[str, list[Case]]) -> None:
    found = 0
    for case in (case for some in cases.values() for case in some):
        items = {item.object.id: item for item in case.world.spec.objects}
        for item, (relation, carrier) in case.world.supports.items():
            top, below = (position(items[number].waypoints, 0.0) for number in (item, carrier))
            radius, height = assets.extent(items[carrier].thing, items[carrier].object.size)
            assert np.hypot(top[0] - below[0], top[1] - below[1]) < 0.01
            assert 0 < top[3] <= height + 1e-6
            if relation == "in":
                assert top[3] < 0.4 * height, "it is well below the rim"
                assert assets.extent(items[item].thing, items[item].object.size)[0] < radius
            found += 1
    assert found > 20


@pytest.mark.parametrize(
    ("carrier", "thing", "found"),
    [
        (("block", "large"), ("ball", "small"), "on"), (("can", "large"), ("ball", "small"), "on"),
        (("box", "large"), ("key", "small"), "in"), (("bowl", "large"), ("ball", "small"), "in"),
        (("plate", "large"), ("bowl", "small"), "on"), (("can", "small"), ("plate", "large"), None),
        (("ball", "large"), ("ball", "small"), None), (("bowl", "small"), ("banana", "large"), None),
    ],
)  # fmt: skip
def test_what_fits_on_what(carrier: tuple[str, str], thing: tuple[str, str], found: str | None) -> None:
    place = seat(*carrier, *thing)
    assert (place and place[0]) == found


def test_pushed_things_move_only_while_the_rod_is_at_them() -> None:
    for index in (2, 7, 12, 17):
        world = draw_world("train", index)
        (event,) = (event for event in world.events if event.kind == "pushed")
        items = {item.object.id: item for item in world.spec.objects}
        rod = next(item for item in world.spec.objects if item.thing == things.ROD)

        def place(item, t: float) -> np.ndarray:
            return np.array(position(item.waypoints, t)[:2])

        pushed = items[event.id]
        assert np.allclose(place(pushed, BEFORE), place(pushed, event.start - 0.06), atol=1e-3)
        assert np.allclose(place(pushed, event.stop + 0.06), place(pushed, 0.0), atol=1e-3)
        assert np.hypot(*(place(pushed, event.stop) - place(pushed, event.start))) > 0.05
        middle = (event.start + event.stop) / 2
        reach = sum(assets.extent(item.thing, item.object.size)[0] for item in (pushed, rod))
        assert np.hypot(*(place(pushed, middle) - place(rod, middle))) < reach + 0.01
        assert position(rod.waypoints, 0.0)[3] > 0.3, "it is out of the way when the instruction comes"


def made_facts(events: tuple[Event, ...]) -> WorldFacts:
    world = draw_world("train", 0)
    facts = WorldFacts(World("train", 0, "still", world.spec, {}, events))
    return facts


def test_first_and_last_need_two_that_began_clearly_apart() -> None:
    numbers = [o.id for o in made_facts(()).named][:2]
    ids = frozenset(numbers)
    apart = made_facts((Event("moved", numbers[0], -1.4, 0.5), Event("moved", numbers[1], -0.8, 0.5)))
    assert Questioner.doing(apart, ids, "first") == {numbers[0]}
    assert Questioner.doing(apart, ids, "last") == {numbers[1]}
    together = made_facts((Event("moved", numbers[0], -1.4, 0.5), Event("moved", numbers[1], -1.2, 0.5)))
    assert Questioner.doing(together, ids, "first") is None
    alone = made_facts((Event("moved", numbers[0], -1.4, 0.5),))
    assert Questioner.doing(alone, ids, "last") is None
    assert Questioner.doing(apart, ids, "pushed") == frozenset()


def test_training_can_ask_again_and_again_with_its_share_of_absent_targets() -> None:
    questioner = Questioner(np.random.default_rng(0), frozenset())
    facts = WorldFacts(draw_world("train", 3))
    drawn = [questioner.draw(facts, 0.4) for _ in range(60)]
    share = np.mean([not any(slot.targets for slot in q.slots) for q in drawn])
    assert 0.2 < share < 0.6
    assert len({q.text for q in drawn}) > 30


class CoveredScenes:
    """What a bank of encoded scenes says: every latent is one thing."""

    def __init__(self, facts: list[WorldFacts]) -> None:
        self.facts = facts

    def covered(self, rows: torch.Tensor, time: int) -> torch.Tensor:
        return torch.arange(1, 11).repeat(len(rows), 1)  # (B, K) ids


def test_the_trainings_batches_take_these_questions() -> None:
    tokenizer = build_tokenizer(wordings.training_words())
    facts = [WorldFacts(draw_world("train", index)) for index in (1, 3)]
    rng = np.random.default_rng(5)
    questioner = Questioner(rng, frozenset())
    asked = [(b, questioner.draw(about)) for b, about in enumerate(facts) for _ in range(20)]
    batch = collate(CoveredScenes(facts), tokenizer, UnifiedConfig(), torch.arange(2), asked)
    unknown = tokenizer.token_to_id("<unk>")
    assert len(batch.words) == 40 and not (batch.words == unknown).any()
    row = 0
    for (_, question), answers in zip(asked, batch.answers, strict=True):
        for number, slot in enumerate(question.slots):
            assert answers[number] == (TRK if slot.targets else REJ)
            assert set(torch.nonzero(batch.target[row + number]).flatten().add(1).tolist()) == {
                i for i in slot.targets if i <= 10
            }
        row += len(answers)
    assert len(batch.phrases) == sum(len(slot.phrases) for _, q in asked for slot in q.slots)


def test_instructions_by_hand_fit_their_scenes() -> None:
    total, words = 0, set()
    for index in range(benchmark.SIZES["written"]):
        case = draw_case("written", index)
        facts = WorldFacts(case.world)
        for question in case.questions:
            total += 1
            words |= set(re.findall(r"[a-z']+", question.text.lower()))
            targets = frozenset().union(*(slot.targets for slot in question.slots))
            assert targets <= {o.id for o in facts.named}, question.text
            assert (question.kind == "absent") == (not targets), question.text
            assert question.kind != "returns" or targets <= facts.returning, question.text
            assert question.kind != "motion" or targets <= set(facts.events), question.text
    assert total == 261
    assert len(words - set(wordings.training_words())) > 100, "not the words of the templates"


def test_written_answers_that_are_not_in_the_scene_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "read_written", lambda path: {0: [("attribute", [[77]], "the mug")]})
    with pytest.raises(BadInput, match=r"scene 0: 'the mug' answers \[\[77\]\]"):
        written_questions(draw_world("written", 0))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("[1, 2]", "must map scene numbers"), ("a: []", "got 'a'"), ("-1: []", "got -1"), ("{", "cannot be read"),
        ("0: [[shape, [[1]], mug]]", "types are attribute"), ("0: [[use, [], mug]]", "list of lists of ids"),
        ("0: [[use, [[x]], mug]]", "list of lists"), ("0: [[use, [1], mug]]", "list of lists"),
        ("0: [[use, [[1]], '']]", "text"), ("0: [[absent/class, [[1]], mug]]", "has no ids"),
        ("0: [[use, [[1]]]]", "must be"), ("0: 5", "must be a list"),
    ],
)  # fmt: skip
def test_a_damaged_file_of_instructions_is_named(tmp_path: Path, content: str, what: str) -> None:
    path = tmp_path / "written.yaml"
    path.write_text(content)
    with pytest.raises(BadInput, match=re.escape(what)) as caught:
        read_written(path)
    assert "written.yaml" in str(caught.value)


def test_no_file_of_instructions(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.yaml cannot be read"):
        read_written(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: draw_world("test", 0), "split must be one of train, val"),
        (lambda: draw_world("val", -1), "got -1"),
        (lambda: draw_world("val", 1.5), "got 1.5"),
        (lambda: draw_case("written", 42), "scenes 0 to 41; got 42"),
        (lambda: size_of("train"), "evaluated on the splits val"),
        (lambda: size_of("val", 101), "has 100 scenes; got 101"),
        (lambda: size_of("val", 0), "got 0"),
        (lambda: Questioner(np.random.default_rng(0), frozenset()).ask(made_facts(()), "color"), "got 'color'"),
    ],
)
def test_bad_requests_are_refused(call, what: str) -> None:
    with pytest.raises(BadInput, match=re.escape(what)):
        call()


@pytest.mark.parametrize("name", ["box", "banana", "key"])
def test_meshes_face_outwards(name: str) -> None:
    mesh = assets.meshes()[name]
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert np.einsum("ij,ij->", corners[:, 0], normals) / 6 > 0  # enclosed volume
    assert np.all(np.einsum("ij,ij->i", mesh.normals[mesh.faces].sum(axis=1), normals) > 0)
