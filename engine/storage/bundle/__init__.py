"""Signed bundles of policies: the format, the keys, where they come from, and the store that follows one."""
