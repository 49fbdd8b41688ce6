"""Tables of rows: names, columns of one type each, row hashes, packing."""
