"""The only Ray: executors, distributed training, jobs on a cluster."""
