"""One command for each figure that the README states: `python -m benchmarks.<name>`."""
