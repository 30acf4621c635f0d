"""Print the table of results/reproductions."""

from tests.reproductions import table

print(table(), end="")
