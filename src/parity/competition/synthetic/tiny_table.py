"""The project's second synthetic competition, of plain tables: repair articles for tickets.

`python -m parity.competition.synthetic.tiny_table data/tiny-table` writes it again. It has text
ids, several labels per row, units of several rows, a group, and a submission of ten ids.
"""

import csv
import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

from parity.run import digest, files

SEED = 0
TICKETS, NEW, ARTICLES, LINKS, SOLUTION = (
    "tickets.csv",
    "new_tickets.csv",
    "articles.csv",
    "links.csv",
    "solution.csv",
)
_TRAIN, _TEST = 160, 40
_PRODUCTS = ("kettle", "toaster", "printer", "lamp", "mixer", "radio", "fan", "vacuum cleaner")
_FAULTS = {
    "does not start": ("stays dead when I press the switch", "will not turn on at all"),
    "gets too hot": ("is burning hot to the touch", "overheats after two minutes"),
    "makes a noise": ("rattles loudly", "hums and buzzes the whole time"),
    "smells burnt": ("has a scorched smell", "smells as if something melts inside"),
    "leaks": ("leaves a puddle under it", "drips from the bottom"),
    "stops early": ("switches itself off too soon", "quits before it is done"),
    "has a loose cable": ("only works if I hold the cord", "has a wobbly cord"),
    "shows a red light": ("keeps blinking red", "has a red warning lamp that never goes off"),
}
_ADVICE = {
    "does not start": "Check the fuse and the socket, then hold the switch for five seconds.",
    "gets too hot": "Clean the vents and let the device cool down for an hour.",
    "makes a noise": "Tighten the screws of the housing and put a felt pad under it.",
    "smells burnt": "Unplug the device and have the insulation replaced.",
    "leaks": "Replace the rubber seal and wipe the tray dry.",
    "stops early": "Reset the timer and update the settings.",
    "has a loose cable": "Order a new power cord and fix it with the clamp.",
    "shows a red light": "Hold the reset button until the lamp turns green.",
}
_OPENINGS = (
    "Hello, my {product}",
    "Since Monday the {product}",
    "The {product} I bought {days} days ago",
)
_README = """\
# Tiny table competition: repair articles for tickets

Made from seed {seed} by `python -m parity.competition.synthetic.tiny_table data/tiny-table`; do not
edit. License: CC0 1.0, public domain. No text here comes from another competition.

`{tickets}` are labeled by `{links}`, `{new}` are to be predicted, `{articles}` are the passages.
`{solution}` holds the labels of `{new}`; mining, training and prompts must never read it.
`runs/tiny-table.toml` describes the tables.
"""


def generate(seed: int) -> dict[str, str]:
    """Return file name → text; the bytes depend on the seed alone."""
    random = Random(int(digest.of_text(f"tiny table, seed {seed}"), 16))
    articles = [
        (_article(product, fault), f"The {product} {fault}", _ADVICE[fault])
        for product in _PRODUCTS
        for fault in _FAULTS
    ]
    random.shuffle(articles)  # the order of a file is not the order of its ids
    train, train_labels = _tickets(random, 0, _TRAIN)
    test, test_labels = _tickets(random, _TRAIN, _TEST)
    columns = ("ticket", "customer", "product", "subject", "message")
    return {
        ARTICLES: _csv(("article", "headline", "advice"), articles),
        TICKETS: _csv(columns, train),
        NEW: _csv(columns, test),
        LINKS: _csv(
            ("ticket", "articles"),
            ((ticket, ";".join(labels)) for ticket, labels in train_labels.items()),
        ),
        SOLUTION: _csv(
            ("ticket", "articles"),
            ((ticket, " ".join(labels)) for ticket, labels in test_labels.items()),
        ),
        "README.md": _README.format(
            seed=seed, tickets=TICKETS, new=NEW, articles=ARTICLES, links=LINKS, solution=SOLUTION
        ),
    }


def _tickets(
    random: Random, first: int, count: int
) -> tuple[list[tuple[str, ...]], dict[str, list[str]]]:
    """Return the rows of `count` tickets and their labels, one to three each."""
    rows: list[tuple[str, ...]] = []
    labels: dict[str, list[str]] = {}
    customer = first
    for number in range(first, first + count):
        if number == first or random.random() < 0.6:
            customer = number
        product = random.choice(_PRODUCTS)
        faults = random.sample(sorted(_FAULTS), random.choice((1, 1, 2, 2, 3)))
        opening = random.choice(_OPENINGS).format(product=product, days=random.randrange(2, 60))
        symptoms = " and ".join(random.choice(_FAULTS[fault]) for fault in faults)
        ticket = f"T{number:04d}"
        message = f"{opening} {symptoms}. Order {random.randrange(10_000, 99_999)}. Please help!"
        rows.append((ticket, f"C{customer:04d}", product, f"Problem with my {product}", message))
        labels[ticket] = [_article(product, fault) for fault in faults]
    return rows, labels


def _article(product: str, fault: str) -> str:
    return f"{product}-{fault}".replace(" ", "-")


def _csv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")  # bytes that git leaves alone
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def main(arguments: Sequence[str]) -> None:
    """Write the competition into the one folder named."""
    (folder,) = map(Path, arguments)
    for name, text in generate(SEED).items():
        files.write_text(folder / name, text)


if __name__ == "__main__":
    main(sys.argv[1:])
