"""The one training loop: schedule, running average, checkpoint, log, clipping."""
