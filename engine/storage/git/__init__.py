"""Policies in a branch of a git repository, followed as it moves.

One module per concern: :mod:`remote` is where the repository is, :mod:`exchange` talks to its server within a
time, :mod:`clone` keeps what was fetched, :mod:`commit` reads the files of one commit, :mod:`store` is the
driver.

Files are read from git's objects and never from a work tree: all files of one commit, or none.
"""
