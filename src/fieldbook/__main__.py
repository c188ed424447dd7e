"""`python -m fieldbook`: the same as the command `fieldbook`."""

from fieldbook.cli import main

main()
