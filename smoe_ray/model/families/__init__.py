"""Families of models, one module each: how a family is built from its components, and its forward pass."""
