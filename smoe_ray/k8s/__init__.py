"""Studies on Kubernetes: thin over kubectl and the official client, which are needed when a cluster is spoken to."""
