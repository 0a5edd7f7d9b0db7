"""``instructseg segment`` on colours: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from unit.fakes import ColourSegmenter, colour_frame

from instructseg import cli
from instructseg.commands.frame_sources import natural_order, open_source
from instructseg.commands.segment import make_instructions, split_inputs
from instructseg.core import BadInput, Segmenter

MILLISECOND = Fraction(1, 1000)
TIMES_MS = (0, 100, 250, 300, 420, 500)  # of a camera that is not regular


def write_image(path: Path, *colours: str, size: tuple[int, int] = (48, 64)) -> Path:
    image = colour_frame(0.0, *colours, size=size).image
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return path


def write_video(path: Path, *colours: str) -> Path:
    """Lossless, so that the fake finds its pure colours; with presentation times of its own."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=1000, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        stream.codec_context.time_base = MILLISECOND
        for time in TIMES_MS:
            frame = av.VideoFrame.from_ndarray(colour_frame(0.0, *colours).image, format="rgb24")
            frame.pts, frame.time_base = time, MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def segment(*words: object, segmenter: Segmenter | None = None) -> int:
    arguments = cli.build_parser().parse_args(["segment", *map(str, words)])
    return arguments.run(arguments, segmenter or ColourSegmenter())


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def read_mask(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_a_video_gives_masks_overlay_and_results(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    video, out = write_video(tmp_path / "in.mkv", "red", "blue"), tmp_path / "out"
    assert segment(video, "the red square", "--instruction", "the green one", "--out", out) == 0
    report = results(out)
    assert [round(f["stamp_ns"] / 1e6) for f in report["frames"]] == list(TIMES_MS)
    assert (report["width"], report["height"]) == (64, 48)
    red, green = report["instructions"]
    assert (red["verdict"], red["frames_present"], red["first_present_frame"]) == ("PRESENT", 6, 0)
    assert (green["verdict"], green["frames_present"], green["first_present_frame"]) == ("NO_TARGET", 0, None)
    there, absent = report["frames"][3]["targets"]
    assert (there["state"], there["box"], there["area"]) == ("PRESENT", [4, 8, 8, 8], 64)
    assert (absent["state"], absent["box"], absent["area"], absent["instance_id"]) == ("NO_TARGET", None, 0, 0)
    for record in report["frames"]:
        mask = read_mask(out / record["mask"])
        assert mask.dtype == np.uint16
        assert set(np.unique(mask)) == {0, there["instance_id"]}
        assert (mask[8:16, 4:12] == there["instance_id"]).all()
    with av.open(str(out / "overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 64, 48)
        times = [round(frame.time * 1000) for frame in container.decode(stream)]
    assert times == list(TIMES_MS)
    said = capsys.readouterr().out
    assert '"the red square": PRESENT in 6 of 6 frames, first in frame 0 at 0.00 s' in said
    assert '"the green one": NO_TARGET (rejection score 0.95)' in said


def test_one_image_gives_one_picture_and_a_refusal_is_an_answer(tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert segment(write_image(tmp_path / "a.png", "red"), "the blue square", "--out", out) == 0
    assert sorted(p.name for p in out.iterdir()) == ["masks", "overlay.png", "results.json"]
    assert not read_mask(out / "masks" / "000000.png").any()
    assert results(out)["instructions"][0]["verdict"] == "NO_TARGET"
    assert "NO_TARGET" in capsys.readouterr().out


def test_a_folder_is_a_sequence_in_natural_order_at_the_given_rate(tmp_path: Path) -> None:
    folder, out = tmp_path / "frames", tmp_path / "out"
    folder.mkdir()
    for number in (10, 9, 1, 2):
        write_image(folder / f"frame{number}.png", *(["red"] if number > 2 else []), size=(49, 65))
    (folder / "notes.txt").write_text("not a frame")
    assert segment(folder, "red", "--out", out, "--rate", "5") == 0
    report = results(out)
    assert [f["file"] for f in report["frames"]] == ["frame1.png", "frame2.png", "frame9.png", "frame10.png"]
    assert [f["stamp_ns"] for f in report["frames"]] == [0, 200_000_000, 400_000_000, 600_000_000]
    states = [f["targets"][0]["state"] for f in report["frames"]]
    assert states[:2] == ["NO_TARGET", "NO_TARGET"]
    assert states[-1] == "PRESENT"  # asked again every half second
    assert report["instructions"][0]["first_present_s"] == 0.6
    with av.open(str(out / "overlay.mp4")) as container:  # odd sizes are padded, 4:2:0 needs even ones
        assert (container.streams.video[0].width, container.streams.video[0].height) == (66, 50)


def test_every_second_frame_keeps_its_number_and_its_time(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert segment(write_video(tmp_path / "in.mkv", "red"), "red", "--out", out, "--every", "2", "--no-overlay") == 0
    assert [f["frame"] for f in results(out)["frames"]] == [0, 2, 4]
    assert [round(f["stamp_ns"] / 1e6) for f in results(out)["frames"]] == [0, 250, 420]
    assert not (out / "overlay.mp4").exists()


def test_a_second_run_leaves_no_mask_of_the_first(tmp_path: Path) -> None:
    out = tmp_path / "out"
    segment(write_video(tmp_path / "in.mkv", "red"), "red", "--out", out)
    (out / "masks" / "mine.png").write_bytes(b"kept")
    segment(write_image(tmp_path / "a.png", "red"), "red", "--out", out)
    assert sorted(p.name for p in (out / "masks").iterdir()) == ["000000.png", "mine.png"]
    assert not (out / "overlay.mp4").exists()


def test_words_may_come_before_and_after_options(tmp_path: Path, capsys) -> None:
    image = write_image(tmp_path / "a.png", "red")
    parser = cli.build_parser()
    arguments, rest = parser.parse_known_args(["segment", str(image), "--out", str(tmp_path / "o"), "the red one"])
    assert [*arguments.inputs, *rest] == [str(image), "the red one"]
    # main() joins them; the missing weights are its next step, so the words were understood.
    words = [
        "segment",
        str(image),
        "--out",
        str(tmp_path / "o"),
        "the red one",
        "--checkpoint",
        str(tmp_path / "none/x"),
    ]
    assert cli.main(words) == 2


@pytest.mark.parametrize(
    ("words", "more", "paths", "texts"),
    [
        (["a.mp4", "the mug"], [], ["a.mp4"], ["the mug"]),
        (["a.png", "b.png", "the mug"], ["the bowl"], ["a.png", "b.png"], ["the mug", "the bowl"]),
        (["a.mp4"], ["the mug"], ["a.mp4"], ["the mug"]),
    ],
)
def test_the_last_word_is_the_instruction(words, more, paths, texts) -> None:
    assert split_inputs(words, more) == ([Path(p) for p in paths], texts)


def test_an_instruction_longer_than_a_file_name_is_an_instruction() -> None:
    long = "the red mug " * 80
    assert split_inputs(["a.mp4", long], []) == ([Path("a.mp4")], [long])
    with pytest.raises(BadInput, match="at most 1000 characters"):
        make_instructions([long * 2])


def test_files_only_and_no_instruction_is_an_error(tmp_path: Path) -> None:
    image = str(write_image(tmp_path / "a.png"))
    with pytest.raises(BadInput, match="no instruction.*a.png"):
        split_inputs([image], [])
    with pytest.raises(BadInput, match="no instruction.*is a file"):
        split_inputs([image, image], [])
    assert split_inputs([image, image], ["red"]) == ([Path(image)] * 2, ["red"])


def test_numbers_sort_as_numbers_and_odd_names_do_no_harm() -> None:
    names = ["f10.png", "f9.png", "f.png", "10.png", "9.png", "f9b.png", "f009.png", "²3.png"]
    ordered = [p.name for p in natural_order([Path(n) for n in names])]
    assert ordered.index("9.png") < ordered.index("10.png")
    assert ordered.index("f9.png") < ordered.index("f10.png")
    assert sorted(ordered) == sorted(names)


# Bad input: one line, exit code 2, nothing raised.


def refused(capsys: pytest.CaptureFixture, *words: object) -> str:
    assert cli.main(["segment", *map(str, words)]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("instructseg segment: error: ")
    assert not captured.out
    return lines[0]


def test_missing_file(tmp_path: Path, capsys) -> None:
    assert "nowhere.mp4 does not exist" in refused(capsys, tmp_path / "nowhere.mp4", "red", "--out", tmp_path / "o")


@pytest.mark.parametrize("name", ["film.mp4", "film", "picture.png", "picture.JPG"])
@pytest.mark.parametrize("content", [b"this is text\n" * 50, b""])
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, capsys, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert name in refused(capsys, tmp_path / name, "red", "--out", tmp_path / "o", "--checkpoint", tmp_path)


def test_a_video_that_was_cut_off(tmp_path: Path, capsys) -> None:
    whole = write_video(tmp_path / "whole.mp4", "red")
    (tmp_path / "part.mp4").write_bytes(whole.read_bytes()[:200])
    assert "part.mp4" in refused(capsys, tmp_path / "part.mp4", "red", "--out", tmp_path / "o")


def test_a_sound_file_is_no_video(tmp_path: Path, capsys) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert "holds no video stream" in refused(capsys, path, "red", "--out", tmp_path / "o")


def test_an_empty_folder_and_a_mixture(tmp_path: Path, capsys) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "readme.txt").write_text("no images here")
    assert "empty holds no images" in refused(capsys, empty, "red", "--out", tmp_path / "o")
    image, video = write_image(tmp_path / "a.png"), write_video(tmp_path / "b.mkv")
    assert "b.mkv is no image" in refused(capsys, image, video, "red", "--out", tmp_path / "o")
    assert "empty is a folder" in refused(capsys, image, empty, "red", "--out", tmp_path / "o")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("the <TRK> mug", "special tokens"), ("[REJ]", "special tokens"), ("＜image＞ mug", "special tokens"),
        ("", "words"), ("  ", "words"), ("!!", "words"), ("mug\x1b[31m", "U+001B"), ("x" * 10_000, "1000 characters"),
    ],
)  # fmt: skip
def test_an_instruction_that_cannot_be_used(tmp_path: Path, capsys, text: str, what: str) -> None:
    image = write_image(tmp_path / "a.png")
    assert what in refused(capsys, image, "--instruction", "red", "--instruction", text, "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_too_many_instructions() -> None:
    assert [i.class_id for i in make_instructions(["a", "b"])] == [1, 2]
    with pytest.raises(BadInput, match="at most 32 instructions"):
        make_instructions(["red"] * 33)


def test_images_of_other_sizes_and_too_small_ones_are_named(tmp_path: Path) -> None:
    first, second = write_image(tmp_path / "a.png", "red"), write_image(tmp_path / "b.png", "red", size=(60, 80))
    with pytest.raises(BadInput, match="b.png is 80 x 60, the first image 64 x 48"):
        list(open_source([first, second]).frames())
    tiny = tmp_path / "tiny.png"
    assert cv2.imwrite(str(tiny), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(BadInput, match="tiny.png.*16 x 16"):
        list(open_source([tiny]).frames())


@pytest.mark.parametrize(
    ("option", "value"), [("--every", "0"), ("--every", "x"), ("--rate", "0"), ("--rate", "nan"), ("--dtype", "int4")]
)
def test_options_out_of_range_leave_at_once(tmp_path: Path, capsys, option: str, value: str) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["segment", str(write_image(tmp_path / "a.png")), "red", "--out", str(tmp_path / "o"), option, value])
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert option in error
    assert repr(value) in error
    assert len(error.splitlines()) == 1


def test_unknown_options_unknown_recipes_and_a_file_as_folder(tmp_path: Path, capsys) -> None:
    image = write_image(tmp_path / "a.png")
    with pytest.raises(SystemExit) as left:
        cli.main(["segment", str(image), "red", "--out", str(tmp_path / "o"), "--colour", "x"])
    assert left.value.code == 2
    capsys.readouterr()
    assert "unknown recipe 'sa2va'" in refused(capsys, image, "red", "--out", tmp_path / "o", "--recipe", "sa2va")
    assert "is a file; give a folder" in refused(capsys, image, "red", "--out", image)


def test_a_model_that_fails_at_once_is_an_error_and_later_is_exit_code_1(tmp_path: Path, capsys) -> None:
    broken = ColourSegmenter()
    broken.raising.add("ground")
    with pytest.raises(Exception, match="instruction 'red': ground failed"):
        segment(write_image(tmp_path / "a.png", "red"), "red", "--out", tmp_path / "o", segmenter=broken)

    class FailsLater(ColourSegmenter):
        def segment(self, encoded, tokens):
            self.raising = {"segment"} if encoded.frame.stamp_ns >= 400_000_000 else set()
            return super().segment(encoded, tokens)

    code = segment(write_video(tmp_path / "in.mkv", "red"), "red", "--out", tmp_path / "p", segmenter=FailsLater())
    assert code == 1
    report = results(tmp_path / "p")
    assert report["instructions"][0]["verdict"] == "PRESENT"
    assert report["instructions"][0]["frames_failed"] == 2
    assert not read_mask(tmp_path / "p" / report["frames"][-1]["mask"]).any()
