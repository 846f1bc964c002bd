"""What client containers may reach on the network, and nothing else."""
