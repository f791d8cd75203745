"""What follows the masks: gate, duplicates, codes, embeddings, colours, on the CPU or a GPU."""
