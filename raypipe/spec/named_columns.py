"""Which columns a data spec names, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # spec/data.py asks this module
    from raypipe.spec.data import DataSpec


def named_columns(spec: DataSpec) -> dict[str, tuple[str, ...]]:
    """The place in `data` -> the columns it names, those of `where` left out, which choose rows and need not stay."""
    places = {
        "features": tuple(spec.features or ()),
        "target": spec.targets,
        "weight": () if spec.weight is None else (spec.weight,),
        "split": (*spec.split.reads, *([spec.stratify_by] if spec.stratify_by else [])),
    }
    places |= {f"masking[{i}]": tuple(mask.columns) for i, mask in enumerate(spec.masking)}
    places |= {f"transforms[{i}] ({each.kind})": tuple(each.columns) for i, each in enumerate(spec.transforms)}
    places |= {f"expectations[{i}] ({each.kind})": each.reads for i, each in enumerate(spec.expectations)}
    return places


def refuse_unread(spec: DataSpec) -> None:
    """Raise ValueError where `columns` of a source leaves out a column that something else names."""
    for part in spec.parts():
        read = part.source.columns
        if read is None:
            continue
        there = set(read)
        for place, names in named_columns(spec).items():
            left_out = [name for name in dict.fromkeys(names) if name not in there]
            if left_out:
                raise ValueError(
                    f"{place} names {left_out}, but {part.field}.columns does not read it: it reads {read[:50]}; add "
                    f"it to {part.field}.columns, or leave it out of {place}"
                )
