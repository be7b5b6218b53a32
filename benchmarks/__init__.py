"""Benchmarks against common alternatives: `python -m benchmarks --help`. README.md has the results."""
