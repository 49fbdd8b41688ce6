"""What rows must hold, in the order a block meets it.

`schema` is made of the types of all blocks; `examine` holds every row against it, `expectations` against what the file
asks beyond (a `rule` a kind, in `row_rules` and `set_rules`; `duplicates` for keys), and `verdicts` judges the whole.
Rows that hold too little are `bad_rows`: `losses` tells what the model does without them, `remedies` what helps.
Where text stops a column of numbers, `stray` tells which text.  `warnings` is all that is worth acting on before a
model learns: `suspects` that should be no features, `class_warnings`, `tails`, `split_drift`.
"""
