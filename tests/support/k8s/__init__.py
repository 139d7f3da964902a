"""Helpers of the tests of k8s/."""
