"""What a run must survive: kills, damage, wrong changes of the code."""
