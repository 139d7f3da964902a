"""Study files that come with smoe-ray, installed as package smoe_ray_studies: docs/studies.md describes them."""
