"""Plug-ins for smoe-ray: a data source, an encoder and an objective."""
