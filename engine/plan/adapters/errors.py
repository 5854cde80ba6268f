"""The error that all adapters raise."""

from __future__ import annotations


class AdapterError(Exception):
    """The filter of a plan has something that the adapter cannot say; the message tells what to do."""
