"""Times everything against its peers. Nothing imports this room."""
