"""Fingerprints: the same for the same values, whatever the order of keys."""

from alps.engine.base.digests import fingerprint


def test_the_order_of_keys_does_not_matter_and_values_do():
    one = fingerprint("run", {"a": 1, "b": [2, 3]})
    assert one == fingerprint("run", {"b": [2, 3], "a": 1})
    assert len({one, fingerprint("run", {"a": 1, "b": [3, 2]}), fingerprint({"a": 1})}) == 3


def test_it_is_the_same_in_every_version():
    """A run folder of yesterday is found by it."""
    assert fingerprint({"b": 0.5, "a": [1, None]}, "x") == "150a18e8e8ba1bcf"
