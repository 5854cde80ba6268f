"""Policies in a relational database, in the tables of Cerbos."""
