"""Experiments: each file lists its ROWS, and get_config(row) builds the config of one."""
