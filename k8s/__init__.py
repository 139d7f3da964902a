"""Kubernetes manifests, installed as package smoe_ray_k8s; see docs/kubernetes.md."""
