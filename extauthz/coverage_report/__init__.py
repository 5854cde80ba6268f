"""Coverage for people and machines: a table on the terminal, JSON, a page in HTML."""
