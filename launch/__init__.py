"""Programs that launch experiments: sweeps here, jobs on clusters and pods."""
