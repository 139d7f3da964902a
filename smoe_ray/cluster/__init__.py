"""All code that uses Ray: the executor, data-parallel training, jobs on a cluster."""
