"""Measurements: ``python -m tests.bench [--json FILE] [--only NAME]``.

A phase is a row in :data:`tests.bench.__main__.PHASES` and a function that yields measurements
(:class:`tests.bench.measure.Measurement`).
"""
