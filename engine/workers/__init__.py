"""Work in numbered pieces, carried out by processes of this machine, or by whoever else can."""
