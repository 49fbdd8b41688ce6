"""Writes sounds/<class>/<number>.wav: 600 made-up sounds of a machine, one second each at 8 kHz.

Pitch, loudness and moments are drawn at random from a fixed seed, and every sound has noise in it.

    python make_data.py [FOLDER]
"""

from __future__ import annotations

import sys
import wave
from pathlib import Path

import numpy as np

SEED = 5
RATE = 8_000
"""Samples a second."""
COUNT = 150
"""Sounds a class."""


def hum(draw: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    """A steady tone with two overtones: it runs."""
    hz = draw.uniform(150, 600)
    return sum(np.sin(2 * np.pi * hz * k * seconds + draw.uniform(0, 6)) / k for k in (1, 2, 3)) / 1.8


def rising(draw: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    """A tone that climbs by one half to one and a half octaves: it starts."""
    return sweep(draw.uniform(150, 600), draw.uniform(0.5, 1.5), seconds)


def falling(draw: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    """A tone that falls as far: it stops."""
    return sweep(draw.uniform(250, 1000), -draw.uniform(0.5, 1.5), seconds)


def rattle(draw: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    """A hum with short bursts of noise, 6 to 15 a second: it is broken."""
    beats = (seconds * draw.uniform(6, 15) + draw.uniform()) % 1.0
    return 0.6 * hum(draw, seconds) + 1.5 * np.exp(-12 * beats) * draw.uniform(-1, 1, len(seconds))


def sweep(hz: float, octaves: float, seconds: np.ndarray) -> np.ndarray:
    """Pitch hz * 2 ** (octaves * seconds); the phase is its integral."""
    return np.sin(2 * np.pi * hz * (2 ** (octaves * seconds) - 1) / (octaves * np.log(2)))


def main(folder: Path) -> None:
    draw = np.random.default_rng(SEED)
    seconds = np.arange(RATE) / RATE
    for make in (hum, rising, falling, rattle):
        (folder / make.__name__).mkdir(parents=True, exist_ok=True)
        for number in range(COUNT):
            sound = make(draw, seconds) + draw.uniform(0.05, 0.8) * draw.normal(size=RATE)
            sound *= draw.uniform(0.1, 0.9) / np.abs(sound).max()
            with wave.open(str(folder / make.__name__ / f"{number:03d}.wav"), "wb") as file:
                file.setparams((1, 2, RATE, 0, "NONE", ""))  # one channel of 16 bits
                file.writeframes((sound * 32767).astype("<i2").tobytes())
    print(f"{folder}: {4 * COUNT} sounds")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "sounds")
