"""Side by side with others: ``python -m tests.bench.peers [--quick] [--json FILE]``; see docs/benchmarks.md.

Each server is a row (:data:`tests.bench.peers.sides.SIDES`); all of them answer the same question by
equivalent policies, under the same load, taking turns. What does not answer as it has to is left out, and
named.
"""
