"""``instructseg eval BENCHMARK`` from end to end on miniature sets: figures that can be worked out by hand."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco
from unit import miniature_data, miniature_videos
from unit.fake_tracker import FakeTracker
from unit.known_answers import BLUE, GREEN, RED, KnownSegmenter, exact_images, exact_videos, with_known_recipe

from instructseg import cli
from instructseg.core import BadInput, Segmenter
from instructseg.registry import RECIPES
from instructseg.tracking.following import FollowingSegmenter

# Pixels of the things in miniature images; the green bar is the target of ReasonSeg, the red square is ignored there.
RED_AREA, BLUE_AREA, GREEN_AREA = 16 * 16, (8 + 10) * 14, 52 * 8


@pytest.fixture(autouse=True)
def known_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instructseg.registry.RECIPES", dict(RECIPES))
    with_known_recipe()


def run(root: Path, name: str, split: str, *words: object, segmenter: Segmenter | None = None) -> tuple[int, dict]:
    """Exit code, and what scores.json says."""
    out = root.parent / "out"
    given = ["eval", name, "--root", root, "--split", split, "--recipe", "known", "--out", out, *words]
    arguments = cli.build_parser().parse_args([str(word) for word in given])
    code = arguments.run(arguments, segmenter)
    path = out / "scores.json"
    return code, json.loads(path.read_text()) if path.exists() else {}


def close(row: dict[str, Any], **figures: float) -> None:
    names = {"J_F": "J&F", "N_acc": "N-acc", "T_acc": "T-acc", "box": "box P@0.5", "P": "P@0.5"}
    given = {name: row[names.get(name, name)] for name in figures}
    assert given == pytest.approx(figures, abs=1e-4)


# Image sets


def test_refcoco(tmp_path: Path) -> None:
    """Two of three right, the third points at another thing: no pixel in common."""
    root = exact_images(tmp_path / "data", miniature_data.refcoco(tmp_path / "data"))
    code, scores = run(root, "refcoco", "val", segmenter=KnownSegmenter({"two blue parts": (RED,)}))
    assert (code, scores["samples"], scores["headline"]) == (0, 3, "cIoU")
    ciou = 2 * RED_AREA / (2 * RED_AREA + RED_AREA + BLUE_AREA)
    close(scores["table"]["overall"], gIoU=2 / 3, cIoU=ciou, P=2 / 3, box=2 / 3)


def test_grefcoco(tmp_path: Path) -> None:
    """The absent thing is found: a false alarm whose area enters cIoU's union."""
    root = exact_images(tmp_path / "data", miniature_data.grefcoco(tmp_path / "data"))
    code, scores = run(root, "grefcoco", "val", segmenter=KnownSegmenter({"a zebra": (GREEN,)}))
    both = RED_AREA + BLUE_AREA
    ciou = (RED_AREA + both) / (RED_AREA + both + GREEN_AREA)
    close(scores["table"]["overall"], gIoU=2 / 3, cIoU=ciou, N_acc=0.0, T_acc=1.0)
    assert code == 0


def test_grefcoco_when_what_is_there_is_refused(tmp_path: Path) -> None:
    root = exact_images(tmp_path / "data", miniature_data.grefcoco(tmp_path / "data"))
    _, scores = run(root, "grefcoco", "val", segmenter=KnownSegmenter({"the red box": ()}))
    ciou = (RED_AREA + BLUE_AREA) / (2 * RED_AREA + BLUE_AREA)
    close(scores["table"]["overall"], gIoU=2 / 3, cIoU=ciou, N_acc=1.0, T_acc=0.5)


def test_reasonseg_with_ignored_pixels_in_all_three_ways(tmp_path: Path) -> None:
    root = exact_images(tmp_path / "data", miniature_data.reason_seg(tmp_path / "data"))
    wrong = KnownSegmenter({"what could a ruler be replaced by?": (GREEN, RED)})  # the sentence
    _, scores = run(root, "reasonseg", "val", segmenter=wrong)
    table = scores["table"]
    larger = GREEN_AREA / (GREEN_AREA + RED_AREA)
    close(table["overall"], gIoU=1.0, cIoU=1.0)
    background, target = "gIoU (ignored as background)", "gIoU (ignored as target)"
    assert table["sentences"][background] == pytest.approx(larger, abs=1e-4)
    assert table["sentences"][target] == pytest.approx(1.0, abs=1e-4)
    assert table["phrases"][background] == pytest.approx(1.0, abs=1e-4)
    assert table["phrases"][target] == pytest.approx(larger, abs=1e-4)


