"""Outlines of polyps drawn on a video, frame by frame (`kdas predict --video`)."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm.auto import tqdm

from kdas_book.deploy import needed, refuse_size
from kdas_book.files import refuse_foreign, staging_dir
from kdas_core import UserError
from kdas_core.files import unwritten
from kdas_core.models.weights import first_line

_BT601 = 6  # FFmpeg's number for the colours that RGB is turned into
_NO_VIDEOS = ("tty", "concat", "image2")  # texts, lists of files and still pictures
OUTLINE = (80, 255, 80)  # RGB
FORMATS = (".mp4", ".mkv", ".mov", ".avi")  # of others FFmpeg keeps no comment, or writes parts
COMMENT = "Outlines by kdas predict; research and teaching, no clinical use."


@dataclass
class VideoReport:
    """What was done: ``frames`` drawn, ``corrupt`` ones left out, ``missing`` ones that the file
    announces and has not, ``smoothing``, the video's ``rate`` in frames per second; ``seconds``
    that each part took, side by side, and ``elapsed`` ones.
    """

    frames: int = 0
    corrupt: int = 0
    missing: int = 0
    rate: float = 0.0
    smoothing: float = 0.0
    elapsed: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def delay(self) -> float:
        """By how many frames smoothing lags behind, on average."""
        return self.smoothing / (1 - self.smoothing)

    def __str__(self) -> str:
        parts = ", ".join(
            f"{part} {1000 * took / self.frames:.1f} ms ({100 * took / self.elapsed:.0f} %)"
            for part, took in self.seconds.items()
        )
        lag = f"{self.delay:.1f} frames ({1000 * self.delay / self.rate:.0f} ms)"
        return (
            f"{self.frames} frames, {self.corrupt} corrupt ones left out"
            f"{f', about {self.missing} missing at the end' * bool(self.missing)}; smoothing "
            f"{self.smoothing:g} delays the outline by {lag} on average; "
            f"{self.frames / self.elapsed:.1f} frames a second, and in the time of each, side by "
            f"side: {parts}"
        )


def predict_video(
    run: Callable[[np.ndarray], np.ndarray], source: Path, out: Path, smoothing: float = 0.5
) -> VideoReport:
    """Write a copy of a video in which the edge of the predicted polyp is drawn.

    Args:
        run: uint8 RGB (1, H, W, 3) → probability (1, H, W), such as `Runtime.run`.
        source: any video that FFmpeg reads. Three frames at a time are held, however long it is.
        out: the copy, without sound and turned as players show it; its suffix, one of ``FORMATS``,
            says the format.
        smoothing: weight of the past in [0, 1): a pixel's probability is so much of its last value
            and the rest of the new one. 0: each frame for itself.

    A frame that cannot be decoded, or that the decoder calls corrupt, is counted and left out. A
    UserError: ``source`` is no video, has no frame that can be decoded, or some of several sizes or
    of one that is refused; ``out`` is a file of others or cannot be written; then nothing is left.
    """
    if not 0 <= smoothing < 1:
        raise UserError(f"smoothing is {smoothing}; it must lie in [0, 1).")
    source, out = Path(source), Path(out)
    if os.path.realpath(source) == os.path.realpath(out):
        raise UserError(f"{out} is the video itself; choose another --out.")
    if out.suffix.lower() not in FORMATS:
        raise UserError(f"{out} names no format that is written; choose {', '.join(FORMATS)}.")
    av = needed("av", "video")
    refuse_foreign(out, "video that kdas wrote", lambda path: _is_ours(av, path))
    report = VideoReport(smoothing=smoothing)
    with _opened(av, source) as (container, stream), staging_dir(out) as folder:
        report.rate = float(stream.average_rate or 25)
        draft = folder / out.name
        try:
            with _sink(av, draft, stream) as write:
                _draw(_frames(av, container, stream, report), run, write, report, source)
            os.replace(draft, out)
        except UserError:
            raise
        except OSError as error:  # the errors of FFmpeg's files are among these
            raise unwritten(out, error, "make room, or choose another place") from None
        except av.FFmpegError as error:
            raise UserError(f"{out} cannot be encoded ({first_line(error)}).") from None
    return report


def _is_ours(av: Any, path: Path) -> bool:
    try:
        with av.open(str(path)) as container:
            return COMMENT in container.metadata.values()
    except av.FFmpegError:
        return False


@contextmanager
def _opened(av: Any, source: Path) -> Iterator[tuple[Any, Any]]:
    if not source.is_file():
        raise UserError(f"{source} does not exist, or is no file; name a video.")
    try:
        container = av.open(str(source.absolute()))  # "12:30.mp4" alone would be a protocol
    except (av.FFmpegError, UnicodeError) as error:
        fact = f"{source} is no video that FFmpeg can read ({first_line(error)})"
        raise UserError(f"{fact}; copy it again, or convert it.") from None
    with container:
        if not container.streams.video:
            raise UserError(f"{source} has no video in it, only other streams; name a video.")
        kind = container.format.name
        if kind in _NO_VIDEOS or kind.endswith("_pipe"):
            raise UserError(f"{source} is no video (FFmpeg reads it as {kind}); name a video.")
        stream = container.streams.video[0]
        stream.thread_type = "SLICE"  # of several frames at a time a damaged one takes others along
        yield container, stream


def _frames(av: Any, container: Any, stream: Any, report: VideoReport) -> Iterator[Any]:
    """The frames in the order of showing, without those that are damaged. A packet is a frame, so
    those without one count as corrupt: after a damaged one H.264 drops all that refer to it.
    """
    packets, stored, sound = container.demux(stream), 0, 0
    packet: Any = True
    while packet:
        frames: list[Any] = []
        with suppress(av.FFmpegError):
            packet = next(packets, None)
            stored += bool(packet and packet.size)
            frames = packet.decode() if packet else []
        for frame in frames:
            if not frame.is_corrupt:
                sound += 1
                yield frame
        report.corrupt = max(0, stored - sound)
    seconds = (container.duration or 0) / av.time_base
    missing = (stream.frames or round(seconds * report.rate)) - stored
    report.missing = missing if missing > 2 + 0.02 * stored else 0  # durations are rounded


@contextmanager
def _sink(av: Any, draft: Path, stream: Any) -> Iterator[Callable]:
    """A function that appends a picture, uint8 RGB (H, W, 3), at a time in the source's units."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    how = {"preset": "veryfast"} if codec == "libx264" else {}  # or the network waits for it
    with ExitStack() as stack:
        container = stack.enter_context(av.open(str(draft.absolute()), "w"))
        target = container.add_stream(codec, rate=stream.average_rate or 25, options=how)
        container.metadata["comment"] = COMMENT
        unit = stream.time_base
        target.codec_context.time_base = Fraction(unit)
        usual = max(1, round(1 / (unit * (stream.average_rate or 25))))  # where no time is stored
        last: list[int] = []

        def write(picture: np.ndarray, seen: Any) -> None:
            if not last:  # colour is stored for two by two pixels
                target.height, target.width = (side // 2 * 2 for side in picture.shape[:2])
                target.pix_fmt = "yuv420p"
                target.codec_context.colorspace = _BT601
                if stream.sample_aspect_ratio:  # a pixel's width to its height
                    shape = Fraction(stream.sample_aspect_ratio)
                    turned = seen.rotation % 180 == 90
                    target.codec_context.sample_aspect_ratio = 1 / shape if turned else shape
            frame = av.VideoFrame.from_ndarray(picture[: target.height, : target.width])
            due = last[-1] + usual if last else 0
            frame.pts = max(due if seen.pts is None else seen.pts, last[-1] + 1 if last else 0)
            frame.time_base = unit
            last[:] = [frame.pts]
            container.mux(target.encode(frame))

        yield write
        if last:
            container.mux(target.encode())


def _draw(frames: Iterator, run: Callable, write: Callable, report: VideoReport, source: Path):
    """Predict, smooth and outline one frame after another, while one thread decodes the next and
    another encodes the last; and time each part.
    """

    def decode() -> Any:
        with _timed(report.seconds, "decoding"):
            frame: Any = next(frames, None)
            return frame and (frame, _as_shown(frame))

    def encode(image: np.ndarray, frame: Any) -> None:
        with _timed(report.seconds, "encoding"):
            write(image, frame)

    past: Any = None
    bar = tqdm(desc=f"frames of {source.name}", disable="TQDM_DISABLE" in os.environ, leave=False)
    began = time.perf_counter()
    with bar, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        coming, writing = reader.submit(decode), writer.submit(str)
        while found := coming.result():
            coming = reader.submit(decode)
            frame, image = found
            refuse_size(f"A frame of {source}", frame.width, frame.height)
            if past is not None and past.shape != image.shape[:2]:
                fact = f"{source} has frames of several sizes, from number {report.frames + 1} on"
                raise UserError(f"{fact} {frame.width}×{frame.height}; convert it to one size.")
            with _timed(report.seconds, "network"):
                now = run(image[None])[0]
            with _timed(report.seconds, "drawing"):
                late = report.smoothing
                past = now if past is None else late * past + (1 - late) * now
                outline(image, past)
            writing.result()
            writing = writer.submit(encode, image, frame)
            report.frames += 1
            bar.update()
        writing.result()
    report.elapsed = time.perf_counter() - began
    if not report.frames:
        raise UserError(f"{source} has no frame that can be decoded; nothing was written.")


def _as_shown(frame: Any) -> np.ndarray:
    """Its pixels, uint8 RGB (H, W, 3), turned as the file tells players to."""
    pixels = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4  # counterclockwise
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def outline(image: np.ndarray, probability: np.ndarray) -> None:
    """Draw the edge of where a map (H, W) is at least 0.5 into an image (H, W, 3), in place."""
    mask = (probability >= 0.5).astype(np.uint8)
    edges, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, edges, -1, OUTLINE, thickness=max(1, min(image.shape[:2]) // 200))


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - start
