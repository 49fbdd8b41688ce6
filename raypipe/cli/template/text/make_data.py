"""messages.csv: what customers write, put together from parts; its rows are always the same."""

import csv
import itertools
from pathlib import Path

ABOUT = {
    "delivery": ["my parcel has not arrived", "the courier left the box elsewhere", "tracking shows no news"],
    "payment": ["I was charged twice", "the invoice shows a wrong amount", "my card was refused at the checkout"],
    "account": ["I cannot log in", "the password link does not work", "please change the e-mail of my profile"],
}
BEFORE = ["Hello,", "Good morning,", "Once more:", "Hi there,", "Help!"]
AFTER = ["", "Please answer soon.", "This is the third time.", "Thank you!", "What can I do?", "It worked last week."]


def main(path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["message", "about"])
        for about, says in ABOUT.items():
            for words in itertools.product(BEFORE, says, AFTER):
                rows.writerow([" ".join(filter(None, words)), about])


if __name__ == "__main__":
    main(Path(__file__).with_name("messages.csv"))