def test_coco_semantic(tmp_path: Path) -> None:
    """The green bar is taken for the box in both images of train."""
    root = exact_images(tmp_path / "data", miniature_data.coco_semantic(tmp_path / "data"))
    _, scores = run(root, "coco-semantic", "train", segmenter=KnownSegmenter({"box top": (RED,)}))
    assert scores["samples"] == 5
    close(scores["table"]["overall"], gIoU=3 / 5, P=3 / 5)


# Video sets


def test_ref_youtube_vos(tmp_path: Path) -> None:
    """One of eight expressions fails: named, zero, not fatal; the exit code tells."""
    root = exact_videos(tmp_path / "data", miniature_videos.ref_youtube_vos(tmp_path / "data"))
    code, scores = run(root, "ref-youtube-vos", "train", segmenter=KnownSegmenter(broken=["Thing 3 on the 2. row"]))
    assert code == 1
    assert scores["failed"] == {
        "0065b171f9/3": "RuntimeError: this text breaks it",
        "01baa5a4e1/3": "RuntimeError: this text breaks it",
    }
    close(scores["table"]["overall"], J=0.75, F=0.75, J_F=0.75)


def test_ref_davis17(tmp_path: Path) -> None:
    """One annotator's first object is refused; annotators are scored apart and averaged."""
    root = exact_videos(tmp_path / "data", miniature_videos.ref_davis17(tmp_path / "data"))
    code, scores = run(root, "ref-davis17", "valid", segmenter=KnownSegmenter({"thing 1 by 3": ()}))
    assert code == 0
    table = scores["table"]
    close(table["overall"], J=0.875, F=0.875, J_F=0.875)
    close(table["annotator 0"], J_F=1.0)
    close(table["annotator 3"], J_F=0.5)


def test_mevis(tmp_path: Path) -> None:
    """Both things in place of the second: half of the area in frames 1 to 3, and no right pixel in the first frame,
    in which the second is not in view."""
    root = exact_videos(tmp_path / "data", miniature_videos.mevis(tmp_path / "data"))
    _, scores = run(root, "mevis", "valid_u", segmenter=KnownSegmenter({"The one that comes later.": (RED, BLUE)}))
    close(scores["table"]["overall"], J=(1.0 + 0.375) / 2)


def test_revos(tmp_path: Path) -> None:
    """One thing of two in the reasoning row; overall is the mean of the two types; R in both forms."""
    root = exact_videos(tmp_path / "data", miniature_videos.revos(tmp_path / "data"))
    wrong = KnownSegmenter({"which things could be moved(s)?": (RED,), "the green cat": (RED,)})
    _, scores = run(root, "revos", "valid", segmenter=wrong)
    table = scores["table"]
    close(table["referring"], J=1.0, F=1.0)
    reasoning = (1.0 + 3 * 0.5) / 4  # the second thing comes into view in frame 1
    close(table["reasoning"], J=reasoning)
    close(table["overall"], J=(1.0 + reasoning) / 2)
    assert table["referring"]["R (corrected)"] == table["referring"]["R (published)"] == pytest.approx(1.0)
    # The red thing where nothing is named: all of what is annotated in frame 0, half of it in the others.
    assert table["no target"]["R (corrected)"] == pytest.approx(3 * 0.5 / 4)
    assert table["no target"]["R (published)"] == 0.0
    area, pixels = 9 * 9, 24 * 32
    assert table["no target"]["A (corrected)"] == pytest.approx(1 - area / pixels)


def test_reasonvos_gives_the_figure_that_skips_what_is_missing_beside_the_right_one(tmp_path: Path) -> None:
    """Of each video's four expressions the two about its second thing are answered with the first one; one that is
    right fails in both videos."""
    root = exact_videos(tmp_path / "data", miniature_videos.reason_vos(tmp_path / "data"))
    code, scores = run(root, "reasonvos", "test", segmenter=KnownSegmenter(broken=["Which thing would you push?"]))
    assert code == 1
    assert len(scores["failed"]) == 4
    row = scores["table"]["overall"]
    close(row, J=2 / 8)
    assert row["J (missing skipped)"] == pytest.approx(2 / 4)
    close(scores["table"]["sentences"], J=0.0)


