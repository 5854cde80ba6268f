"""``extauthz ctl``: policies and schemas over the admin API of a server, as ``cerbosctl`` does it."""
