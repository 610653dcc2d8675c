"""Operator tools around the core."""
