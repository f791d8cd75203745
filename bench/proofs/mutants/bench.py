"""Wrong changes of bench/: what is measured of label maps."""

from alps.bench.proofs.mutants import changes_of

SEAMS = ("tests/bench/test_seams.py",)

MUTANTS = [
    *changes_of(
        "bench/seams.py",
        SEAMS,
        (
            "found[1:, 0], found[1:, 1] = change.sum(0), both.sum(0)",
            "found[:-1, 0], found[:-1, 1] = change.sum(0), both.sum(0)",
            "lines are off by one",
        ),
        (
            "change = (turned[:, 1:] != turned[:, :-1]) & both",
            "change = turned[:, 1:] != turned[:, :-1]",
            "the edge of what is labelled is a change of class",
        ),
        (
            "at = at[(at > 0) & (at < len(lines)) & ~np.isin(at, borders)]",
            "at = at[(at > 0) & (at < len(lines))]",
            "the null is measured at borders too",
        ),
        (
            "others = others[others[:, 1] >= LEAST_PAIRS]",
            "others = others[others[:, 1] > LEAST_PAIRS]",
            "a line of just enough pairs does not count",
        ),
        (
            "others = np.delete(lines, borders, axis=0)",
            "others = lines",
            "borders are compared with themselves",
        ),
        (
            "int((area < DUST).sum()),",
            "int((area <= DUST).sum()),",
            "a patch of ten pixels is dust",
        ),
        (
            "np.exp(-(share * np.log(share)).sum())",
            "np.exp(-(share * np.log2(share)).sum())",
            "the entropy is in bits",
        ),
        (
            "min(filter(None, (self.smallest, other.smallest)), default=0)",
            "min(self.smallest, other.smallest)",
            "a map without a patch has the smallest one",
        ),
        (
            "shown = (numbers != NOWHERE) & (strip != unlabelled)",
            "shown = numbers != NOWHERE",
            "unlabelled is a class of objects",
        ),
        (
            "known = (classes >= 0) & (objects >= 0)",
            "known = objects >= 0",
            "objects have a class that is none",
        ),
        (
            'np.argsort(-total, kind="stable")[:LARGEST]',
            'np.argsort(total, kind="stable")[:LARGEST]',
            "the smallest objects are measured",
        ),
        (
            'rows.append({"run": str(run), "image": None, **pooled(found).as_dict()})',
            'rows.append({"run": str(run), "image": None, **found[-1].as_dict()})',
            "the last image stands for all of a run",
        ),
    ),
]
