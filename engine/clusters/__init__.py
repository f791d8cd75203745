"""From embeddings to classes: features, online k-means, assignment."""
