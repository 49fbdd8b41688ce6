"""`python -m raypipe` is `raypipe`."""

from raypipe.cli.main import main

main()
