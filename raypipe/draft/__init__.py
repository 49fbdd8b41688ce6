"""Data -> a pipeline file: what `raypipe init --from` guesses, each guess with a comment beside it."""
