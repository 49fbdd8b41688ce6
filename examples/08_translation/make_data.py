"""Writes phrases.csv: 20,000 dates as people write them, and each as ISO 8601.

Days, months and years are drawn at random from a fixed seed, and so is the way each is written.

    python make_data.py [FILE]
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

SEED = 8
COUNT = 20_000
FIRST, LAST = date(1950, 1, 1), date(2049, 12, 31)

MONTHS = ["january", "february", "march", "april", "may", "june", "july"]
MONTHS += ["august", "september", "october", "november", "december"]
WEEKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
ONES = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"]
ORDINALS = [*ONES, "tenth", "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth"]
ORDINALS += ["eighteenth", "nineteenth", "twentieth", *(f"twenty-{one}" for one in ONES), "thirtieth", "thirty-first"]


def numbered(day: int) -> str:
    """1 -> 1st."""
    return f"{day}{'th' if 10 < day < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"


WAYS: tuple[Callable[[date, str], str], ...] = (
    lambda day, month: f"the {ORDINALS[day.day - 1]} of {month} {day.year}",
    lambda day, month: f"{month} the {ORDINALS[day.day - 1]}, {day.year}",
    lambda day, month: f"{day.day} {month[:3].title()} {day.year}",
    lambda day, month: f"{day.day:02d} {month.upper()} {day.year}",
    lambda day, month: f"{month.title()} {day.day}, {day.year}",
    lambda day, month: f"{numbered(day.day)} {month} {day.year}",
    lambda day, month: f"{WEEKDAYS[day.weekday()].title()}, {day.day} {month.title()} {day.year}",
    lambda day, month: f"{day.day}.{day.month}.{day.year}",
    lambda day, month: f"{day.year}/{day.month:02d}/{day.day:02d}",
)


def main(file: Path) -> None:
    draw = random.Random(SEED)
    span = (LAST - FIRST).days
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["phrase", "date"])
        for _ in range(COUNT):
            day = FIRST + timedelta(draw.randrange(span + 1))
            writer.writerow([draw.choice(WAYS)(day, MONTHS[day.month - 1]), day.isoformat()])
    print(f"{file}: {COUNT:,} phrases")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "phrases.csv")
