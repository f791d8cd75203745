"""What a process is doing and has done, in numbers, and where others can see it."""
