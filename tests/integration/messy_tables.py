"""CSV as strangers publish it: spreadsheets of three countries, pandas and R, databases, loggers, surveys.

One Table a file, in TABLES: what its writer leaves, what a person reads in it, and one variant that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Cells = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Table:
    """One published file.

    Attributes:
        data: its bytes.
        values: what a person reads, by column; texts as they are, dates as ISO 8601.
        spec: what a user writes at first, beside the path: fields of `data`, those of `source` under `source`.
        settings: fields of `data.source` that it needs, each of which a message names.
        refused: a part of the refusal of a file that nothing can read.
        corrupted: bytes of the wrong variant.
        told: a part of what is said of that.
    """

    data: bytes
    corrupted: bytes
    told: str
    values: dict[str, list[Any]] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    refused: str = ""


def lines(*rows: str, end: str = "\n") -> str:
    return "".join(row + end for row in rows)


GERMAN = lines(
    "Filiale;Umsatz;Anteil;Datum;PLZ;Klasse",
    "Köln;1.234,50 €;12,5 %;31.01.2024;01067;a",
    "Bonn;-3,20 €;7 %;01.02.2024;53111;b",
    "Ulm;12.000.000,00 €;80,5 %;29.02.2024;89073;a",
)
GERMAN_VALUES: dict[str, list[Any]] = {
    "Filiale": ["Köln", "Bonn", "Ulm"],
    "Umsatz": [1234.5, -3.2, 12e6],
    "Anteil": [12.5, 7.0, 80.5],
    "Datum": ["2024-01-31", "2024-02-01", "2024-02-29"],
    "PLZ": ["01067", "53111", "89073"],
}
KLASSE = {"target": "Klasse"}
AMERICAN = lines(
    "Store,Sales,Share,Date,Zip,Open,Class",
    'Austin,"$1,234.50",12.5%,1/31/2024,02139,8:30 AM,a',
    'Boston,"($3.20)",7%,2/1/2024,73301,9:00 AM,b',
    'Reno,"$12,000,000.00",80.5%,2/29/2024,89501,12:15 PM,a',
)
FRENCH = lines(
    "Magasin;Chiffre;Date;Ouvert;Classe",
    "Orléans;1\u202f234,50;31/01/2024 08:30;oui;a",
    "Évry;-3,20;01/02/2024 17:05;non;b",
    "Nîmes;12\u202f000,00;29/02/2024 23:59;oui;a",
    end="\r\n",
)
SENSOR = lines(
    "# logger 17, firmware 2.3", "# site: roof", "time\tt_in\tt_out\tstate", "2024-01-31 12:00:00\t20.5\t-3.25\ton",
    "2024-01-31 12:10:00\t20.75\t-\toff", "# restarted", "2024-01-31 12:20:00\t21\t-2.5\ton",
)  # fmt: skip
IRIS = lines("5.1,3.5,1.4,0.2,setosa", "4.9,3.0,1.4,0.2,setosa", "7.0,3.2,4.7,1.4,versicolor")
IRIS_NAMES = ["sepal_length", "sepal_width", "petal_length", "petal_width", "species"]
SURVEY = lines(
    "id,age,smoker,commute,answer,,",
    "1,34,Yes,0:45,agree,,",
    "2,N/A,No,1:05,disagree,,",
    "3,51,No,0:20,agree,,",
)
MYSQL = lines('1|Ann \\"Bee\\" O\\|Hara|\\N|2024-01-31|x', "2|Bo|3.5|2024-02-01|y", "3|Cy|4|2024-02-02|x")
POSTGRES = lines("id,ok,amount,at,kind", "1,t,3.50,2024-01-31 12:00:00+00,x", "2,f,,2024-02-01 08:30:00+00,y")
LABELS = lines("x,kind", *(f"{i / 8},{'setosa' if i % 2 else 'virginica'}" for i in range(40)))
WEIGHTS = lines("kg;y", "70,5;a", "82,25;b", "64,0;a")


def of(text: str, encoding: str = "utf-8") -> bytes:
    return text.encode(encoding)


TABLES: dict[str, Table] = {
    # --- spreadsheets of three countries
    "german spreadsheet": Table(
        of(GERMAN),
        of(GERMAN.replace("-3,20 €", "-3.20 €")),
        "'-3.20 €' is not written like the other numbers",
        GERMAN_VALUES,
        KLASSE,
    ),
    "german spreadsheet of Windows": Table(
        of(GERMAN, "cp1252"),
        of(GERMAN),  # saved as UTF-8 meanwhile
        "it is UTF-8 text with characters beyond ASCII",
        GERMAN_VALUES,
        KLASSE,
        {"encoding": "cp1252"},
    ),
    "german spreadsheet with a byte order mark": Table(
        of(GERMAN, "utf-8-sig"),
        of(GERMAN.replace("7 %", "0,07")),
        "'0,07' is not written like the other numbers",
        GERMAN_VALUES,
        KLASSE,
    ),
    "german spreadsheet as Unicode text": Table(
        of(GERMAN.replace(";", "\t"), "utf-16"),
        of(GERMAN.replace(";", "\t"), "utf-16")[:-1],
        "is no utf-16 text",
        GERMAN_VALUES,
        KLASSE,
    ),
    "german spreadsheet that names its separator": Table(
        of("sep=;\n" + GERMAN),
        of("sep=;\n" + GERMAN.replace("Bonn;", "Bonn;;")),
        "the row has 7 values",
        GERMAN_VALUES,
        KLASSE,
    ),
    "german spreadsheet with a title": Table(
        of("Umsätze 2024\n\n" + GERMAN),
        of("Umsätze 2024\n\nStand: heute\n" + GERMAN),
        "is no header",
        GERMAN_VALUES,
        KLASSE,
        {"skip_lines": 2},
    ),
    "american spreadsheet": Table(
        of(AMERICAN),
        of(AMERICAN.replace('"($3.20)"', "3.20")),  # the unit is gone
        "'3.20' is not written like the other numbers",
        {
            "Sales": [1234.5, -3.2, 12e6],
            "Share": [12.5, 7.0, 80.5],
            "Date": ["2024-01-31", "2024-02-01", "2024-02-29"],
            "Zip": ["02139", "73301", "89501"],
            "Open": [30600.0, 32400.0, 44100.0],
        },
        {"target": "Class", "features": ["Sales", "Share", "Date", "Zip", "Open"], "encoded": ["Date", "Zip"]},
    ),
    "american spreadsheet of whole thousands": Table(
        of(lines("city,people,y", '"Reno","264,165",a', '"Waco","138,486",b')),
        of(lines("city,people,y", '"Reno","264,165",a', '"Waco","138,48",b')),
        "'138,48' is not written like the other numbers",
        {"people": [264165.0, 138486.0]},
        {"features": ["people"]},
        {"thousands": ","},
    ),
    "french spreadsheet": Table(
        of(FRENCH),
        of(FRENCH.replace("1\u202f234,50", "1\u202f23,50")),
        "'Chiffre' holds text",
        {
            "Magasin": ["Orléans", "Évry", "Nîmes"],
            "Chiffre": [1234.5, -3.2, 12000.0],
            "Date": ["2024-01-31T08:30", "2024-02-01T17:05", "2024-02-29T23:59"],
            "Ouvert": [1.0, 0.0, 1.0],
        },
        {"target": "Classe", "encoded": ["Magasin", "Date"]},
    ),
    "british dates": Table(
        of(lines("day,n,y", "03/04/2024,1,a", "05/06/2024,2,b")),
        of(lines("day,n,y", "03/04/2024,1,a", "13/14/2024,2,b")),
        "no column holds dates like '%d/%m/%Y' in every row",
        {"day": ["2024-04-03", "2024-06-05"]},
        {"dates": ["day"]},
        {"date_format": "%d/%m/%Y"},
    ),
    "dates that only one order fits": Table(
        of(lines("day,n,y", "03/04/2024,1,a", "05/16/2024,2,b")),
        of(lines("day,n,y", "03/04/2024,1,a", "05/06/2024,2,b")),  # it fits two orders
        'its dates may be "%d/%m/%Y" or "%m/%d/%Y"',
        {"day": ["2024-03-04", "2024-05-16"]},
        {"dates": ["day"]},
    ),
    "swiss amounts": Table(
        of(lines("Ort;Betrag;y", "Zug;CHF 1'234.50;a", "Uri;CHF -20.05;b")),
        of(lines("Ort;Betrag;y", "Zug;CHF 1'234.50;a", "Uri;EUR -20.05;b")),
        "'Betrag' holds text",
        {"Betrag": [1234.5, -20.05]},
    ),
    # --- pandas and R
    "pandas with its index": Table(
        of(lines(",x,y", "0,1.5,a", "1,,b", "2,2.5,a")),
        of(lines(",x,y", "0,1.5,a", "1,b", "2,2.5,a")),
        "the row has 2 values",
        {"x": [1.5, None, 2.5]},
        {"imputed": ["x"]},
    ),
    "pandas of merged tables": Table(
        of(lines("key,v,v,y", "1,2,3,a", "2,3,4,b")),
        of(lines("key,v,v,y", "1,2,3,a", "2,3,b")),
        "the row has 3 values",
        {"key": [1, 2]},
        {"features": ["key"]},
    ),
    "pandas time spans": Table(
        of(lines("took,y", "0 days 00:01:30,a", "1 days 02:00:00,b")),
        of(lines("took,y", "0 days 00:01:30,a", "1 days 02:75:00,b")),
        "'took' holds text",
        {"took": [90.0, 93600.0]},
    ),
    "R with row names": Table(
        of(lines('"x","y"', '"Fiat",1.5,"a"', '"Opel",NA,"b"', '"Seat",2,"a"', '"Audi",3,"b"')),
        of(lines('"x","y"', '"Fiat",1.5,"a"', '"Opel",NA,"b"', '"Seat",2', '"Audi",3,"b"')),
        "the header has 2 cells, 3 of the first 4 rows have 3",
        {"x": [1.5, None, 2.0, 3.0]},
        {"imputed": ["x"]},
    ),
    "R with semicolons": Table(
        of(lines('"g";"m";"y"', '"u";1,25;"a"', '"v";NA;"b"', '"u";-2;"a"')),
        of(lines('"g";"m";"y"', '"u";1,25;"a"', '"v";NA;"b"', '"u";-2.5;"a"')),  # a point among commas
        "'m' holds text",
        {"g": ["u", "v", "u"], "m": [1.25, None, -2.0]},
        {"imputed": ["m"]},
    ),
    "no header": Table(
        of(IRIS),
        of(IRIS.replace("4.9,3.0", "3.0")),
        "the row has 4 values",
        {"sepal_length": [5.1, 4.9, 7.0], "species": ["setosa", "setosa", "versicolor"]},
        {"target": "species"},
        {"header": False, "columns": IRIS_NAMES},
    ),
    "bars": Table(
        of(lines("a|b|y", "1|u, v|p", "2|w; x|q")),
        of(lines("a|b|y", "1|u|v|p", "2|w|q")),
        "the row has 4 values",
        {"a": [1, 2], "b": ["u, v", "w; x"]},
    ),
    # --- databases
    "mysql dump": Table(
        of(MYSQL),
        of(MYSQL.replace("O\\|Hara", "O|Hara")),
        "the row has 6 values",
        {"name": ['Ann "Bee" O|Hara', "Bo", "Cy"], "amount": [None, 3.5, 4.0],
         "day": ["2024-01-31", "2024-02-01", "2024-02-02"]},
        {"target": "kind", "imputed": ["amount"], "features": ["name", "amount", "day"],
         "source": {"header": False, "columns": ["id", "name", "amount", "day", "kind"]}},
    ),
    "postgres copy": Table(
        of(POSTGRES),
        of(POSTGRES.replace(",t,", ",maybe,")),
        "'ok' holds text",
        {"ok": [1.0, 0.0], "amount": [3.5, None]},
        {"target": "kind", "features": ["ok", "amount"], "imputed": ["amount"]},
    ),
    "codes with leading zeros": Table(
        of(lines("code,x,y", "7,1,a", "0012,2,b", "31,3,a")),
        of(lines("code,x,y", "7,1,a", "0012,2", "31,3,a")),
        "the row has 2 values",
        {"code": ["7", "0012", "31"]},
    ),
    "texts with line breaks": Table(
        of('id,note,y\n1,"two\nlines, and ""quotes""",a\n2,,b\n3,x,a\n'),
        of('id,note,y\n1,"two\nlines, and ""quotes"",a\n2,"",b\n3,x,a\n4,z,b\n'),
        "opens a quote that is never closed",
        {"note": ['two\nlines, and "quotes"', None, "x"]},
        {"imputed": ["note"]},
    ),
    "single quotes": Table(
        of(lines("a;b;y", "'u; v';1,5;p", "'w';2,5;q")),
        of(lines("a;b;y", "'u; v;1,5;p", "'w';2,5;q", "'x';3,5;p")),
        "the row has 4 values",
        {"a": ["u; v", "w"], "b": [1.5, 2.5]},
    ),
    "single quotes around every text": Table(
        of(lines("a;b;y", "'u';1,5;p", "'w';2,5;q")),
        of(lines("a;b;y", "'u;1,5;p", "'w';2,5;q", "'x';3,5;p")),
        "holds text behind a closing quote",
        {"a": ["u", "w"], "b": [1.5, 2.5]},
        {},
        {"quote": "'"},
    ),
    # --- sensors and surveys
    "sensor log": Table(
        of(SENSOR),
        of(SENSOR.replace("20.75", "20,75")),  # another logger's comma
        "'t_in' holds text",
        {"t_in": [20.5, 20.75, 21.0], "t_out": [-3.25, None, -2.5],
         "time": ["2024-01-31 12:00:00", "2024-01-31 12:10:00", "2024-01-31 12:20:00"]},
        {"target": "state", "imputed": ["t_out"]},
        {"comment": "#"},
    ),
    "sensor log of compact dates": Table(
        of(lines("day,v,y", "20240131,1.5,a", "20240201,2.5,b")),
        of(lines("day,v,y", "20240131,1.5,a", "20240231,2.5,b")),
        "'day' is '20240231', which is no date like %Y%m%d",
        {"day": ["2024-01-31", "2024-02-01"]},
        {"dates": ["day"]},
        {"date_format": {"day": "%Y%m%d"}},
    ),
    "survey export": Table(
        of(SURVEY),
        of(SURVEY.replace("Yes", "Yess")),
        "'smoker' holds text",
        {"age": [34, None, 51], "smoker": [1.0, 0.0, 0.0], "commute": [2700.0, 3900.0, 1200.0]},
        {"target": "answer", "imputed": ["age"]},
    ),
    "survey with a misspelt answer": Table(
        of(LABELS),
        of(LABELS.replace("setosa", "setsoa", 1)),
        "has classes of a row or two that are written nearly like others: 'setsoa' (1 rows) like 'setosa'",
        {"x": [i / 8 for i in range(40)]},
        {"target": "kind"},
    ),
    "weights of one country": Table(
        of(WEIGHTS),
        of(WEIGHTS.replace("82,25", "82.25")),
        "'kg' holds text",
        {"kg": [70.5, 82.25, 64.0]},
    ),
    # --- what nothing can read
    "two tables in one file": Table(
        of(lines("a,b,y", "1,2,x", "3,4,z", "", "c,d,e,f,g", "1,2,3,4,5")),
        of(lines("a,b,y", "1,2,x", "3,4,z", "c,d,e,f,g")),
        "the row has 5 values",
        refused="the row has 5 values, the header 3",
    ),
    "cells that two separators divide": Table(
        of(lines("a,1;b,2;y", "1,5;2,5;x", "2,5;3,5;z")),
        of(lines("a,1;b,2;y", "1,5;2,5;x")),
        "can be divided at ',' and ';'",
        refused="can be divided at ',' and ';'",
    ),
}  # fmt: skip
