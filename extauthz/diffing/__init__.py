"""``extauthz diff``: which decisions change between two states of the policies.

One module per concern: :mod:`sides` finds and loads the two states, :mod:`report` writes what differs,
:mod:`command` is the command line. The comparison itself is :mod:`engine.comparison`.
"""
