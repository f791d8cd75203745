"""BLAS kept to one thread while kernels are at work, and given back afterwards."""

import resource
import threading

import pytest
import scipy.linalg.cython_blas  # noqa: F401  (loaded before it is looked at)
from threadpoolctl import ThreadpoolController

from alps.kernels.base import blas as blas_module
from alps.kernels.base.blas import one_blas_thread


@pytest.fixture
def blas():
    """A function: how many threads each BLAS of this process may use, two to begin with."""
    controller = ThreadpoolController().select(user_api="blas")
    with controller.limit(limits=2):
        yield lambda: {one.num_threads for one in controller.lib_controllers}


def test_one_thread_inside_and_as_many_as_before_outside(blas):
    assert blas() == {2}
    with one_blas_thread():
        assert blas() == {1}
        with one_blas_thread():
            assert blas() == {1}
        assert blas() == {1}
    assert blas() == {2}


def test_the_last_of_several_threads_gives_it_back(blas):
    """The second comes while the first is inside, and leaves after it."""
    first_in, second_in, first_out = (threading.Event() for _ in range(3))
    seen = []

    def first():
        with one_blas_thread():
            first_in.set()
            second_in.wait(30)
        first_out.set()

    def second():
        first_in.wait(30)
        with one_blas_thread():
            second_in.set()
            first_out.wait(30)
            seen.append(blas())

    callers = [threading.Thread(target=work) for work in (first, second)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert seen == [{1}]
    assert blas() == {2}


def test_an_error_inside_gives_it_back_too(blas):
    with pytest.raises(RuntimeError), one_blas_thread():
        raise RuntimeError
    assert blas() == {2}


def test_a_limited_address_space_that_is_nearly_full_is_refused(monkeypatch):
    """OpenBLAS would try for minutes and then end the process."""
    monkeypatch.setattr(blas_module, "_address_space", lambda: 1 << 50)
    with one_blas_thread():
        pass
    monkeypatch.setattr(blas_module, "_address_space", lambda: 1 << 20)
    with pytest.raises(MemoryError, match=r"of 1 MB that ulimit -v allows"), one_blas_thread():
        pass


def test_the_limit_of_the_address_space(monkeypatch):
    limits = [(resource.RLIM_INFINITY, -1), (1 << 40, -1)]
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits.pop(0))
    assert blas_module._address_space() is None
    assert blas_module._address_space() == 1 << 40
