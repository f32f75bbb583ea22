"""TPU slices of Google Cloud: their commands, their hosts, and keeping a run going on them."""
