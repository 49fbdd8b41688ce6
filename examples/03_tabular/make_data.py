"""Writes data/flats.csv: 6,000 made-up offers of flats, with numbers, categories, dates, gaps where real lists have
gaps, and sellers' addresses, then 25 rows that are wrong; and data/flats_2025.csv, 2,000 offers of the year after, when
prices are higher by a fifth.

The same seed gives the same bytes. Because we wrote the rules, we know what no model can beat; the last lines say it.

    python make_data.py [FOLDER]
"""

from __future__ import annotations

import csv
import math
import random
import statistics
import sys
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

NUM_ROWS, NUM_LATER_ROWS = 6_000, 2_000
SEED = 7

LEVELS = {"airport": 2.5, "garden_city": 3.7, "harbour": 4.6, "north": 3.1, "old_town": 5.3, "university": 4.2}
"""District -> thousand euros a square metre."""
CLASSES = "ABCDEFG"
"""Energy classes, best first: their alphabetical order means something, so `ordinal` suits them."""
HEATING = {"district": 0.03, "gas": 0.0, "heat_pump": 0.05, "oil": -0.06}
"""Kind -> what it adds to the price, as a fraction."""
VIEW = 1.15
"""What a balcony multiplies the price by in the harbour; elsewhere 1.04."""
AGENCIES = [
    f"{name} {kind}" for name in ("Adler", "Brandt", "Castell", "Dorn", "Eck") for kind in ("& Co", "Homes", "Living")
]
NAMES = [f"{first} {last}" for first in ("Ada", "Ben", "Cem", "Dea", "Eli", "Fay") for last in ("Ost", "Poe", "Ruf")]

ASKING_SPREAD = 0.15
"""Sellers ask more or less than a flat is worth: standard deviation of the logarithm."""
HASTE = 20.0
"""How strongly a good price sells fast: steepness of the chance in log(worth / asked)."""
SEASON, SKILL = 1.0, 0.8
"""What April (against October) and the agency add to the log-odds: amplitude, and standard deviation over agencies."""


@dataclass(frozen=True)
class Flat:
    """One offer, what it is worth (million euros), and the chance that it sells within 30 days."""

    row: dict[str, object]
    worth: float
    chance: float


def flat(draw: random.Random, number: int, year: int, skill: dict[str, float]) -> Flat:
    district = draw.choice(list(LEVELS))
    area = min(240.0, max(18.0, draw.lognormvariate(math.log(72), 0.4)))
    built = round(2024 - 130 * draw.random() ** 1.5)
    balcony = draw.random() < 0.6
    energy = min(6, max(0, round((2024 - built) / 22 + draw.gauss(0, 1))))
    heating = draw.choices(list(HEATING), weights=(2, 4, 3, 1) if built > 2005 else (2, 5, 0.3, 3))[0]
    agency = draw.choice(AGENCIES)
    listed = date(year, 1, 1) + timedelta(days=draw.randrange(365))
    worth = LEVELS[district] * area / 1000 * 1.2 ** (year - 2024) * (1.1 if area < 40 else 1.0)
    worth *= (1 + HEATING[heating]) * (1 - 0.03 * energy)
    worth *= (VIEW if district == "harbour" else 1.04) if balcony else 1.0
    asked = worth * math.exp(draw.gauss(0, ASKING_SPREAD))
    odds = HASTE * math.log(worth / asked) + SEASON * math.cos(2 * math.pi * (listed.month - 4) / 12) + skill[agency]
    chance = 1 / (1 + math.exp(-odds))
    name = draw.choice(NAMES)
    row: dict[str, object] = {
        "offer_id": number,
        "listed_on": listed.isoformat(),
        "seller_name": name,
        "seller_email": f"{name.lower().replace(' ', '.')}{draw.randrange(1000)}@example.org",
        "seller_phone": f"+49 30 555{draw.randrange(10**5):05d}",
        "agency": agency,
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
    return Flat(row, worth, chance)


def wrong(draw: random.Random, rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Five rows of each kind that a real list has: copies of good rows, each with one mistake."""
    found: list[dict[str, object]] = []
    for i, row in enumerate(draw.sample(rows, 25)):
        year, month, day = str(row["listed_on"]).split("-")
        mistake: dict[str, object] = [
            {"area_m2": round(float(str(row["area_m2"])) * 100)},  # the decimal point was forgotten
            {"energy_class": "Z"},
            {"listed_on": f"{day}.{month}.{year}"},
            {"price_m": ""},
            {"price_m": round(float(str(row["price_m"])) * 1.02, 4)},  # offered again under its old number
        ][i % 5]
        number = row["offer_id"] if i % 5 == 4 else 900_000 + i
        found.append({**row, "offer_id": number, **mistake})
    return found


def write(path: Path, rows: list[dict[str, object]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{path}: {len(rows)} rows")


def main(folder: Path) -> None:
    draw = random.Random(SEED)
    skill = {agency: draw.gauss(0, SKILL) for agency in AGENCIES}
    flats = [flat(draw, 100_000 + i, 2024, skill) for i in range(NUM_ROWS)]
    later = [flat(draw, 200_000 + i, 2025, skill) for i in range(NUM_LATER_ROWS)]
    rows = [item.row for item in flats]
    rows += wrong(draw, rows)
    draw.shuffle(rows)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "flats.csv", rows)
    write(folder / "flats_2025.csv", [item.row for item in later])
    asked = [float(str(item.row["price_m"])) for item in flats]
    # Who knows the rules and every gap would guess the mean of what sellers ask for such a flat.
    guess = [item.worth * math.exp(ASKING_SPREAD**2 / 2) for item in flats]
    left = statistics.fmean((a - g) ** 2 for a, g in zip(asked, guess, strict=True))
    best = statistics.fmean(max(item.chance, 1 - item.chance) for item in flats)
    print(f"nothing can beat: accuracy {best:.3f} on sold_fast")
    print(f"                  r2 {1 - left / statistics.pvariance(asked):.3f}, rmse {math.sqrt(left):.4f} on price_m")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