def test_recordings(tmp_path: Path) -> None:
    """A false alarm lowers N-acc; frames without annotation are not scored. JPEG does not touch a bag's raw images."""
    miniature_videos.recording(tmp_path / "data")
    _, scores = run(tmp_path / "data", "recordings", "val", segmenter=KnownSegmenter({"the green cat": (RED,)}))
    close(scores["table"]["overall"], J=4 / 6, N_acc=0.0, T_acc=1.0)


def test_davis2017_from_first_masks(tmp_path: Path) -> None:
    """A tracker whose mask stands still while things of 9 columns move by 2; the last frame is left out."""
    root = exact_videos(tmp_path / "data", miniature_videos.davis2017(tmp_path / "data"))
    following = FollowingSegmenter(KnownSegmenter(), FakeTracker())
    words = ("--tracker", "memory", "--tracker-checkpoint", "unused")
    code, scores = run(root, "davis2017", "val", *words, segmenter=following)
    assert code == 0
    one, two = 7 / 11, 5 / 13  # shifted by 2 and by 4 columns
    close(scores["table"]["overall"], J=((one + two) / 2 + (1.0 + one) / 2) / 2)


# What else comes out


def test_an_archive_for_a_server(tmp_path: Path, capsys) -> None:
    """Every frame of every expression as 0 and 255; black where the recipe failed, which is said."""
    root = exact_videos(tmp_path / "data", miniature_videos.mevis(tmp_path / "data"))
    archive = tmp_path / "new" / "mevis.zip"
    broken = KnownSegmenter(broken=["The one that comes later."])
    code, scores = run(root, "mevis", "valid", "--archive", archive, segmenter=broken)
    assert (code, scores) == (1, {})
    assert "a99e0d15/1: RuntimeError: this text breaks it" in capsys.readouterr().out
    frames = ("00000", "00005", "00010", "00015")
    with zipfile.ZipFile(archive) as content:
        assert sorted(content.namelist()) == [f"a99e0d15/{e}/{f}.png" for e in "01" for f in frames]
        pictures = [
            [cv2.imdecode(np.frombuffer(content.read(f"a99e0d15/{e}/{f}.png"), np.uint8), -1) for f in frames]
            for e in "01"
        ]
    video = miniature_videos.draw_video("a99e0d15")
    np.testing.assert_array_equal(pictures[0], (video.masks[1] | video.masks[2]) * np.uint8(255))
    assert not np.any(pictures[1])
    assert not list(archive.parent.glob(".*"))


def test_ref_youtube_vos_has_its_archive_in_a_folder_annotations(tmp_path: Path) -> None:
    root = exact_videos(tmp_path / "data", miniature_videos.ref_youtube_vos(tmp_path / "data"))
    archive = tmp_path / "rvos.zip"
    run(root, "ref-youtube-vos", "train", "--archive", archive, segmenter=KnownSegmenter())
    with zipfile.ZipFile(archive) as content:
        assert {name.split("/")[0] for name in content.namelist()} == {"Annotations"}
        assert "Annotations/0065b171f9/0/00000.png" in content.namelist()


def test_an_archive_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    miniature_videos.mevis(tmp_path / "data")
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    words = ["eval", "mevis", "--split", "valid", "--root", str(tmp_path / "data"), "--recipe", "known"]
    assert cli.main([*words, "--out", str(tmp_path / "out"), "--archive", str(archive)]) == 2
    assert f"No space left on device: {archive}" in capsys.readouterr().err
    assert archive.read_bytes() == b"old"
    assert not list(tmp_path.glob(".*"))


