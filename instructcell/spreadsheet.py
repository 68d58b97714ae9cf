"""Gene names that a spreadsheet has turned into dates (MARCH1 into 1-Mar), and the names they may have been."""

from __future__ import annotations

import re
from datetime import date, timedelta

# Symbols of their day that begin like a month, with the numbers of the family; the larger family goes first.
FAMILIES = {
    3: (("MARCH", range(1, 12)), ("MARC", range(1, 3))),
    9: (("SEPT", range(1, 15)), ("SEP", range(15, 16))),
    10: (("OCT", range(1, 12)),),
    12: (("DEC", range(1, 3)),),
}
MONTHS = {
    "mar": 3, "march": 3, "mrz": 3, "mär": 3, "märz": 3, "sep": 9, "sept": 9, "september": 9,
    "oct": 10, "october": 10, "okt": 10, "dec": 12, "december": 12, "dez": 12,
}  # fmt: skip
SERIAL_ZERO, SERIALS = date(1899, 12, 30), range(36_526, 55_153)  # days as Excel counts them, 2000 to 2050

WORD = r"([A-Za-zä]{3,9})"
REPEAT = r"(?:[._-]\d)?"  # what readers append to a name that repeats
DAY_MONTH = re.compile(rf"(\d{{1,2}})\.?[-. /]{WORD}\.?(?:[-. /](?:\d{{4}}|\d\d))?{REPEAT}")
MONTH_DAY = re.compile(rf"{WORD}\.?[-. /](\d{{1,2}})(?:[-. /,]+(?:\d{{4}}|\d\d))?{REPEAT}")
YEAR_FIRST = re.compile(rf"(?:\d{{4}})[-/.](\d{{1,2}})[-/.](\d{{1,2}})(?:[ T]00:00(?::00)?)?{REPEAT}")
NUMBERS = re.compile(rf"(\d{{1,2}})[/.](\d{{1,2}})[/.](?:\d{{4}}|\d\d){REPEAT}")


def names_behind_date(name: str, *, serials: bool = False) -> list[str]:
    """The gene names that may stand behind a date, the likeliest first; empty when the name is no date.

    Parameters
    ----------
    name
        A gene name of a file: "1-Mar", "Mar-01", "2021-09-02", "3/1/2021".
    serials
        Whether a bare number may be a date too, as Excel stores it (44256 is 2021-03-01).

    Examples
    --------
    >>> names_behind_date("1-Mar")
    ['MARCH1', 'MARC1']
    >>> names_behind_date("2021-09-02")
    ['SEPT2']
    """
    if not name[:1].isdigit() and name[:3].lower() not in MONTHS:
        return []
    month, day = _month_and_day(name, serials)
    return [f"{family}{day}" for family, numbers in FAMILIES.get(month, ()) if day in numbers]


def _month_and_day(name: str, serials: bool) -> tuple[int, int]:
    """Month and day that a name gives, (0, 0) for none. Of 3/9/2021 the first number is the month, as in the US."""
    if found := DAY_MONTH.fullmatch(name):
        return MONTHS.get(found.group(2).lower(), 0), int(found.group(1))
    if found := MONTH_DAY.fullmatch(name):
        return MONTHS.get(found.group(1).lower(), 0), int(found.group(2))
    if found := YEAR_FIRST.fullmatch(name):
        return int(found.group(1)), int(found.group(2))
    if found := NUMBERS.fullmatch(name):
        first, second = int(found.group(1)), int(found.group(2))
        return (first, second) if first in FAMILIES else (second, first)
    if serials and name.isdigit() and len(name) == 5 and int(name) in SERIALS:
        day = SERIAL_ZERO + timedelta(days=int(name))
        return day.month, day.day
    return 0, 0
