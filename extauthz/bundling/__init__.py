"""``extauthz bundle``: making, signing, checking and publishing bundles of policies."""
