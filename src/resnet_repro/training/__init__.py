"""Training one run: schedule, step, loop, checkpoint, launch."""
