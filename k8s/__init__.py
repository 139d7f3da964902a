"""Kubernetes manifests, installed as package smoe_ray_k8s: docs/kubernetes.md describes them."""
