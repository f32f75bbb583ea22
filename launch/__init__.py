"""Programs that launch experiments: sweeps, processes on one machine, jobs on clusters and pods."""
