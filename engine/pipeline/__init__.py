"""Work in stages that overlap in time: threads, bounded queues, results in order."""
