"""Traces and comparisons as text, pages and pictures."""
