"""Clients of count.py: each asks one question after another over one connection, and checks the answers."""
import socket
import struct

TIMEOUT = 300       # seconds: the proxy runs under valgrind


def answers(port):
    """Whether something listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


class Client:
    """A connection; `ask` makes a number of exchanges."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.read = b""
        self.begin()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def begin(self):
        """What is said first."""

    def ask(self, count):
        for _ in range(count):
            self.exchange()

    def receive(self):
        """Waits for more."""
        part = self.socket.recv(1 << 16)
        if not part:
            raise OSError("the proxy closed the connection")
        self.read += part

    def take(self, size):
        """The next bytes."""
        while len(self.read) < size:
            self.receive()
        taken, self.read = self.read[:size], self.read[size:]
        return taken


class Http1(Client):
    """GET of 1 KiB over HTTP/1.1, kept alive."""

    request = b"GET /b/1024 HTTP/1.1\r\nHost: bench.local\r\nUser-Agent: count\r\nAccept: */*\r\n\r\n"

    def exchange(self):
        self.question()
        self.answer()

    def question(self):
        self.socket.sendall(self.request)

    def answer(self):
        while b"\r\n\r\n" not in self.read:
            self.receive()
        head, _, self.read = self.read.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise OSError("answered %r" % head[:80])
        self.take(1024)


class Http1Post(Http1):
    """POST of 1 KiB, 1 KiB back."""

    request = (b"POST /b/1024 HTTP/1.1\r\nHost: bench.local\r\nUser-Agent: count\r\nContent-Length: 1024\r\n\r\n"
               + 1024 * b"x")


class Http1Many(Client):
    """The same over many connections, with a request on each of them at a time."""

    connections = 64

    def __init__(self, port):
        self.clients = [Http1(port) for _ in range(self.connections)]

    def __exit__(self, *_):
        for client in self.clients:
            client.socket.close()

    def ask(self, count):
        while count > 0:
            asked = self.clients[:count]
            for client in asked:
                client.question()
            for client in asked:
                client.answer()
            count -= len(asked)


class Connecting(Client):
    """A connection for each exchange of a client of this kind."""

    kind = None

    def __init__(self, port):
        self.port = port

    def __exit__(self, *_):
        pass

    def exchange(self):
        with self.kind(self.port) as client:
            client.exchange()


class Http1Last(Http1):
    """A GET that ends its connection."""

    request = Http1.request.replace(b"Accept", b"Connection: close\r\nAccept")


class Http1Close(Connecting):
    """A connection for each GET of 1 KiB."""

    kind = Http1Last


class PingPong(Client):
    """64 bytes there and back."""

    def exchange(self):
        self.socket.sendall(64 * b"p")
        if self.take(64) != 64 * b"p":
            raise OSError("the echo is not what was sent")


class TcpConnect(Connecting):
    """A connection for each of them."""

    kind = PingPong


class Http2(Client):
    """Unary calls as gRPC makes them, of 100 bytes, one stream after another."""

    headers = b"\x83\x86\x44\x11/bench.Echo/Unary\x41\x0bbench.local\x5f\x10application/grpc\x40\x02te\x08trailers"

    def begin(self):
        self.stream = 1
        # Room for all answers, so that no update of the window is in the count.
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(4, 0, 0, b"")
                            + self.frame(8, 0, 0, struct.pack(">I", 1 << 30)))

    def frame(self, kind, flags, stream, payload):
        return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload

    def exchange(self):
        message = struct.pack(">BI", 0, 100) + bytes(100)
        self.socket.sendall(self.frame(1, 4, self.stream, self.headers) + self.frame(0, 1, self.stream, message))
        while True:
            head = self.take(9)
            length, kind, flags = struct.unpack(">I", b"\0" + head[:3])[0], head[3], head[4]
            self.take(length)
            if kind == 4 and not flags & 1:
                self.socket.sendall(self.frame(4, 1, 0, b""))
            if kind in (3, 7):
                raise OSError("stream or connection refused")
            if kind in (0, 1) and flags & 1:
                break
        self.stream += 2
