"""Envoy external authorization."""
