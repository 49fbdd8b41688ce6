"""Writes data/flats.csv: 6,000 made-up offers of flats, with numbers, categories, and gaps where real lists have gaps.

The same seed gives the same bytes. Because we wrote the rules, we know what no model can beat; the last lines say it.

    python make_data.py [FOLDER]
"""

from __future__ import annotations

import csv
import math
import random
import statistics
import sys
from pathlib import Path

NUM_ROWS = 6_000
SEED = 7

LEVELS = {"airport": 2.5, "garden_city": 3.7, "harbour": 4.6, "north": 3.1, "old_town": 5.3, "university": 4.2}
"""District -> thousand euros a square metre."""
CLASSES = "ABCDEFG"
"""Energy classes, best first: their alphabetical order means something, so `ordinal` suits them."""
HEATING = {"district": 0.03, "gas": 0.0, "heat_pump": 0.05, "oil": -0.06}
"""Kind -> what it adds to the price, as a fraction."""

ASKING_SPREAD = 0.15
"""Sellers ask more or less than a flat is worth: standard deviation of the logarithm."""
HASTE = 20.0
"""How strongly a good price sells fast: steepness of the chance in log(worth / asked)."""


def flat(draw: random.Random) -> tuple[dict[str, object], float, float]:
    """One offer, what the flat is worth (million euros), and the chance that it sells within 30 days."""
    district = draw.choice(list(LEVELS))
    area = min(240.0, max(18.0, draw.lognormvariate(math.log(72), 0.4)))
    built = round(2024 - 130 * draw.random() ** 1.5)
    balcony = draw.random() < 0.6
    energy = min(6, max(0, round((2024 - built) / 22 + draw.gauss(0, 1))))
    heating = draw.choices(list(HEATING), weights=(2, 4, 3, 1) if built > 2005 else (2, 5, 0.3, 3))[0]
    worth = LEVELS[district] * area / 1000
    worth *= (1 + HEATING[heating]) * (1 - 0.03 * energy) * (1.04 if balcony else 1.0) * (1.1 if area < 40 else 1.0)
    asked = worth * math.exp(draw.gauss(0, ASKING_SPREAD))
    chance = 1 / (1 + math.exp(-HASTE * math.log(worth / asked)))
    row: dict[str, object] = {
        "area_m2": round(area, 1),
        "rooms": max(1, round(area / 27 + draw.gauss(0, 0.4))),
        "built": "" if draw.random() < 0.08 else built,
        "energy_class": "" if draw.random() < (0.15 if built < 1980 else 0.03) else CLASSES[energy],
        "heating": "" if draw.random() < 0.1 else heating,
        "balcony": str(balcony).lower(),
        "district": district,
        "price_m": round(asked, 4),
        "sold_fast": "yes" if draw.random() < chance else "no",
    }
    return row, worth, chance


def main(folder: Path) -> None:
    draw = random.Random(SEED)
    flats = [flat(draw) for _ in range(NUM_ROWS)]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "flats.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["offer_id", *flats[0][0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"offer_id": 100_000 + i, **row} for i, (row, _, _) in enumerate(flats))
    asked = [float(str(row["price_m"])) for row, _, _ in flats]
    # Who knows the rules and every gap would guess the mean of what sellers ask for such a flat.
    guess = [worth * math.exp(ASKING_SPREAD**2 / 2) for _, worth, _ in flats]
    left = statistics.fmean((a - g) ** 2 for a, g in zip(asked, guess, strict=True))
    print(f"{folder / 'flats.csv'}: {NUM_ROWS} rows")
    print(f"nothing can beat: accuracy {statistics.fmean(max(c, 1 - c) for _, _, c in flats):.3f} on sold_fast")
    print(f"                  r2 {1 - left / statistics.pvariance(asked):.3f}, rmse {math.sqrt(left):.4f} on price_m")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
