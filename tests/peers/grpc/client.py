"""Calls the service of server.py: `client.py ADDRESS CHECK`, where CHECK is a function of this file."""

import sys
import threading

import grpc
from google.protobuf import wrappers_pb2

Bytes = wrappers_pb2.BytesValue
# Seconds: nothing takes as long where all is well.
PATIENCE = 60


def call(channel, kind, name):
    return getattr(channel, kind)(
        "/peers.Echo/" + name, request_serializer=Bytes.SerializeToString, response_deserializer=Bytes.FromString)


def four_kinds(channel):
    unary = call(channel, "unary_unary", "Unary")
    assert unary(Bytes(value=b"hello"), timeout=PATIENCE).value == b"hello"
    down = call(channel, "unary_stream", "Down")(Bytes(value=b"500"), timeout=PATIENCE)
    assert [int(message.value) for message in down] == list(range(500))
    up = call(channel, "stream_unary", "Up")
    assert up((Bytes(value=b"x" * 1000) for _ in range(300)), timeout=PATIENCE).value == b"300000"
    # Each message is answered before the next is sent.
    answered = threading.Semaphore(1)

    def one_by_one():
        for number in range(50):
            assert answered.acquire(timeout=PATIENCE)
            yield Bytes(value=b"%d" % number)

    received = []
    for message in call(channel, "stream_stream", "Both")(one_by_one(), timeout=PATIENCE):
        received.append(int(message.value))
        answered.release()
    assert received == list(range(50)), received


def metadata(channel):
    binary = bytes(range(256))
    sent = (("x-ascii", "a value, with: signs"), ("x-binary-bin", binary))
    _, done = call(channel, "unary_unary", "Unary").with_call(Bytes(), metadata=sent, timeout=PATIENCE)
    assert dict(done.initial_metadata())["x-initial"] == "a value, with: signs"
    trailing = dict(done.trailing_metadata())
    assert trailing["x-trailing-bin"] == binary, trailing
    assert 0 < int(trailing["x-deadline"]) <= PATIENCE, trailing


def deadline(channel):
    try:
        call(channel, "unary_unary", "Wait")(Bytes(), timeout=2)
        raise AssertionError("answered")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    assert call(channel, "unary_unary", "Begun")(Bytes(), timeout=PATIENCE).value == b"yes"
    assert call(channel, "unary_unary", "Cancelled")(Bytes(), timeout=PATIENCE).value == b"yes"


def cancellation(channel):
    waiting = call(channel, "unary_unary", "Wait").future(Bytes(), timeout=PATIENCE)
    # Calls of one connection may overtake one another on their way through two proxies.
    assert call(channel, "unary_unary", "Begun")(Bytes(), timeout=PATIENCE).value == b"yes"
    waiting.cancel()
    assert waiting.cancelled()
    assert call(channel, "unary_unary", "Cancelled")(Bytes(), timeout=PATIENCE).value == b"yes"
    assert call(channel, "unary_unary", "Unary")(Bytes(value=b"on"), timeout=PATIENCE).value == b"on"


def large_messages(channel):
    large = bytes(range(256)) * (32 << 12)
    assert call(channel, "unary_unary", "Unary")(Bytes(value=large), timeout=PATIENCE).value == large
    both = call(channel, "stream_stream", "Both")(
        (Bytes(value=large[:4 << 20]) for _ in range(8)), timeout=PATIENCE)
    assert [len(message.value) for message in both] == [4 << 20] * 8


def errors(channel):
    try:
        call(channel, "unary_unary", "Fail")(Bytes(), timeout=PATIENCE)
        raise AssertionError("answered")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
        assert error.details() == "h\u00f6chst \u65e5\u672c % 100%", error.details()
        assert dict(error.trailing_metadata())["x-why"] == "asked for"
    try:
        call(channel, "unary_unary", "NoSuchMethod")(Bytes(), timeout=PATIENCE)
        raise AssertionError("answered")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    received = []
    try:
        for message in call(channel, "unary_stream", "FailLater")(Bytes(), timeout=PATIENCE):
            received.append(message.value)
        raise AssertionError("ended well")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DATA_LOSS, error
        assert received == [b"first"], received


def concurrent_streams(channel):
    """A hundred streams that are open at the same time: each waits for all others before it goes on."""
    count = 100
    barrier = threading.Barrier(count)
    done = []

    def one(number):
        def messages():
            yield Bytes(value=b"%d" % number)
            barrier.wait(PATIENCE)
            yield Bytes(value=b"%d" % (number + 1))

        answers = call(channel, "stream_stream", "Both")(messages(), timeout=PATIENCE)
        assert [int(answer.value) for answer in answers] == [number, number + 1]
        done.append(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(done) == count, len(done)


def no_server(channel):
    """Nobody listens behind the proxy: it says so in gRPC's words."""
    try:
        call(channel, "unary_unary", "Unary")(Bytes(), timeout=PATIENCE)
        raise AssertionError("answered")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error


with grpc.insecure_channel(
        sys.argv[1],
        options=[("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20),
                 ("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]) as opened:
    globals()[sys.argv[2]](opened)
