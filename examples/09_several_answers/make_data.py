"""Writes data/flats.csv: 1,500 made-up flats of a survey, each with labels, two prices, whether it is damp, and how
many flats of the town it stands for.  The same seed gives the same bytes.

    python make_data.py [FOLDER]
"""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

NUM_ROWS, SEED = 1_500, 3


def flat(draw: random.Random) -> dict[str, object]:
    area, floor = round(draw.uniform(20, 140), 1), draw.randrange(7)
    built, street_m = 1900 + round(120 * draw.random()), round(draw.uniform(0, 300))
    labels = [
        label
        for label, points in {
            "bright": floor - 2.5,
            "garden": 1.5 - 2 * floor,
            "quiet": (street_m - 120) / 40,
            "large": (area - 85) / 12,
        }.items()
        if points + draw.gauss(0, 0.6) > 0
    ]
    rent = 6.5 * area + 40 * floor + 0.6 * street_m + draw.gauss(0, 25)
    heating = 1.1 * area * (2030 - built) / 100 + draw.gauss(0, 6)
    damp = (1940 - built) / 18 - 1.6 * floor + draw.gauss(0, 0.5) > 0
    return {
        "area_m2": area,
        "floor": floor,
        "built": built,
        "street_m": street_m,
        "labels": ";".join(labels),
        "rent_eur": round(rent, 2),
        "heating_eur": round(max(heating, 0.0), 2),
        "damp": "yes" if damp else "no",
        "stands_for": draw.choice((2, 5, 11)) if built < 1950 else 1,
    }


def main(folder: Path) -> None:
    draw = random.Random(SEED)
    rows = [flat(draw) for _ in range(NUM_ROWS)]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "flats.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{folder / 'flats.csv'}: {len(rows)} rows, {sum(row['damp'] == 'yes' for row in rows)} of them damp")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
