"""Studies on Kubernetes: a thin layer over kubectl and the official client, which are imported only when needed."""
