"""Contract tests, and what they need, for authors of executors and plug-ins. Needs pytest."""
