"""``torch.cuda`` as far as graphs are captured and replayed, on the CPU: what is done where."""

from contextlib import contextmanager


class Stream:
    def __init__(self, cuda, name):
        self.cuda, self.name = cuda, name

    def wait_stream(self, other):
        self.cuda.log.append(f"{self.name} waits for {other.name}")

    def wait_event(self, event):
        self.cuda.log.append(f"{self.name} waits for the result")


class Event:
    def __init__(self, cuda):
        self.cuda = cuda

    def record(self, stream):
        self.cuda.log.append(f"result copied in {stream.name}")


class Graph:
    """Does again what was done while it was captured."""

    def __init__(self, cuda):
        self.cuda = cuda

    def replay(self):
        self.cuda.log.append(f"replay in {self.cuda.current.name}")
        self.again()


class FakeCuda:
    """What is to be captured goes through ``called``; ``refuses`` is raised by a capture."""

    def __init__(self, refuses=None):
        self.log, self.refuses, self.streams = [], refuses, 0
        self.usual = self.current = Stream(self, "usual")

    def called(self, compute, *inputs):
        """The tensors that ``compute`` makes of inputs; a replay writes into them."""
        self.log.append(f"called in {self.current.name}")
        outputs = compute(*inputs)

        def again():
            for output, value in zip(outputs, compute(*inputs), strict=True):
                output.copy_(value)

        self.again = again
        return outputs

    def Stream(self, device):
        self.streams += 1
        return Stream(self, f"apart {self.streams}")

    def Event(self):
        return Event(self)

    def CUDAGraph(self):
        return Graph(self)

    def current_stream(self, device):
        return self.current

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextmanager
    def graph(self, graph, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"  # others go on meanwhile
        self.log.append(f"capture in {stream.name}")
        with self.stream(stream):
            yield
        if self.refuses:
            raise self.refuses
        graph.again = self.again
