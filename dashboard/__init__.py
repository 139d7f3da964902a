"""The dashboard: browse studies while they run. `smoe-ray dashboard OUT` starts it; docs/dashboard.md describes it.

A page of `views/` loads (`load`), analyses (`smoe_ray.analysis`) and draws (`charts/`); it reads OUT and never writes.
"""
