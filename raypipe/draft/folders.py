"""Folders of pictures or recordings -> a pipeline file: a convolutional network tells the folder a file lies in."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from raypipe.data.formats.labels import FileRow, rows_of
from raypipe.data.sample import spread
from raypipe.data.sources.files import read_bytes
from raypipe.data.table import images, sounds
from raypipe.data.transforms.audio import bands
from raypipe.draft import training
from raypipe.draft.classes import SPLIT_WORDS, STRATIFIED, TRAIN_FRAC, accuracy_gate, rare_line, rare_of, without
from raypipe.draft.written import TRANSFORMS, Written, bad_rows, flow, item, some
from raypipe.errors import DataError, SpecError
from raypipe.spec.sources import FolderSource
from raypipe.spec.transforms import LogMelTransform

LOOKED_AT = 64
"""Files that are opened."""

MAX_SIDE = 64
"""Pixels of the longer side: larger pictures are made smaller."""

MIN_SIDE = 2
"""Pixels that the first block of a network can halve."""

MAX_SECONDS = 10.0

MIN_SAMPLES = 512
"""Shorter recordings are filled: in fewer samples windows tell too few frequencies apart."""

MIN_WINDOWS = 8
"""Windows beside each other in a recording: its network halves the moments three times."""


class Picture(NamedTuple):
    """What a picture says of itself.

    Attributes:
        height, width: upright.
        is_deep: whether it has 16 bits a pixel.
    """

    height: int
    width: int
    is_grey: bool
    is_deep: bool


class Recording(NamedTuple):
    """What a recording says of itself."""

    rate: int
    seconds: float
    num_channels: int


class Folders(NamedTuple):
    """Labelled files.

    Attributes:
        split: the line of data.split.
        classes: label -> files.
        rare: the same of those that are left out.
    """

    rows: Sequence[FileRow]
    split: str
    classes: Mapping[str, int]
    rare: Mapping[str, int]


def draft_folder(source: FolderSource, there: str) -> Written:
    """Args:
        source: where the files are; there: the same, as the pipeline file names it.
    Raises:
        SpecError: there is one folder alone, so nothing to tell apart.
        DataError: no file is what it should be, or what reads them is not installed.
    """
    kind = KINDS[source.decoded]
    folders = _labelled(source, kind.noun)
    seen, num_bad = _looked_at(folders.rows, kind)
    written = kind.write(folders, seen, there)
    written.data.insert(written.data.index(TRANSFORMS), bad_rows(num_bad, len(seen), "files"))
    return written


def _of_pictures(folders: Folders, seen: Sequence[Picture], there: str) -> Written:
    sizes = Counter((each.height, each.width) for each in seen)
    own, _ = sizes.most_common(1)[0]
    shrink = min(1.0, MAX_SIDE / max(own))
    height, width = (max(MIN_SIDE, round(side * shrink)) for side in own)
    is_deep, is_grey = any(each.is_deep for each in seen), all(each.is_grey for each in seen)
    mode = "L16" if is_deep else "L" if is_grey else None
    fields = {"format": "images", "path": there, "size": [height, width], **({"mode": mode} if mode else {})}
    note = f"guessed: the files have up to {max(sizes)[0]} x {max(sizes)[1]} pixels"
    if sizes.keys() == {(height, width)}:
        note = "their own size"
    if is_deep and not is_grey:
        note += "; L16: some have 16 bits a pixel, and colours become grey"
    written = _written(folders, fields, "image", f"height and width; {note}")
    written.about = f"Pictures -> one of {len(folders.classes)} classes."
    written.data.append(item({"kind": "normalize", "columns": ["image"]}))
    if mode is None:
        written.data.append(item({"kind": "channels_first", "columns": ["image"]}, "[H, W, 3] -> [3, H, W]"))
    written.model = flow({"kind": "cnn", "channels": training.channels(min(height, width)), "dropout_frac": 0.2})
    padding = max(1, min(height, width) // 16)
    written.train.append(
        f"augment: {{crop_padding: {padding}}} # in training alone; horizontal_flip_prob where right may be left"
    )
    return written


def _of_recordings(folders: Folders, seen: Sequence[Recording], there: str) -> Written:
    rate, _ = Counter(each.rate for each in seen).most_common(1)[0]
    longest = max(each.seconds for each in seen)
    seconds = round(max(min(MAX_SECONDS, longest), MIN_SAMPLES / rate), 3)
    fields: dict[str, Any] = {"format": "sound", "path": there, "sample_rate": rate, "duration_s": seconds}
    note = "the longest that was looked at" if longest <= MAX_SECONDS else f"guessed: files last up to {longest:.0f} s"
    note += "; longer ones are cut, shorter ones filled"
    if num := sum(each.num_channels > sounds.MAX_MIXED for each in seen):
        fields["channel"] = "mean"
        note += f"; {num} of {len(seen)} have many channels: a number reads one of them"
    written = _written(folders, fields, "audio", note)
    written.about = f"Recordings -> one of {len(folders.classes)} classes."
    mel = _log_mel(rate, seconds)
    written.data += [item(mel), item({"kind": "normalize", "columns": ["audio"]})]
    moments = 1 + (round(rate * seconds) - mel["window_samples"]) // mel["hop_samples"]
    halved = training.channels(min(mel["num_mels"], moments))
    written.model = flow({"kind": "audio_cnn", "channels": halved, "dropout_frac": 0.2})
    written.model_note = "how loud a recording is does not count; level: none where it does"
    return written


def _log_mel(rate: int, seconds: float) -> dict[str, Any]:
    """The transform for recordings of such a rate and length, with as many bands as its windows tell apart."""
    window = _window(rate, seconds)
    fields = {"kind": "log_mel", "columns": ["audio"], "sample_rate": rate, "window_samples": window}
    num_mels = 32 if rate <= 8000 else 64
    while num_mels > 1:
        mel = {**fields, "hop_samples": window // 2, "num_mels": num_mels}
        if bands(LogMelTransform.model_validate(mel)).any(axis=0).all():
            return mel
        num_mels //= 2
    return {**fields, "hop_samples": window // 2, "num_mels": 1}


def _window(rate: int, seconds: float) -> int:
    """Samples of about 32 ms, a power of two; fewer of a short recording, so that it has some moments."""
    wanted = 2 ** round(math.log2(rate * 0.032))
    room = 2 ** math.floor(math.log2(max(1.0, rate * seconds / MIN_WINDOWS)))
    return max(2, min(2**13, wanted, room))


def _labelled(source: FolderSource, noun: str) -> Folders:
    rows = rows_of(source, ".")
    classes = Counter(row.label or "" for row in rows)
    if len(classes) < 2:
        raise SpecError(
            f"{source.path} holds {len(rows)} {noun}{'s' if len(rows) > 1 else ''} in one folder "
            f"({some(list(classes))}); the label of a file is the name of the folder it lies in, so there is nothing "
            "to tell apart",
            "put the files of each class into a folder of its own, or write the pipeline file yourself and say in "
            "data.source.label where labels are: {from: filename, regex: '^([a-z]+)_'}, {path: labels.csv} or "
            "{from: sidecar}",
        )
    split = _ready_made(rows)
    if split is not None:
        return Folders(rows, split, classes, {})
    rare = rare_of(classes, source.places()[0], "files", "put them into folders train, val and test")
    kept = {label: num for label, num in classes.items() if label not in rare}
    rows = [row for row in rows if row.label in kept]
    return Folders(rows, STRATIFIED, kept, rare)


def _ready_made(rows: Sequence[FileRow]) -> str | None:
    """The split that the outermost folders are, where they are called so."""
    outer = {row.name.split("/")[0] for row in rows if row.name.count("/") >= 2}
    named = {
        split: next((folder for folder in sorted(outer) if folder.casefold() in words), None)
        for split, words in SPLIT_WORDS.items()
    }
    if {"train", "test"} <= {split for split, folder in named.items() if folder} and outer <= set(named.values()):
        return f"split: {flow({'kind': 'directories', **named})} # guessed from the folders' names"
    return None


def _written(folders: Folders, source: dict[str, Any], column: str, note: str) -> Written:
    classes = folders.classes
    num_train = int(TRAIN_FRAC * len(folders.rows))
    epochs = training.epochs(num_train, num_steps=600, most=20)
    most = max(classes.values()) / sum(classes.values())
    listed = some([f"{name} ({count})" for name, count in sorted(classes.items())])
    written = Written("", request=None, guesses=["data.source"])
    if folders.rare:
        source = {**source, "where": [without("label", folders.rare)]}
        written.data.append(rare_line(folders.rare))
    written.data += [
        f"source: {flow(source, 4)} # {note}",
        f"target: label # the folder a file lies in: {listed}",
        "task: classification",
        f"features: [{column}]",
        folders.split,
        TRANSFORMS,
    ]
    written.train = [
        f"epochs: {epochs}",
        f"global_batch_size: {min(64, training.batch_rows(num_train))}",
        "optimizer: {kind: adamw, lr: 0.004}",
        "schedule: {kind: cosine, warmup_steps: 20}",
    ]
    written.gates = [accuracy_gate(most)]
    return written


def _looked_at(rows: Sequence[FileRow], kind: Kind) -> tuple[list[Any], int]:
    """What some of the files say of themselves, and how many of these cannot be read.

    Raises:
        DataError: none of them is what it should be, or what reads them is not installed.
    """
    seen: list[Any] = []
    problems: list[str] = []
    for row in spread(rows, LOOKED_AT):
        try:
            seen.append(kind.look(read_bytes(row.file)))
        except ImportError:
            raise DataError(f"a {kind.noun} needs Pillow to be read", "pip install 'raypipe[images]'") from None
        except sounds.NeedsSoundfile as error:
            raise DataError(f"{row.name} {error}") from None
        except Exception as error:  # decoders fail in every way there is; such a file will be a bad row
            problems.append(f"{row.name}: {error}")
    if not seen:
        what = f"none of {len(problems)} files is a readable {kind.noun}; {problems[0]}"
        raise DataError(what, "name files that are")
    return seen, len(problems)


def _picture(data: bytes) -> Picture:
    with images.opened(data) as image:
        height, width = images.upright_size(image)
        is_deep = image.mode in images.MODES_OF_16_BITS
        return Picture(height, width, is_deep or image.mode in ("1", "L", "LA"), is_deep)


def _recording(data: bytes) -> Recording:
    recording = sounds.opened(data)
    if not recording.num_frames:
        raise ValueError("holds no samples")
    return Recording(recording.rate, recording.num_frames / recording.rate, recording.num_channels)


class Kind(NamedTuple):
    """What the files of a folder are.

    Attributes:
        noun: for one of them.
        look: what a file says of itself.
        write: the draft, but for bad files: of labelled files, of what some say of themselves, and of their path.
    """

    noun: str
    look: Callable[[bytes], Any]
    write: Callable[[Folders, Sequence[Any], str], Written]


KINDS = {
    "image": Kind("picture", _picture, _of_pictures),
    "audio": Kind("recording", _recording, _of_recordings),
}
"""Column of what a file holds (FolderSource.decoded) -> what the files are."""
