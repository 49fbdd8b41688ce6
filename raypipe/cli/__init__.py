"""Words a person types: thin commands that parse, call one function and print one record."""
