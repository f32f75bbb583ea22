"""The parts of training: state, optimizers, steps, losses, evaluation, norms and margins."""
