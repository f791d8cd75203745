"""What a first look at a GPU measures, a step a function; ``alps.bench.gpu_check`` runs them."""
