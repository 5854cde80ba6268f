"""Warnings about policies that can be used, but hardly mean what they say."""

from engine.advice.warnings import Adviser, Subject, attached

__all__ = ["Adviser", "Subject", "attached"]