def test_coco_results_and_pictures(tmp_path: Path) -> None:
    root = exact_images(tmp_path / "data", miniature_data.grefcoco(tmp_path / "data"))
    rle, pictures = tmp_path / "sub" / "results.json", tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "worst_007.png").write_bytes(b"of an earlier call")
    wrong = KnownSegmenter({"the red box": (BLUE,)})
    run(root, "grefcoco", "val", "--rle", rle, "--pictures", pictures, segmenter=wrong)
    entries = json.loads(rle.read_text())
    assert [entry["refused"] for entry in entries] == [False, False, True]
    assert [coco.area(entry["segmentation"]) > 0 for entry in entries] == [True, True, False]
    assert entries[2]["segmentation"]["size"] == entries[0]["segmentation"]["size"]
    assert {entry["image_id"] for entry in entries} == {3}
    assert [path.name for path in pictures.iterdir()] == ["worst_001.png"]  # what is right has no picture
    assert cv2.imread(str(pictures / "worst_001.png")).shape[1] == 480


def test_published_figures_stand_beside_ours(tmp_path: Path, capsys) -> None:
    from instructseg.evaluation.benchmarks.published import published_figures

    figures = published_figures("videolisa", "reasonseg", "test")
    assert [p.of for p in figures] == ["3.8B"]
    assert figures[0].figures["phrases"] == {"gIoU": 43.8, "cIoU": 42.7}
    assert figures[0].figures["overall"] == {"gIoU": 53.8, "cIoU": 54.4}
    assert published_figures("mllmseg", "refcoco", "val")[0].figures["overall"] == {"cIoU": 81.0, "box P@0.5": 93.5}
    assert published_figures("unified", "refcoco", "val") == []


def test_a_video_without_usable_frames_loses_all_of_its_expressions(tmp_path: Path) -> None:
    root = exact_videos(tmp_path / "data", miniature_videos.ref_youtube_vos(tmp_path / "data"))
    index = root / "meta_expressions" / "train" / "meta_expressions.json"
    content = json.loads(index.read_text())
    content["videos"]["01baa5a4e1"]["frames"] = "00000"
    index.write_text(json.dumps(content))
    code, scores = run(root, "ref-youtube-vos", "train", segmenter=KnownSegmenter())
    assert (code, scores["samples"], len(scores["failed"])) == (1, 8, 4)
    close(scores["table"]["overall"], J=0.5)


def test_a_part_of_a_split_is_marked_where_its_figures_stand(tmp_path: Path, capsys) -> None:
    root = exact_videos(tmp_path / "data", miniature_videos.ref_youtube_vos(tmp_path / "data"))
    words = ("--limit", "1", "--archive", tmp_path / "a.zip")
    _, scores = run(root, "ref-youtube-vos", "train", *words, segmenter=KnownSegmenter())
    assert (scores["samples"], scores["samples_of_split"]) == (4, 8)
    printed = capsys.readouterr().out
    assert "the first 4 of 8 samples\n" in printed
    assert "figure  ours, the first 4 of 8  95 %\n" in printed
    assert "a.zip, 4 expressions, the first of 8: the server wants all of them\n" in printed


def test_scoring_alone_says_what_the_run_was_asked_with(tmp_path: Path, capsys) -> None:
    """Whatever stands in the call that scores."""
    root = exact_videos(tmp_path / "data", miniature_videos.mevis(tmp_path / "data"))
    given = ("--recipe", "videolisa", "--option", "template=chat", "--option", "dense_frames=2")
    run(root, "mevis", "valid_u", *given, segmenter=KnownSegmenter())
    asked = capsys.readouterr().out.splitlines()
    run(root, "mevis", "valid_u", "--recipe", "videolisa", "--score")
    scored = capsys.readouterr().out.splitlines()
    assert "  not as published: option template is the user's own: chat" in scored
    assert "  not as published: option dense_frames is the user's own: 2" in scored
    assert asked == scored


def test_answers_of_weights_that_were_written_anew_are_not_scored(tmp_path: Path) -> None:
    root = exact_videos(tmp_path / "data", miniature_videos.mevis(tmp_path / "data"))
    weights = tmp_path / "trained" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"first")
    words = ("--checkpoint", weights.parent)
    assert run(root, "mevis", "valid_u", *words, segmenter=KnownSegmenter())[0] == 0
    assert run(root, "mevis", "valid_u", *words, segmenter=KnownSegmenter())[0] == 0
    later = (tmp_path / "out" / "predictions-0-of-1.jsonl").stat().st_mtime_ns + 1_000_000
    os.utime(weights, ns=(later, later))
    with pytest.raises(BadInput, match="was written after the answers in"):
        run(root, "mevis", "valid_u", *words, segmenter=KnownSegmenter())
    assert run(root, "mevis", "valid_u", *words, "--score")[0] == 0


