"""How far a run is, told from its folder alone; nothing in it is written or locked."""
