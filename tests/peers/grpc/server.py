"""A gRPC service with all four kinds of calls, and reflection: `server.py ADDRESS`."""

import concurrent.futures
import signal
import sys
import threading
import time

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, wrappers_pb2
from grpc_reflection.v1alpha import reflection

SERVICE = "peers.Echo"
Bytes = wrappers_pb2.BytesValue
# (name, client streams, server streams)
METHODS = [
    ("Unary", False, False),
    ("Down", False, True),
    ("Up", True, False),
    ("Both", True, True),
    ("Fail", False, False),
    ("FailLater", False, True),
    ("Wait", False, False),
    ("Begun", False, False),
    ("Cancelled", False, False),
]
begun = threading.Semaphore(0)
cancelled = threading.Semaphore(0)


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", metadata.get("x-ascii", "none")),))
    context.set_trailing_metadata((
        ("x-trailing-bin", metadata.get("x-binary-bin", b"none")),
        ("x-deadline", str(int(context.time_remaining() or 0))),
    ))
    return request


def down(request, context):
    for number in range(int(request.value)):
        yield Bytes(value=b"%d" % number)


def up(requests, context):
    return Bytes(value=b"%d" % sum(len(request.value) for request in requests))


def both(requests, context):
    for request in requests:
        yield request


def fail(request, context):
    context.set_trailing_metadata((("x-why", "asked for"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "h\u00f6chst \u65e5\u672c % 100%")


def fail_later(request, context):
    yield Bytes(value=b"first")
    context.abort(grpc.StatusCode.DATA_LOSS, "lost after the first")


def wait(request, context):
    """Until the caller goes away; tells `Begun` that it waits, and `Cancelled` that nobody does any more."""
    ended = threading.Event()
    context.add_callback(ended.set)
    context.add_callback(cancelled.release)
    begun.release()
    ended.wait(60)
    return request


def has_begun(request, context):
    return Bytes(value=b"yes" if begun.acquire(timeout=30) else b"no")


def was_cancelled(request, context):
    return Bytes(value=b"yes" if cancelled.acquire(timeout=30) else b"no")


def describe():
    """The service for those who ask by reflection; its messages are well-known ones."""
    file = descriptor_pb2.FileDescriptorProto(
        name="peers.proto", package="peers", syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"])
    service = file.service.add(name="Echo")
    for name, streams_up, streams_down in METHODS:
        service.method.add(
            name=name, input_type=".google.protobuf.BytesValue", output_type=".google.protobuf.BytesValue",
            client_streaming=streams_up, server_streaming=streams_down)
    descriptor_pool.Default().Add(file)


def handlers():
    does = {"Unary": unary, "Down": down, "Up": up, "Both": both, "Fail": fail, "FailLater": fail_later,
            "Wait": wait, "Begun": has_begun, "Cancelled": was_cancelled}
    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    return {
        name: kinds[(streams_up, streams_down)](
            does[name], request_deserializer=Bytes.FromString, response_serializer=Bytes.SerializeToString)
        for name, streams_up, streams_down in METHODS
    }


def main():
    describe()
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(max_workers=128),
        options=[("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers()),))
    reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server)
    server.add_insecure_port(sys.argv[1])
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: server.stop(0))
    server.wait_for_termination()


main()
