"""Wrong changes of engine/: what they break shows in segments, clusters, label maps or figures."""

from alps.bench.proofs.mutants.engine import (
    browser,
    clusters,
    datasets,
    face,
    images,
    labels,
    masks,
    overlap,
    polygons,
    quality,
    regions,
    run_folder,
    stac,
    stages,
    stores,
    watching,
)

MUTANTS = [
    *images.MUTANTS,
    *masks.MUTANTS,
    *regions.MUTANTS,
    *clusters.MUTANTS,
    *labels.MUTANTS,
    *stages.MUTANTS,
    *watching.MUTANTS,
    *overlap.MUTANTS,
    *run_folder.MUTANTS,
    *stores.MUTANTS,
    *quality.MUTANTS,
    *datasets.MUTANTS,
    *stac.MUTANTS,
    *polygons.MUTANTS,
    *face.MUTANTS,
    *browser.MUTANTS,
]
