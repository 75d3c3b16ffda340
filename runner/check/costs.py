"""Does a step cost what the cards say?"""

from __future__ import annotations

from runner.check.cards import Rows, declared
from runner.check.result import Result, verdict
from runner.check.subject import Subject
from runner.check.trial import Step

WHOLE, PERIODIC = 0.02, 0.25  # tolerated relative gaps, for whole numbers and for averages over a period

PLACE = "in the card; of a library's class, in a comment of its YAML"


def check_cost(subject: Subject) -> Result:
    """Rows passed forward, backward and through hvp for each drawn row are as the cards declare.

    A card states the cost of a step of the default composition with that part in it, so a lone part is
    compared as it stands. Parts multiply forward and backward (SAM, 2 and 2, around the default, 1 and 1)
    and add their hvp. What set-up and evaluations pass is not part of a step. Of a class of a library the
    comments of its YAML may say it; otherwise it passes 1 forward and 1 backward.
    """
    cards = [declared(target, subject.config_dirs) for _, target in subject.targets()]
    said = composed([card for card in cards if card is not None])
    found = measured(subject.long.steps)
    wrong = [name for name in Rows._fields if not _agree(getattr(said, name), getattr(found, name))]
    gaps = (f"{getattr(found, name):.4g} {name}, not {getattr(said, name):.4g}" for name in wrong)
    fault = f"a drawn row costs {'; '.join(gaps)} as declared (Cost: {PLACE})"
    return verdict(fault if wrong else None)


def composed(cards: list[Rows]) -> Rows:
    """The cost of several parts together."""
    forward = backward = 1.0
    for card in cards:
        forward, backward = forward * card.forward, backward * card.backward
    return Rows(forward, backward, sum(card.hvp for card in cards))


def measured(steps: list[Step]) -> Rows:
    """Rows for each drawn row, over all steps."""
    drawn = sum(step.cost["drawn"] for step in steps)
    return Rows(*(sum(step.cost[name] for step in steps) / max(drawn, 1) for name in Rows._fields))


def _agree(said: float, found: float) -> bool:
    tolerance = WHOLE if said == round(said) else PERIODIC
    return abs(said - found) <= tolerance * max(said, 0.1)
