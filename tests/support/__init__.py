"""Helpers that tests of several folders share, by role; nothing here is a test."""
