"""What can be known of a study without running it: its state and best trial, its cost beforehand, a search's history.

Reads specs and results only; imports neither torch nor anything that trains.
"""
