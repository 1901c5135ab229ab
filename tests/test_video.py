"""Outlines on videos: where they should be, one frame after another, and whole or not there."""

from __future__ import annotations

import errno
import os
import signal
import struct
import time
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from conftest import kdas

from kdas_book.deploy import runtimes, video
from kdas_book.deploy.video import OUTLINE, outline, predict_video
from kdas_core import UserError
from kdas_core.models import build, freeze, save_weights

av = pytest.importorskip("av")

H, W = 96, 128


@pytest.fixture(autouse=True)
def no_bars(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


def disc(i: int, height: int = H, width: int = W) -> np.ndarray:
    """A bright disc that moves to the right, on dark ground: uint8 RGB."""
    image = np.full((height, width, 3), 30, np.uint8)
    return cv2.circle(image, (30 + 2 * i % (width - 60), height // 2), 16, (220, 180, 180), -1)


def film(path: Path, frames, codec: str = "libx264", rate: int = 10, **options) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.pix_fmt = options.pop("pix_fmt", "yuv420p")
        stream.gop_size = options.pop("gop", 12)
        for i, image in enumerate(frames):
            if i == 0:
                stream.height, stream.width = image.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())
    return path


def bright(images: np.ndarray) -> np.ndarray:
    """A network that takes what is bright for a polyp."""
    return (images.mean(-1) > 120).astype(np.float32)


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def greenness(image: np.ndarray) -> np.ndarray:
    return image[..., 1].astype(int) - np.maximum(image[..., 0], image[..., 2])


@pytest.fixture
def source(tmp_path) -> Path:
    return film(tmp_path / "in.mp4", [disc(i) for i in range(12)])


def test_the_outline_is_drawn_around_the_polyp_and_nowhere_else(source, tmp_path):
    report = predict_video(bright, source, tmp_path / "out.mp4", smoothing=0)
    before, after = frames_of(source), frames_of(tmp_path / "out.mp4")
    assert report.frames == len(before) == len(after) == 12 and report.corrupt == 0
    for plain, drawn in zip(before, after):
        green = greenness(drawn) > 25
        mask = bright(plain[None])[0].astype(np.uint8)
        near = cv2.dilate(mask, np.ones((7, 7))) - cv2.erode(mask, np.ones((7, 7)))
        assert green.sum() > 40 and (near[green] == 1).all()
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert float(container.streams.video[0].average_rate) == 10


def test_an_outline_follows_the_edge_at_one_half():
    image, probability = np.zeros((40, 40, 3), np.uint8), np.full((40, 40), 0.4999)
    probability[10:20, 5:30] = 0.5
    outline(image, probability)
    drawn = (image == OUTLINE).all(-1)
    assert drawn[10, 5:30].all() and drawn[19, 5:30].all() and drawn[10:20, 5].all()
    assert not drawn[12:18, 7:28].any() and drawn.sum() == 2 * 25 + 2 * 8
    outline(image, np.zeros((40, 40)))
    assert ((image == OUTLINE).all(-1) == drawn).all()


@pytest.mark.parametrize("smoothing, frame", [(0.0, 5), (0.5, 5), (0.75, 7), (0.9, 11)])
def test_smoothing_delays_a_polyp_that_appears(source, tmp_path, smoothing, frame):
    """1 - smoothing^k reaches one half at the k-th frame that has it."""
    seen = []

    def appears(images):
        seen.append(len(seen))
        return np.full(images.shape[:3], float(seen[-1] >= 5), np.float32)

    shown = []

    def watch(image, probability):
        shown.append(bool((probability >= 0.5).any()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video, "outline", watch)
        report = predict_video(appears, source, tmp_path / "out.mp4", smoothing)
    assert shown.index(True) == frame and all(shown[frame:])
    assert report.delay == pytest.approx(smoothing / (1 - smoothing))
    assert f"by {report.delay:.1f} frames ({100 * report.delay:.0f} ms)" in str(report)


def test_the_first_frame_is_not_smoothed_with_nothing(source, tmp_path):
    predict_video(bright, source, tmp_path / "out.mp4", smoothing=0.9)
    assert (greenness(frames_of(tmp_path / "out.mp4")[0]) > 25).sum() > 40


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 1.5])
def test_smoothing_is_a_share(source, tmp_path, smoothing):
    with pytest.raises(UserError, match=r"must lie in \[0, 1\)"):
        predict_video(bright, source, tmp_path / "out.mp4", smoothing)


def test_odd_sides_lose_a_row_and_a_column(tmp_path):
    frames = [disc(i, 97, 129) for i in range(3)]
    source = film(tmp_path / "in.mkv", frames, "ffv1", pix_fmt="bgr0")
    assert frames_of(source)[0].shape == (97, 129, 3)
    predict_video(bright, source, tmp_path / "out.mp4")
    assert [frame.shape for frame in frames_of(tmp_path / "out.mp4")] == [(96, 128, 3)] * 3


def test_frames_keep_their_time(source, tmp_path):
    def times(path):
        with av.open(str(path)) as container:
            return [float(frame.time) for frame in container.decode(video=0)]

    predict_video(bright, source, tmp_path / "out.mp4")
    assert np.allclose(times(source), times(tmp_path / "out.mp4"))


def test_the_parts_are_timed_and_run_side_by_side(source, tmp_path, monkeypatch):
    """As long as a network works, another frame is decoded and an earlier one is encoded."""
    report = predict_video(bright, source, tmp_path / "out.mp4")
    assert list(report.seconds) == ["decoding", "network", "drawing", "encoding"]
    shares = [int(part.split(" %")[0]) for part in str(report).split("(")[2:]]
    assert len(shares) == 4 and all(0 <= share <= 100 for share in shares)

    as_shown, sink = video._as_shown, video._sink

    def decodes_slowly(frame):
        time.sleep(0.02)
        return as_shown(frame)

    @contextmanager
    def encodes_slowly(*where):
        with sink(*where) as write:
            yield lambda *picture: (time.sleep(0.02), write(*picture))

    def thinks_slowly(images):
        time.sleep(0.02)
        return bright(images)

    monkeypatch.setattr(video, "_as_shown", decodes_slowly)
    monkeypatch.setattr(video, "_sink", encodes_slowly)
    slow = predict_video(thinks_slowly, source, tmp_path / "slow.mp4")
    parts = [slow.seconds[part] for part in ("decoding", "network", "encoding")]
    assert min(parts) > 12 * 0.02 and sum(parts) > slow.elapsed
    assert all(map(np.array_equal, *map(frames_of, (tmp_path / "out.mp4", tmp_path / "slow.mp4"))))


# --- what is wrong with a video ---------------------------------------------------------------------------------------


def damaged(path: Path, source: Path, positions: set[int]) -> Path:
    """The same video, with the bytes of some packets replaced."""
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        stream = container.streams.video[0]
        target = out.add_stream_from_template(stream)
        for i, packet in enumerate(container.demux(stream)):
            if not packet.size:
                continue
            if i in positions:
                broken = av.Packet(os.urandom(packet.size))
                broken.pts, broken.dts, broken.time_base = packet.pts, packet.dts, packet.time_base
                packet = broken
            packet.stream = target
            out.mux(packet)
    return path


def test_corrupt_frames_are_counted_and_left_out(tmp_path):
    whole = film(
        tmp_path / "whole.mkv", [disc(i) for i in range(10)], "ffv1", pix_fmt="bgr0", gop=1
    )
    source = damaged(tmp_path / "in.mkv", whole, {3, 4, 7})
    report = predict_video(bright, source, tmp_path / "out.mp4")
    assert (report.frames, report.corrupt) == (7, 3) and len(frames_of(tmp_path / "out.mp4")) == 7
    assert "7 frames, 3 corrupt ones left out" in str(report)


def test_frames_that_refer_to_a_corrupt_one_are_counted_with_it(tmp_path):
    whole = film(tmp_path / "whole.mp4", [disc(i) for i in range(24)])
    report = predict_video(bright, damaged(tmp_path / "in.mkv", whole, {5}), tmp_path / "out.mp4")
    assert report.frames + report.corrupt == 24 and 12 <= report.frames <= 23


def test_a_video_cut_off_gives_what_there_is(tmp_path):
    source = film(tmp_path / "in.mkv", [disc(i) for i in range(30)], "mjpeg", pix_fmt="yuvj420p")
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    report = predict_video(bright, source, tmp_path / "out.mp4")
    assert 10 <= report.frames <= 20 and len(frames_of(tmp_path / "out.mp4")) == report.frames

    assert report.missing == 30 - report.frames - report.corrupt > 2
    assert f", about {report.missing} missing at the end;" in str(report)


def test_frames_without_a_time_come_one_after_another(tmp_path):
    source = film(tmp_path / "in.h264", [disc(i) for i in range(12)], rate=25)
    report = predict_video(bright, source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert report.frames == 12 and np.allclose(np.diff(times), 1 / 25, atol=2e-3)


def test_a_video_is_turned_as_players_show_it(tmp_path):
    """A telephone held upright stores its frames lying, and a matrix that turns them clockwise."""
    source = film(tmp_path / "in.mp4", [disc(i) for i in range(4)])
    content = bytearray(source.read_bytes())
    at = content.index(b"tkhd") + 44
    content[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    source.write_bytes(content)
    seen = []

    def watch(images):
        seen.append(images[0].copy())
        return bright(images)

    predict_video(watch, source, tmp_path / "out.mp4")
    assert np.array_equal(seen[0], np.rot90(frames_of(source)[0], -1))
    assert frames_of(tmp_path / "out.mp4")[0].shape == (W, H, 3)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert next(container.decode(video=0)).rotation == 0


def test_the_shape_of_a_pixel_and_the_colours_are_kept(tmp_path):
    source = tmp_path / "in.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = H, W, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        stream.codec_context.colorspace = 1  # BT.709, as of a camera in high definition
        image = np.full((H, W, 3), (190, 60, 50), np.uint8)
        frame = av.VideoFrame.from_ndarray(image).reformat(format="yuv420p", dst_colorspace=1)
        container.mux([*stream.encode(frame), *stream.encode()])
    seen = []

    def watch(images):
        seen.append(images[0])
        return np.zeros(images.shape[:3], np.float32)

    predict_video(watch, source, tmp_path / "out.mp4")
    assert np.abs(seen[0] - image.astype(int)).max() <= 4
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.sample_aspect_ratio == Fraction(16, 11)
        shown = next(container.decode(stream))
    assert shown.colorspace == 6, "BT.601, and it says so"
    assert np.abs(shown.to_ndarray(format="rgb24").astype(int) - image).max() <= 6


def test_a_name_with_a_colon_is_no_address(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.replace(source, "12:30.mp4")
    assert predict_video(bright, Path("12:30.mp4"), Path("10:20.mp4")).frames == 12


def sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate = 44100
        container.mux(stream.encode(frame)), container.mux(stream.encode())
    return path


def text(path: Path) -> Path:
    path.write_text("no video " * 99)
    return path


def headless(path: Path) -> Path:
    film(path, [disc(i) for i in range(9)])
    path.write_bytes(path.read_bytes()[:700])  # the index of an MP4 stands at its end
    return path


def empty(path: Path) -> Path:
    path.touch()
    return path


def no_frames(path: Path) -> Path:
    """A video whose every packet is broken."""
    whole = film(path.with_name("whole.mkv"), [disc(i) for i in range(4)], "ffv1", pix_fmt="bgr0")
    damaged(path.with_suffix(".mkv"), whole, set(range(9))).rename(path)
    whole.unlink()
    return path


def tiny(path: Path) -> Path:
    return film(path, [disc(i)[:30, :64] for i in range(3)])


def lines(path: Path) -> Path:
    path = path.with_suffix(".txt")
    path.write_text("a list, and no video\n" * 20)
    return path


def still(path: Path) -> Path:
    path = path.with_suffix(".png")
    assert cv2.imwrite(str(path), disc(0))
    return path


def growing(path: Path) -> Path:
    parts = [
        film(path.with_suffix(f".{i}.h264"), [disc(0, *side)] * 3) for i, side in enumerate(SIDES)
    ]
    path = path.with_suffix(".h264")
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


SIDES = [(96, 128), (128, 160)]
MAKERS = {
    text: "is no video that FFmpeg can read",
    empty: "is no video that FFmpeg can read",
    headless: "is no video that FFmpeg can read",
    sound: "has no video in it",
    no_frames: "has no frame that can be decoded",
    tiny: "is 64×30, and sides of 32 to 8,192 pixels are taken",
    lines: "is no video (FFmpeg reads it as tty)",
    still: "is no video (FFmpeg reads it as png_pipe)",
    growing: "has frames of several sizes, from number 4 on 160×128; convert it",
    lambda path: path: "does not exist",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    about = {"role": "student", "backbone": "lcnet_035", "size": 64}
    net = freeze(build("student", backbone="lcnet_035"))
    return save_weights(net, tmp_path_factory.mktemp("w") / "s.safetensors", **about)


@pytest.mark.parametrize("make", MAKERS)
def test_what_is_no_video_is_a_sentence_and_leaves_nothing(
    monkeypatch, capsys, weights, tmp_path, make
):
    (tmp_path / "out").mkdir()
    source = make(tmp_path / "in.mp4")
    words = ["--weights", weights, "--video", source, "--out", tmp_path / "out" / "out.mp4"]
    assert kdas(monkeypatch, "predict", *words) == 2
    said = capsys.readouterr().err
    assert said.startswith("kdas: ") and said.strip().count("\n") == 0 and MAKERS[make] in said
    assert not list((tmp_path / "out").iterdir())


def test_the_command_line_says_where_the_time_went(monkeypatch, capsys, weights, source, tmp_path):
    out = tmp_path / "out.mp4"
    words = ["--weights", weights, "--video", source, "--out", out, "--smoothing", 0.75]
    assert kdas(monkeypatch, "predict", *words) == 0
    said = capsys.readouterr().out
    assert "12 frames, 0 corrupt" in said and "network" in said and "3.0 frames (300 ms)" in said
    assert len(frames_of(out)) == 12
    assert kdas(monkeypatch, "predict", *words) == 0, "ours may be replaced"


def test_a_teacher_is_no_student_and_av_may_be_missing(
    monkeypatch, capsys, weights, source, tmp_path
):
    words = ["predict", "--weights", weights, "--video", source, "--out", tmp_path / "out.mp4"]
    assert kdas(monkeypatch, *words, "--role", "teacher") == 2
    assert "was trained with role student" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    assert kdas(monkeypatch, *words) == 2
    assert 'pip install "kdas_core[video]"' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]


# --- whole or not there, however long ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.mov"])
def test_a_file_of_others_stays(source, tmp_path, name):
    out = film(tmp_path / name, [disc(0)])
    before = out.read_bytes()
    with pytest.raises(UserError, match="is there already and is no video that kdas wrote"):
        predict_video(bright, source, out)
    assert out.read_bytes() == before
    out.unlink()
    for _ in range(2):  # ours are replaced
        assert predict_video(bright, source, out).frames == 12
    with pytest.raises(UserError, match="is the video itself"):
        predict_video(bright, source, source)


@pytest.mark.parametrize("name", ["out.xyz", "out", "out.webm", "out.gif", "out.m3u8", "out.ts"])
def test_a_suffix_that_is_no_such_video_is_named(source, tmp_path, name):
    with pytest.raises(UserError, match=f"{name} names no format that is written; choose .mp4, "):
        predict_video(bright, source, tmp_path / name)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_what_stops_in_the_middle_leaves_the_old_video(source, tmp_path, error):
    out, count = tmp_path / "out.mp4", iter(range(99))
    predict_video(bright, source, out)
    before = out.read_bytes()

    def fails(images):
        if next(count) == 5:
            raise error
        return bright(images)

    with pytest.raises(UserError if isinstance(error, OSError) else KeyboardInterrupt) as said:
        predict_video(fails, source, out)
    assert "the disk is full" in str(said.value) or isinstance(error, KeyboardInterrupt)
    assert out.read_bytes() == before and sorted(tmp_path.iterdir()) == sorted([source, out])


def test_a_request_to_stop_leaves_no_draft(monkeypatch, weights, source, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(
        runtimes, "_of_module", lambda module: lambda images: os.kill(os.getpid(), signal.SIGTERM)
    )
    words = ["--weights", weights, "--video", source, "--out", tmp_path / "new" / "out.mp4"]
    try:
        assert kdas(monkeypatch, "predict", *words) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not list((tmp_path / "new").iterdir())


def test_a_full_disk_while_encoding_is_a_sentence(tmp_path):
    from hazards import files_no_larger_than

    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (H, W, 3), dtype=np.uint8) for _ in range(40)]
    source = film(tmp_path / "in.mp4", noise)
    with files_no_larger_than(40_000), pytest.raises(UserError, match="out.mp4 cannot be"):
        predict_video(bright, source, tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == [source]


def test_memory_does_not_grow_with_the_length(tmp_path):
    """600 frames of 230 KB would be 138 MB."""
    source = film(tmp_path / "in.mp4", (disc(i, 240, 320) for i in range(600)), rate=30)
    held = []

    def watch(images):
        held.append(psutil.Process().memory_info().rss)
        return bright(images)

    assert predict_video(watch, source, tmp_path / "out.mp4").frames == 600
    assert held[-1] - held[100] < 40e6