def test_weights_of_the_package_are_held_against_old_answers_too(tmp_path: Path) -> None:
    root = exact_videos(tmp_path / "data", miniature_videos.mevis(tmp_path / "data"))
    words = ("--recipe", "unified")
    assert run(root, "mevis", "valid_u", *words, segmenter=KnownSegmenter())[0] == 0
    os.utime(tmp_path / "out" / "predictions-0-of-1.jsonl", (1, 1))
    with pytest.raises(BadInput, match=r"unified/weights was written after the answers in"):
        run(root, "mevis", "valid_u", *words, segmenter=KnownSegmenter())


# Streaming


def test_streaming_charges_latency(tmp_path: Path, capsys) -> None:
    """Ten frames a second: an answer within a frame loses nothing; one that takes longer loses frames."""
    root = exact_videos(tmp_path / "data", miniature_videos.mevis(tmp_path / "data"))
    words = ("--protocol", "streaming", "--step-ms", "0", "--ground-ms")
    quick = run(root, "mevis", "valid_u", *words, "10", "--out", tmp_path / "quick", segmenter=KnownSegmenter())
    assert quick[0] == 0
    slow = run(root, "mevis", "valid_u", *words, "250", "--out", tmp_path / "slow", segmenter=KnownSegmenter())
    assert slow[0] == 0
    quick, slow = (json.loads((tmp_path / name / "scores.json").read_text()) for name in ("quick", "slow"))
    assert "latency charged" in capsys.readouterr().out
    assert slow["streaming"]["first_mask_s"] > quick["streaming"]["first_mask_s"]
    assert slow["table"]["overall"]["J"] < quick["table"]["overall"]["J"]


# Refusals before anything is loaded


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["mevis", "--split", "valid"], "the truth of mevis valid is on its owners' server: add --archive FILE.zip"),
        (["mevis", "--split", "valid_u", "--archive", "a.tar"], "must be a file whose name ends in .zip"),
        (["revos", "--archive", "a.zip"], "--archive is for the servers of mevis and ref-youtube-vos"),
        (["revos"], "what is there belongs to: mevis"),
        (["refcoco", "--protocol", "streaming"], "refcoco is a set of single images, in which no time passes"),
        (["davis2017"], "add --tracker memory"),
        (["youtube-vos", "--split", "valid"], "its masks can be had with --rle FILE.json"),
        (["mevis", "--split", "valid_u", "--step-ms", "5"], "add --protocol streaming"),
        (["mevis", "--split", "valid_u", "--shard", "2/2"], "--shard must be I/N"),
        (["mevis", "--split", "valid_u", "--shard", "two"], "--shard must be I/N"),
        (["mevis", "--split", "valid_u", "--score"], "holds no predictions"),
        (["mevis", "--split", "valid_u", "--score", "--shard", "0/2"], "leave out --shard 0/2"),
        (["mevis", "--split", "valid", "--archive", "a.zip", "--pictures", "p"], "no public truth to tell which"),
        (["mevis", "--split", "valid_u", "--recipe", "nobody"], "unknown recipe 'nobody'"),
    ],
)
def test_calls_that_cannot_be_answered(tmp_path: Path, capsys, words: list[str], what: str) -> None:
    miniature_videos.mevis(tmp_path / "data")
    name, *others = words
    given = ["eval", name, "--root", str(tmp_path / "data"), "--recipe", "known", "--out", str(tmp_path / "out")]
    assert cli.main([*given, *others]) == 2
    error = capsys.readouterr().err
    assert what in error
    assert len(error.splitlines()) == 1


def test_a_call_with_a_wrong_checkpoint_leaves_nothing_behind(tmp_path: Path, capsys) -> None:
    miniature_videos.mevis(tmp_path / "data")
    out = tmp_path / "out"
    given = ["eval", "mevis", "--root", tmp_path / "data", "--split", "valid_u", "--recipe", "gsva", "--out", out]
    assert cli.main([str(word) for word in given]) == 2
    assert "recipe 'gsva' ships no weights" in capsys.readouterr().err
    assert not out.exists()
