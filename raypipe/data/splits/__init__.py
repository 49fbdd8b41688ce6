"""Train, val or test for every row, and rows that are in more than one."""
