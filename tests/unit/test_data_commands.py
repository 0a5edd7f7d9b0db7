"""``instructseg data``: what check says of whole and of broken sets, the list, and pictures that show their masks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from unit import miniature_data as mini
from unit import miniature_videos

from instructseg import cli
from instructseg.data.benchmarks import benchmark, benchmarks, open_dataset
from instructseg.data.checking import KEPT, SplitReport, check_split
from instructseg.rendering.samples import draw_sample


def run(*words: object) -> int:
    return cli.main(["data", *map(str, words)])


def test_a_whole_set_is_well_and_what_is_not_there_is_said(tmp_path: Path, capsys) -> None:
    mini.coco_semantic(tmp_path)
    out = tmp_path / "report.json"
    assert run("check", tmp_path, "--images", "--out", out) == 0
    said = capsys.readouterr().out
    assert "  train: expressions 5, images 2; well\n" in said
    assert "  train2014: not on this disk\n" in said
    assert said.endswith("all is well\n")
    splits = json.loads(out.read_text())["splits"]
    assert [(s["split"], s["on_disk"], s["found"].get("images")) for s in splits] == [
        ("train", True, 2), ("val", True, 1), ("train2014", False, None), ("val2014", False, None),
    ]  # fmt: skip


def test_numbers_that_differ_from_the_published_are_problems(tmp_path: Path, capsys) -> None:
    mini.grefcoco(tmp_path)
    assert run("check", tmp_path, "--split", "val") == 1
    said = capsys.readouterr().out
    assert "  val: expressions 3, images 1 of 1500 published, references 3, without target 1; 1 problem\n" in said
    assert said.endswith("1 problem\n")


def test_as_many_as_published_is_said(tmp_path: Path, capsys) -> None:
    mini.reason_seg(tmp_path, {"val": 200})
    assert run("check", tmp_path, "--split", "val") == 0
    assert "val: expressions 200, images 200 as published; well" in capsys.readouterr().out


def test_every_fault_is_counted_under_its_name(tmp_path: Path, capsys) -> None:
    mini.coco_semantic(tmp_path, {"val": 6})
    folder, index = tmp_path / "val2017", tmp_path / "annotations/instances_val2017.json"
    names = sorted(path.name for path in folder.iterdir())
    (folder / names[0]).unlink()
    (folder / names[1]).write_bytes((folder / names[1]).read_bytes()[:-200])
    Image.new("RGB", (50, 50)).save(folder / names[2])
    content = json.loads(index.read_text())
    for annotation in content["annotations"]:
        if annotation["id"] == 40:
            annotation["segmentation"] = [[1.0, 2.0]]
        if annotation["id"] == 50:
            annotation["segmentation"] = {"size": [48, 64], "counts": [48 * 64]}
    index.write_text(json.dumps(content))
    assert run("check", tmp_path, "--images", "--all") == 1
    said = capsys.readouterr().out
    assert f"{folder / names[0]} is missing" in said
    assert f"{folder / names[1]} cannot be decoded" in said
    assert f"{folder / names[2]} is 50 x 50, but {index} says 64 x 48" in said
    assert f"{index}: annotation 40: 'segmentation'[0] must list x, y" in said
    assert "5/1: the object 'box' has no pixel on any frame" in said
    report = check_split(benchmark("coco-semantic"), tmp_path, "val", images=True)
    assert report.problem_count == len(report.problems) == 1 + 1 + 3 + 1 + 1


def test_without_images_only_their_presence_is_looked_at(tmp_path: Path) -> None:
    mini.coco_semantic(tmp_path)
    for path in (tmp_path / "val2017").iterdir():
        path.write_bytes(b"")
    assert check_split(benchmark("coco-semantic"), tmp_path, "val").problem_count == 0
    assert check_split(benchmark("coco-semantic"), tmp_path, "val", images=True).problem_count > 0


def test_ids_that_occur_twice_are_counted(tmp_path: Path) -> None:
    mini.grefcoco(tmp_path)
    path = tmp_path / "grefcoco/grefs(unc).json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([*rows, rows[0]]))
    report = check_split(benchmark("grefcoco"), tmp_path, "train")
    assert report.problems == ["the sample id '0/0' occurs more than once"]


def test_a_split_that_cannot_be_opened_is_a_problem_by_name(tmp_path: Path, capsys) -> None:
    mini.refcoco(tmp_path)
    (tmp_path / "refcoco/refs(unc).p").write_bytes(b"\x80\x02]q")
    assert run("check", tmp_path) == 1
    assert "refs(unc).p is no pickle or is cut off" in capsys.readouterr().out


def test_a_split_that_was_asked_for_and_is_not_there_is_a_problem(tmp_path: Path, capsys) -> None:
    mini.coco_semantic(tmp_path)
    assert run("check", tmp_path, "--split", "val2014") == 1
    assert "val2014: not on this disk" in capsys.readouterr().out


def test_many_problems_are_counted_and_few_are_printed(tmp_path: Path, capsys) -> None:
    mini.reason_seg(tmp_path, {"test": 30})
    for path in (tmp_path / "ReasonSeg/test").glob("*.jpg"):
        path.unlink()
    assert run("check", tmp_path, "--split", "test") == 1
    said = capsys.readouterr().out
    assert said.count(".jpg is missing") == 10
    assert "... and 20 more" in said
    report = SplitReport("a", "b")
    for number in range(KEPT + 5):
        report.add(str(number))
    assert (len(report.problems), report.problem_count) == (KEPT, KEPT + 5)


def test_several_sets_in_one_folder_are_all_found(tmp_path: Path, capsys) -> None:
    mini.reason_seg(tmp_path / "a")
    mini.refcoco(tmp_path / "b")
    assert run("check", tmp_path) == 1
    said = capsys.readouterr().out
    assert f"reasonseg: {benchmark('reasonseg').title}\n  {tmp_path / 'a'}\n" in said
    assert f"\n  {tmp_path / 'b'}\n" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check", "{}/nowhere"), "nowhere does not exist"),
        (("check", "{}/empty"), "empty holds no known benchmark"),
        (("check", "{}", "--benchmark", "revos"), "holds no revos .*belongs to: coco-semantic"),
        (("check", "{}", "--benchmark", "coco"), "unknown benchmark 'coco'"),
        (("check", "{}", "--split", "testA"), "no split 'testA'; splits are coco-semantic: train, val"),
        (("check", "{}", "--out", "{}/none/report.json"), "must be a file in a folder that exists"),
        (("check", "{}", "--out", "{}"), "must be a file in a folder that exists"),
        (("preview", "coco-semantic", "{}", "--out", "{}/file"), "file is a file; give a folder"),
        (("preview", "coco-semantic", "{}", "--out", "{}/p", "--split", "x"), "has no split 'x'"),
        (("preview", "mevis", "{}", "--out", "{}/p"), "holds no mevis"),
    ],
)
def test_a_wrong_call_ends_with_two(words, message: str, tmp_path: Path, capsys) -> None:
    mini.coco_semantic(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    assert run(*(word.format(tmp_path) for word in words)) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "instructseg data: error: " in said
    assert re.search(message, said)


def test_the_list_names_every_benchmark_its_licence_and_source(capsys) -> None:
    assert run("list") == 0
    said = capsys.readouterr().out
    for row in benchmarks().values():
        assert f"{row.name}: {row.title}\n" in said
        assert f"  licence: {row.licence}\n  from: {row.where}\n" in said


def test_pictures_show_the_masks(tmp_path: Path, capsys) -> None:
    scenes = mini.reason_seg(tmp_path / "data", {"val": 2})
    assert run("preview", "reasonseg", tmp_path / "data", "--out", tmp_path / "p", "--count", 5) == 0
    files = sorted((tmp_path / "p").iterdir())
    assert [path.name for path in files] == ["reasonseg_val_000000.png", "reasonseg_val_000001.png"]
    assert f"{files[0]}: what could a ruler" in capsys.readouterr().out
    picture = cv2.cvtColor(cv2.imread(str(files[0])), cv2.COLOR_BGR2RGB).astype(int)
    scene = scenes["00000001_val"]
    tile = cv2.resize(picture[:240, :320].astype(np.uint8), (64, 48), interpolation=cv2.INTER_NEAREST).astype(int)
    changed = np.abs(tile - scene.image).sum(-1) > 40
    shown = scene.masks["green"] | scene.masks["red"]
    assert not changed[~shown].any()
    assert changed[scene.masks["green"]].all()
    assert 0.2 < changed[scene.masks["red"]].mean() < 0.8  # striped
    assert picture[240:].any()  # words


def test_a_broken_sample_is_named_and_the_others_are_drawn(tmp_path: Path, capsys) -> None:
    mini.reason_seg(tmp_path / "data", {"val": 3})
    (tmp_path / "data/ReasonSeg/val/00000002_val.jpg").unlink()
    assert run("preview", "reasonseg", tmp_path / "data", "--out", tmp_path / "p") == 1
    assert len(list((tmp_path / "p").iterdir())) == 2
    assert "sample 1: " in capsys.readouterr().err


def test_videos_are_drawn_as_four_frames_and_checked_too(tmp_path: Path) -> None:
    miniature_videos.ref_youtube_vos(tmp_path)
    dataset = open_dataset("ref-youtube-vos", tmp_path, "train")
    picture = draw_sample(dataset[0])
    assert picture.shape[1] == 4 * 320
    assert picture.dtype == np.uint8
    report = check_split(benchmark("ref-youtube-vos"), tmp_path, "train", images=True)
    assert report.problems == []
    assert report.found["videos"] == 2


def test_a_report_tells_which_numbers_differ(tmp_path: Path) -> None:
    mini.refcoco(tmp_path)
    report = check_split(benchmark("refcoco"), tmp_path, "val")
    assert report.differing == ["references", "images", "expressions"]
    assert report.to_dict()["problem_count"] == 3
    assert report.problems == []
