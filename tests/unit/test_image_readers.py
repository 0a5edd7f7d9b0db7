"""Readers of image benchmarks on miniature sets: every sample, its image, its masks; and what bad ones are told."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from unit import miniature_data as mini
from unit import miniature_videos
from unit.travelling import arrived, packed

from instructseg.core import BadInput
from instructseg.data import benchmarks
from instructseg.data.benchmarks import open_dataset
from instructseg.data.readers import coco_index, image_files
from instructseg.data.readers.coco_index import open_index
from instructseg.data.readers.plain_pickles import read_plain_pickle
from instructseg.data.samples import Dataset, Kind, NotOnDisk, Sample


def samples(dataset: Dataset) -> list[Sample]:
    return [dataset[i] for i in range(len(dataset))]


def union(sample: Sample) -> np.ndarray:
    truth = sample.truth(0)
    assert truth.masks.shape == (len(sample.objects), mini.HEIGHT, mini.WIDTH)
    assert truth.masks.dtype == bool
    return truth.union


def rewrite(path: Path, change: Callable[[object], object]) -> None:
    """Change a JSON file or a pickle in place."""
    if path.suffix == ".p":
        path.write_bytes(pickle.dumps(change(read_plain_pickle(path)), 2))
    else:
        path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))), "utf-8")


@pytest.mark.parametrize("name", ["refcoco", "refcoco+", "refcocog", "refclef"])
@pytest.mark.parametrize("protocol", [0, 2])
def test_refcoco_gives_a_sample_for_every_sentence(name: str, protocol: int, tmp_path: Path) -> None:
    scenes = mini.refcoco(tmp_path, name, protocol=protocol)
    dataset = open_dataset(name, tmp_path, "train")
    assert (dataset.name, dataset.split, len(dataset)) == (name, "train", 6)
    found = samples(dataset)
    assert [s.instruction for s in found] == ["the red box", "red thing", "two blue parts"] * 2
    assert len({s.id for s in found}) == 6
    for sample, colour in zip(found, ["red", "red", "blue"] * 2, strict=True):
        scene = scenes[sample.footage.name]
        assert sample.footage.frames == (scene.name,)
        assert np.abs(sample.footage.read(0).astype(int) - scene.image).mean() < 3  # JPEG
        np.testing.assert_array_equal(union(sample), scene.masks[colour])
        assert sample.objects == (str(scene.annotation_id(colour)),)
        assert sample.kind is Kind.REFERRING
    assert found[1].extra["raw"] == "Red thing"
    assert found[2].extra["boxes"] == [[33.0, 6.0, 22.0, 14.0]]
    assert found[2].extra["categories"] == ["ball"]
    assert dataset[-1].id == found[-1].id
    with pytest.raises(IndexError):
        dataset[6]


def test_google_and_umd_splits_of_refcocog_are_told_apart(tmp_path: Path) -> None:
    mini.refcoco(tmp_path, "refcocog", {"train": 1, "val": 2}, by="google")
    assert len(open_dataset("refcocog", tmp_path, "google-val")) == 6
    with pytest.raises(NotOnDisk, match=r"refs\(umd\)\.p is missing"):
        open_dataset("refcocog", tmp_path, "val")


def test_grefcoco_names_several_things_or_none(tmp_path: Path) -> None:
    scenes = mini.grefcoco(tmp_path)
    one, several, none = samples(open_dataset("grefcoco", tmp_path, "val"))
    scene = scenes[one.footage.name]
    np.testing.assert_array_equal(union(one), scene.masks["red"])
    masks = several.truth(0).masks
    np.testing.assert_array_equal(masks[0], scene.masks["red"])
    np.testing.assert_array_equal(masks[1], scene.masks["blue"])
    assert (none.objects, none.kind, none.instruction) == ((), Kind.NO_TARGET, "a zebra")
    assert none.truth(0).masks.shape == (0, mini.HEIGHT, mini.WIDTH)
    assert not none.truth(0).union.any()
    assert none.extra["boxes"] == []


def test_reasonseg_paints_ignores_and_explains(tmp_path: Path) -> None:
    scenes = mini.reason_seg(tmp_path)
    first, second = samples(open_dataset("reasonseg", tmp_path, "train"))
    scene = scenes[first.footage.name]
    np.testing.assert_array_equal(union(first), scene.masks["green"])
    np.testing.assert_array_equal(first.truth(0).ignore, scene.masks["red"])
    assert (first.is_sentence, second.is_sentence) == (True, False)
    assert second.instruction == "the caf\u00e9's long thing"  # of a file in cp1252
    assert second.extra == {"texts": ["the caf\u00e9's long thing", "the longest thing"]}
    assert first.extra["explanation"].startswith("A ruler is long")
    assert first.kind is Kind.REASONING
    assert [len(open_dataset("reasonseg", tmp_path, split)) for split in ("val", "test")] == [2, 2]


def test_reasonseg_paints_the_larger_polygon_first(tmp_path: Path) -> None:
    mini.reason_seg(tmp_path, {"val": 1})
    path = next((tmp_path / "ReasonSeg/val").glob("*.json"))
    small, large = [[20, 20], [29, 20], [29, 29], [20, 29]], [[10, 10], [39, 10], [39, 39], [10, 39]]
    for shapes in ([("Ignore this", small), ("target", large)], [("target", large), ("Ignore this", small)]):
        rewrite(path, lambda c, shapes=shapes: c | {"shapes": [{"label": k, "points": p} for k, p in shapes]})
        truth = open_dataset("reasonseg", tmp_path, "val")[0].truth(0)
        assert (truth.masks.sum(), truth.ignore.sum()) == (30 * 30 - 10 * 10, 10 * 10)
        assert truth.ignore[20:30, 20:30].all()


def test_reasonseg_without_a_target_says_so(tmp_path: Path) -> None:
    mini.reason_seg(tmp_path, {"val": 1})
    rewrite(next((tmp_path / "ReasonSeg/val").glob("*.json")), lambda c: c | {"shapes": c["shapes"][:1]})
    sample = open_dataset("reasonseg", tmp_path, "val")[0]
    assert (sample.kind, sample.objects) == (Kind.NO_TARGET, ())
    assert sample.truth(0).masks.shape == (0, mini.HEIGHT, mini.WIDTH)
    assert sample.truth(0).ignore.any()


def test_coco_gives_a_sample_for_every_class_in_an_image(tmp_path: Path) -> None:
    scenes = mini.coco_semantic(tmp_path)
    found = samples(open_dataset("coco-semantic", tmp_path, "train"))
    assert [(s.id, s.instruction) for s in found] == [
        ("1/1", "box"), ("1/18", "box top"), ("2/1", "box"), ("2/3", "ball"), ("2/18", "box top"),
    ]  # fmt: skip
    colour_of = {name: colour for colour, (_, name) in mini.CATEGORIES.items()}
    for sample in found:
        np.testing.assert_array_equal(union(sample), scenes[sample.footage.name].masks[colour_of[sample.instruction]])
        assert sample.kind is Kind.SEMANTIC


def test_several_annotations_of_a_class_are_one_mask(tmp_path: Path) -> None:
    scenes = mini.coco_semantic(tmp_path, {"val": 1})
    same = lambda c: c | {"annotations": [a | {"category_id": 1} for a in c["annotations"]]}  # noqa: E731
    rewrite(tmp_path / "annotations/instances_val2017.json", same)
    (sample,) = samples(open_dataset("coco-semantic", tmp_path, "val"))
    np.testing.assert_array_equal(union(sample), np.any(list(scenes[sample.footage.name].masks.values()), axis=0))
    assert sample.extra["annotations"] == [10, 11, 12]


def test_stuff_leaves_out_the_class_of_all_things(tmp_path: Path) -> None:
    mini.coco_semantic(tmp_path, {"val": 1})
    path = tmp_path / "annotations/instances_val2017.json"
    path.rename(path.with_name("stuff_val2017.json"))
    rewrite(
        path.with_name("stuff_val2017.json"),
        lambda c: c | {"categories": [k | {"name": "other" if k["id"] == 1 else k["name"]} for k in c["categories"]]},
    )
    assert [s.instruction for s in samples(open_dataset("coco-stuff", tmp_path, "val"))] == ["ball", "box top"]


def test_nothing_is_read_before_it_is_looked_at_and_the_index_only_once(tmp_path: Path, monkeypatch) -> None:
    mini.refcoco(tmp_path)
    opened = []
    monkeypatch.setattr(image_files.Image, "open", lambda path: opened.append(path) or 1 / 0)
    reads = []
    original = coco_index.CocoIndex._read
    monkeypatch.setattr(coco_index.CocoIndex, "_read", lambda self: reads.append(self.path) or original(self))
    found = [s for split in ("train", "val", "testA") for s in samples(open_dataset("refcoco", tmp_path, split))]
    assert len({id(s.truth.index) for s in found}) == 1
    assert (opened, len(reads)) == ([], 1)


def test_samples_and_sets_travel_to_other_processes_in_little_space(tmp_path: Path) -> None:
    mini.refcoco(tmp_path, splits={"train": 30})
    dataset = open_dataset("refcoco", tmp_path, "train")
    assert len(packed(dataset[4])) < 2000
    np.testing.assert_array_equal(union(arrived(dataset[4])), union(dataset[4]))
    again = arrived(dataset)
    assert [s.id for s in samples(again)] == [s.id for s in samples(dataset)]


def test_an_index_with_text_beyond_ascii_finds_its_places(tmp_path: Path) -> None:
    mini.refcoco(tmp_path)
    path = tmp_path / "refcoco/instances.json"
    content = json.loads(path.read_text())
    for number, annotation in enumerate(content["annotations"]):
        annotation["note"] = "\u00e9\u732b" * number
    path.write_text(json.dumps({"info": "\u00fc"} | content, ensure_ascii=False, indent=1), "utf-8")
    index = open_index(path)
    plain = {a["id"]: a for a in content["annotations"]}
    assert index.categories == {1: "box", 3: "ball", 18: "box top"}
    for at, number in enumerate(index.ids):
        assert index.place(number) == at
        assert index.mask(at).sum() == plain[number]["area"]


def test_a_file_that_changes_is_read_anew_and_an_old_index_notices(tmp_path: Path) -> None:
    mini.refcoco(tmp_path)
    path = tmp_path / "refcoco/instances.json"
    old = open_index(path)
    rewrite(path, lambda c: {"pad": "x" * 1000} | c)
    with pytest.raises(BadInput, match=r"instances.json: annotation \d+ (cannot be read again|is no longer)"):
        old.mask(0)
    assert open_index(path).mask(0).any()


@pytest.mark.parametrize("place", ["{}", "{}/refcoco", "{}/.."])
def test_the_root_may_be_the_set_its_folder_or_the_one_above(place: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    mini.refcoco(root)
    assert len(open_dataset("refcoco", place.format(root), "val")) == 3


def test_a_root_of_another_benchmark_is_named(tmp_path: Path) -> None:
    mini.reason_seg(tmp_path / "one")
    mini.refcoco(tmp_path / "two")
    for root, there in ((tmp_path / "one", "reasonseg"), (tmp_path / "one/ReasonSeg", "reasonseg")):
        with pytest.raises(BadInput, match=f"{root} holds no refcoco .*belongs to: {there}$"):
            open_dataset("refcoco", root, "val")
    with pytest.raises(BadInput, match="holds no mevis .*belongs to: refcoco$"):
        open_dataset("mevis", tmp_path / "two", "valid_u")
    assert benchmarks.identify(tmp_path) == ["refcoco", "reasonseg"]


def test_a_wrong_call_names_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown benchmark 'coco'; known are: refcoco, refcoco\\+"):
        open_dataset("coco", tmp_path, "val")
    with pytest.raises(BadInput, match="'refcoco' has no split 'test'; it has: train, val, testA, testB"):
        open_dataset("refcoco", tmp_path, "test")
    with pytest.raises(BadInput, match="no known benchmark was found there"):
        open_dataset("refcoco", tmp_path, "val")
    with pytest.raises(BadInput, match="nowhere does not exist"):
        open_dataset("refcoco", tmp_path / "nowhere", "val")
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="file is a file; give the folder"):
        open_dataset("refcoco", tmp_path / "file", "val")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(BadInput, match="loop (does not exist|cannot be opened)"):
        open_dataset("refcoco", tmp_path / "loop", "val")
    assert benchmarks.identify(tmp_path) == []  # a loop of links within a root does no harm


def test_rows_of_the_registry_are_complete() -> None:
    rows = benchmarks.benchmarks()
    assert list(rows)[:5] == ["refcoco", "refcoco+", "refcocog", "refclef", "grefcoco"]
    for name, row in rows.items():
        assert name == row.name
        assert set(row.local) <= set(row.splits)
        assert set(row.counts) <= set(row.splits)
        assert row.marks
        assert row.licence
        assert row.where
        assert callable(benchmarks._opener(row))


def broken_refcoco(root: Path, change: Callable[[object], object], file: str = "refs(unc).p") -> list[Sample]:
    mini.refcoco(root)
    rewrite(root / "refcoco" / file, change)
    return samples(open_dataset("refcoco", root, "train"))


def first(**changes: object) -> Callable[[list], list]:
    return lambda rows: [rows[0] | changes, *rows[1:]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [], "must hold a list of references"),
        (lambda rows: {"a": 1}, "must hold a list of references"),
        (lambda rows: [3], r"reference \[0\] must be a dictionary; got '3'"),
        (first(split=None), r"reference \[0\]: 'split' must be text"),
        (lambda rows: [row | {"split": "elsewhere"} for row in rows], "no references of the split 'train'; it has: e"),
        (first(ref_id="5"), r"reference \[0\]: 'ref_id' must be a whole number; got '5'"),
        (first(ref_id=10**30), "'ref_id' must be a whole number"),
        (first(ann_id=[10]), r"'ann_id' must be a whole number; got '\[10\]'"),
        (first(ann_id=True), "'ann_id' must be a whole number"),
        (first(sentences=[]), "'sentences' must be a list of at least one"),
        (first(sentences=["a"]), r"'sentences'\[0\] must be a dictionary"),
        (first(sentences=[{"sent": " ", "sent_id": 1}]), r"'sentences'\[0\]: 'sent' must be text"),
        (first(sentences=[{"sent": "a"}]), r"'sentences'\[0\]: 'sent_id' must be a whole number; got 'None'"),
    ],
)  # fmt: skip
def test_bad_references_are_named(change, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"refs\(unc\)\.p.*{message}"):
        broken_refcoco(tmp_path, change)


def test_references_that_repeat_themselves_endlessly_are_refused(tmp_path: Path) -> None:
    def bomb(rows: list) -> list:
        row = rows[0] | {"sentences": rows[0]["sentences"] * 5000}
        return [row] * 5000

    with pytest.raises(BadInput, match="has 50000000 sentences, more than 5000000"):
        broken_refcoco(tmp_path, bomb)


def doubled(levels: int) -> list:
    """Lists of two that are the same one: 2 ** levels values in a few hundred bytes of pickle."""
    value: list = [1]
    for _ in range(levels):
        value = [value, value]
    return value


@pytest.mark.parametrize("key", ["split", "ref_id", "image_id", "ann_id", "sentences"])
@pytest.mark.parametrize("value", [doubled(60), {"a": doubled(60)}, 10**6000], ids=["lists", "in a table", "digits"])
def test_an_error_does_not_write_out_what_repeats_itself(key: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"refs\(unc\)\.p: reference \[0\].*'{key}'") as caught:
        broken_refcoco(tmp_path, first(**{key: value}))
    assert len(str(caught.value)) < 400


def test_a_broken_reference_fails_alone(tmp_path: Path) -> None:
    """As a sample of its own, so that a check names every one of them and training leaves them out."""
    mini.refcoco(tmp_path)
    whole = samples(open_dataset("refcoco", tmp_path, "train"))
    rewrite(tmp_path / "refcoco/refs(unc).p", first(sentences=[{"sent": " ", "sent_id": 1}]))
    dataset = open_dataset("refcoco", tmp_path, "train")
    with pytest.raises(BadInput, match=r"reference \[0\]: 'sentences'\[0\]: 'sent' must be text"):
        dataset[0]
    others = [dataset[index] for index in range(1, len(dataset))]
    assert [s.id for s in others] == [s.id for s in whole if s.extra["ref_id"] != whole[0].extra["ref_id"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (first(ann_id=99), r"instances.json: 'annotations' has no id 99"),
        (first(image_id=99), "instances.json: 'images' has no id 99"),
        (first(ann_id=20), "annotation 20 belongs to image 2, reference 0 is about image 1"),
    ],
)
def test_a_reference_to_nothing_fails_alone(change, message: str, tmp_path: Path) -> None:
    mini.refcoco(tmp_path)
    rewrite(tmp_path / "refcoco/refs(unc).p", change)
    dataset = open_dataset("refcoco", tmp_path, "train")
    with pytest.raises(BadInput, match=message):
        dataset[0]
    assert union(dataset[2]).any()
    assert len(dataset) == 6  # what fails still counts


@pytest.mark.parametrize(
    ("ann_id", "message"),
    [([], "must be a list of ids"), (10, "must be a list of ids"), ([10, -1], "none beside some"), ([10, 10], "twice"),
     (["10"], "must be a whole number")],
)  # fmt: skip
def test_bad_lists_of_grefcoco_are_named(ann_id, message: str, tmp_path: Path) -> None:
    mini.grefcoco(tmp_path)
    rewrite(tmp_path / "grefcoco/grefs(unc).json", first(ann_id=ann_id))
    with pytest.raises(BadInput, match=rf"grefs\(unc\)\.json: reference \[0\]: 'ann_id'.*{message}"):
        open_dataset("grefcoco", tmp_path, "train")[0]


def annotations(**changes: object) -> Callable[[dict], dict]:
    return lambda content: content | {"annotations": [content["annotations"][0] | changes, *content["annotations"][1:]]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {}, "nothing under 'images' and 'annotations'"),
        (lambda c: c | {"annotations": []}, "nothing under 'annotations'"),
        (lambda c: [c], "an object {...} was expected"),
        (lambda c: c | {"images": ["a"]}, r"'images'\[0\] must be an object with keys"),
        (lambda c: c | {"images": c["images"] * 2}, r"'images'\[5\]: image id 1 occurs more than once"),
        (lambda c: c | {"annotations": c["annotations"] * 2}, "annotation id 10 occurs more than once"),
        (lambda c: c | {"images": [c["images"][0] | {"height": 0}]}, r"'images'\[0\]: 'height' must be a whole number"),
        (lambda c: c | {"images": [c["images"][0] | {"width": 10**9, "height": 10**9}]}, "pixels are more than"),
        (lambda c: c | {"images": [c["images"][0] | {"file_name": "/etc/passwd"}]}, "within the images' folder"),
        (lambda c: c | {"images": [c["images"][0] | {"file_name": "../x.jpg"}]}, "within the images' folder"),
        (lambda c: c | {"images": [c["images"][0] | {"file_name": 5}]}, "'file_name' must be text"),
        (annotations(id="10"), r"'annotations'\[0\]: 'id' must be a whole number"),
        (annotations(image_id=None), r"'annotations'\[0\]: 'image_id' must be a whole number"),
        (annotations(bbox=[1, 2, 3]), "'bbox' must be"),
        (annotations(bbox=[1, 2, 3, math.nan]), "'bbox' must be"),
    ],
)
def test_bad_instances_are_named(change, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"instances.json.*{message}"):
        broken_refcoco(tmp_path, change, "instances.json")


def test_a_broken_polygon_names_file_and_annotation(tmp_path: Path) -> None:
    found = broken_refcoco(tmp_path, annotations(segmentation=[[1.0, math.nan, 3.0, 4.0, 5.0, 6.0]]), "instances.json")
    with pytest.raises(BadInput, match=r"instances.json: annotation 10: 'segmentation'\[0\] holds a coordinate"):
        found[0].truth(0)


@pytest.mark.parametrize("end", [0, 1, 40, 400, -1, -30])
def test_a_cut_off_index_says_so(end: int, tmp_path: Path) -> None:
    mini.refcoco(tmp_path)
    path = tmp_path / "refcoco/instances.json"
    path.write_text(path.read_text()[:end])
    with pytest.raises(BadInput, match="instances.json is (cut off|empty)"):
        open_dataset("refcoco", tmp_path, "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [{"id": 1 "a": 2}]}', "is no JSON: .* in line 1"),
        (b'{"info": [1,]}', "is no JSON"),
        (b'{"images" [1]}', "is no JSON: ':' was expected"),
        (b"{5: 1}", "is no JSON: a key in quotes"),
        (b'{"a": "\xff"}', "is no utf-8 text: byte 7 is 0xff"),
        (b'{"a": ' + b"9" * 6000 + b"}", "is no usable JSON"),
        (b'{"a": ' + b"[" * 200_000, "is no usable JSON"),
    ],
)
def test_what_is_no_json_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    mini.refcoco(tmp_path)
    (tmp_path / "refcoco/instances.json").write_bytes(content)
    with pytest.raises(BadInput, match=f"instances.json {message}"):
        open_dataset("refcoco", tmp_path, "train")
    mini.grefcoco(tmp_path)
    (tmp_path / "grefcoco/grefs(unc).json").write_bytes(content)
    with pytest.raises(BadInput, match=r"grefs\(unc\)\.json is no"):
        open_dataset("grefcoco", tmp_path, "train")


def test_an_image_of_another_size_than_its_annotations_is_named(tmp_path: Path) -> None:
    mini.refcoco(tmp_path)
    sample = open_dataset("refcoco", tmp_path, "train")[0]
    Image.new("RGB", (60, 48)).save(tmp_path / mini.MSCOCO / f"{sample.footage.name}.jpg")
    with pytest.raises(BadInput, match=r"1\.jpg is 60 x 48, but .*instances.json says 64 x 48 for image 1"):
        sample.truth(0)


def test_missing_and_broken_images_are_named(tmp_path: Path) -> None:
    mini.refcoco(tmp_path)
    sample = open_dataset("refcoco", tmp_path, "train")[0]
    path = tmp_path / mini.MSCOCO / f"{sample.footage.name}.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=f"{path} cannot be decoded; it is damaged or cut off"):
        sample.footage.read(0)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(BadInput, match=f"{path} cannot be opened as an image"):
        sample.footage.read(0)
    assert sample.footage.missing() == []
    path.unlink()
    assert sample.footage.missing() == [str(path)]
    for call in (sample.footage.read, sample.truth):
        with pytest.raises(BadInput, match=f"{path} is missing"):
            call(0)
    os.symlink(path, path)
    assert sample.footage.missing() == [str(path)]
    with pytest.raises(BadInput, match=f"{path} cannot be opened"):
        sample.footage.read(0)


def test_a_set_without_its_images_says_where_it_looked(tmp_path: Path) -> None:
    mini.refcoco(tmp_path)
    (tmp_path / "images").rename(tmp_path / "pictures")
    with pytest.raises(BadInput, match="no folder of the images; looked for images/mscoco/images/train2014, "):
        open_dataset("refcoco", tmp_path, "train")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_kind_of_8_bit_image_becomes_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{'jpg' if mode == 'CMYK' else 'png'}"
    Image.new("RGB", (20, 10), (255, 255, 255)).convert(mode).save(path)
    image = image_files.read_rgb(path)
    assert image.shape == (10, 20, 3)
    assert image.min() > 250


def test_exif_turns_no_image_and_16_bits_are_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert image_files.read_rgb(tmp_path / "a.jpg").shape == (10, 20, 3)
    assert image_files.image_size(tmp_path / "a.jpg") == (10, 20)
    Image.fromarray(np.zeros((10, 20), np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(BadInput, match="b.png has pixels of kind I;16"):
        image_files.read_rgb(tmp_path / "b.png")


def test_label_images_give_indices_and_never_colours(tmp_path: Path) -> None:
    labels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    image = Image.fromarray(labels).convert("P")
    image.putdata(labels.ravel().tolist())
    image.putpalette([9, 9, 9] * 256)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(image_files.read_labels(tmp_path / "a.png"), labels)
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    with pytest.raises(BadInput, match="b.png is a RGB image; a label image has one channel"):
        image_files.read_labels(tmp_path / "b.png")


def test_a_footage_without_files_is_refused() -> None:
    with pytest.raises(BadInput, match="'v' has 2 frame names and 1 files"):
        image_files.ImageFiles("v", ("0", "1"), (Path("0.jpg"),))
    with pytest.raises(BadInput, match="'v' has 0 frame names and 0 files"):
        image_files.ImageFiles("v", (), ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: [c], "must hold an object with 'shapes' and 'text'"),
        (lambda c: c | {"text": []}, "'text' must be a list of at least one text"),
        (lambda c: c | {"text": "where?"}, "'text' must be a list"),
        (lambda c: c | {"text": [" "]}, "'text' must be a list"),
        (lambda c: c | {"is_sentence": 1}, "'is_sentence' must be true or false; got 1"),
        (lambda c: c | {"shapes": None}, "'shapes' must be a list"),
        (lambda c: c | {"shapes": [{"points": []}]}, r"'shapes'\[0\]: 'label' must be text"),
        (lambda c: c | {"shapes": ["target"]}, r"'shapes'\[0\]: 'label' must be text"),
        (lambda c: c | {"shapes": [{"label": "target", "points": []}]}, r"'shapes'\[0\]: 'points' must be a list"),
        (lambda c: c | {"shapes": [{"label": "target", "points": [[1, 2, 3]]}]}, "'points' must be a list"),
        (lambda c: c | {"shapes": [{"label": "target", "points": [[1, math.nan]]}]}, "'points' must be a list"),
        (lambda c: c | {"shapes": [{"label": "target", "points": [[1, 1e12]]}]}, "'points' must be a list"),
        (lambda c: c | {"shapes": [{"label": "target", "points": [["a", 2]]}]}, "'points' must hold numbers"),
        (lambda c: c | {"shapes": [{"label": "target", "points": [[1], [1, 2]]}]}, "'points' must hold numbers"),
        (lambda c: c | {"shapes": [{"label": "target", "points": [[1, 2], [9000, 3]]}]}, "far outside 0.*64 x 48"),
    ],
)  # fmt: skip
def test_bad_annotations_of_reasonseg_are_named(change, message: str, tmp_path: Path) -> None:
    mini.reason_seg(tmp_path, {"val": 1})
    rewrite(next((tmp_path / "ReasonSeg/val").glob("*.json")), change)
    with pytest.raises(BadInput, match=rf"00000001_val.json.*{message}"):
        open_dataset("reasonseg", tmp_path, "val")[0].truth(0)


def test_halves_of_pairs_of_reasonseg_are_noticed(tmp_path: Path) -> None:
    mini.reason_seg(tmp_path, {"val": 2})
    folder = tmp_path / "ReasonSeg/val"
    (folder / "00000001_val.json").unlink()
    (folder / "00000002_val.jpg").unlink()
    dataset = open_dataset("reasonseg", tmp_path, "val")
    with pytest.raises(BadInput, match="00000001_val.json is missing"):
        dataset[0]
    assert dataset[1].footage.missing() == [str(folder / "00000002_val.jpg")]
    (folder / "00000002_val.json").write_bytes(b'{"text": ["\x81"]}')  # neither UTF-8 nor cp1252
    with pytest.raises(BadInput, match="00000002_val.json is no utf-8 or cp1252 text: byte 11 is 0x81"):
        dataset[1]
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(BadInput, match="val holds neither .jpg nor .json"):
        open_dataset("reasonseg", tmp_path, "val")


def test_bad_explanations_of_reasonseg_are_named(tmp_path: Path) -> None:
    mini.reason_seg(tmp_path)
    path = tmp_path / "ReasonSeg/explanatory/train.json"
    rewrite(path, lambda rows: [{"image": "a.jpg"}])
    with pytest.raises(BadInput, match=r"train.json: \[0\] must have 'image', 'query' and 'outputs'"):
        open_dataset("reasonseg", tmp_path, "train")
    path.unlink()
    assert "explanation" not in open_dataset("reasonseg", tmp_path, "train")[0].extra


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c | {"categories": []}, "nothing under 'categories'"),
        (lambda c: c | {"categories": c["categories"][1:]}, "'categories' has no id 1, which an annotation uses"),
    ],
)
def test_classes_without_names_are_refused(change, message: str, tmp_path: Path) -> None:
    mini.coco_semantic(tmp_path)
    rewrite(tmp_path / "annotations/instances_val2017.json", change)
    with pytest.raises(BadInput, match=f"instances_val2017.json.*{message}"):
        open_dataset("coco-semantic", tmp_path, "val")


def test_a_part_of_a_set_is_enough_where_it_is_named_and_is_told_as_what_it_may_be(tmp_path: Path) -> None:
    miniature_videos.ref_youtube_vos(tmp_path)
    assert benchmarks.identify(tmp_path) == ["ref-youtube-vos"]
    shutil.rmtree(tmp_path / "meta_expressions/test")
    assert len(open_dataset("ref-youtube-vos", tmp_path, "train")) > 0
    assert benchmarks.identify(tmp_path)[:2] == ["ref-youtube-vos", "ref-davis17"]
    with pytest.raises(BadInput, match="holds no mevis .* belongs to: ref-youtube-vos, ref-davis17"):
        open_dataset("mevis", tmp_path, "train")
