"""Exit codes, as ``spicenn --help`` lists them."""

FAILED = 1
USAGE = 2
# The work is done and stored, but not all of it succeeded.
INCOMPLETE = 3
BUG = 70
INTERRUPTED = 130
