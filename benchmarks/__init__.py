"""Benchmarks and fits: each module prints what it measured."""
