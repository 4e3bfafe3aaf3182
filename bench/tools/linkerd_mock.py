"""A control plane for linkerd2-proxy: one pair of pods, the server's with an identity, everybody else unknown.

  linkerd_mock.py LISTEN SERVER_POD_IP INBOUND_PORT CA.CRT CA.KEY SERVER_NAME

Runs beside each proxy. It says what that of a cluster says of a connection to a pod's address: a workload that takes
HTTP/2 with mTLS in place of HTTP/1, whose ports without HTTP are marked opaque, and which lets nobody in without mTLS.
Needs the Python package grpcio and openssl. The numbers are those of the .proto files of linkerd2-proxy-api.
"""
import asyncio
import ipaddress
import os
import secrets
import struct
import subprocess
import sys
import time

import grpc

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from scenarios import ECHO, SINK, SOURCE    # noqa: E402

OPAQUE = (ECHO, SOURCE, SINK)
DETECT_SECONDS = 10
CERTIFICATE_DAYS = 1


# -- messages of protocol buffers
def varint(value):
    out = bytearray()
    while value > 0x7f:
        out.append(value & 0x7f | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def field(number, *parts):
    """A number, a text, or a message of the fields given."""
    if len(parts) == 1 and isinstance(parts[0], int):
        return varint(number << 3) + varint(parts[0])
    value = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return varint(number << 3 | 2) + varint(len(value)) + value


def read_varint(message, at):
    """The number that begins there, and where the next thing begins."""
    value = shift = 0
    while True:
        byte, at = message[at], at + 1
        value |= (byte & 0x7f) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(message):
    """Number and value of each field, which is a varint or has a length: nothing else is asked with."""
    found, at = {}, 0
    while at < len(message):
        key, at = read_varint(message, at)
        value, at = read_varint(message, at)
        if key & 7 == 2:
            at, value = at + value, message[at:at + value]
        found[key >> 3] = value
    return found


def address(text):
    """net.IPAddress; its `ipv4` is a fixed32."""
    return varint(1 << 3 | 5) + struct.pack("<I", int(ipaddress.IPv4Address(text)))


# -- what is answered
class Mesh:
    def __init__(self, server_ip, inbound_port, ca, ca_key, server_name):
        self.server_ip, self.inbound_port, self.server_name = server_ip, int(inbound_port), server_name
        self.ca, self.ca_key = ca, ca_key

    def certificate(self, request):
        """identity.CertifyResponse to a CertifyRequest."""
        signed = subprocess.run(
            ["openssl", "x509", "-req", "-inform", "DER", "-CA", self.ca, "-CAkey", self.ca_key, "-outform", "DER",
             "-copy_extensions", "copy", "-days", str(CERTIFICATE_DAYS), "-set_serial", str(secrets.randbits(63))],
            input=fields(request)[3], stdout=subprocess.PIPE, check=True).stdout
        return field(1, signed) + field(3, field(1, int(time.time()) + CERTIFICATE_DAYS * 86400))

    def profile(self, request):
        """destination.DestinationProfile to a GetDestination: the server's pod, or nothing that is known."""
        host, _, port = fields(request)[2].decode().rpartition(":")
        if host != self.server_ip:
            return b""
        port, name = int(port), field(1, self.server_name)
        target = field(1, field(1, address(host)), field(2, port))
        weight = field(3, 10000)
        identity = field(5, field(1, name), field(4, name))
        opaque_transport = field(2, field(1, self.inbound_port))
        hint = field(6, field(3), opaque_transport) if port in OPAQUE else field(6, field(1))
        return field(4, int(port in OPAQUE)) + field(6, target, weight, identity, hint)

    def server(self, request):
        """inbound.Server to a PortSpec: all clients that have an identity of this mesh, on every path."""
        policy = "all-authenticated"
        everywhere = field(1, field(1, field(1, address("0.0.0.0"))))
        any_identity = field(2, field(2, field(2, field(2))))
        allowed = field(3, everywhere, any_identity, field(4, field(1, policy)))
        route = field(3, field(1, field(1, "default")), field(4, field(1, field(1, field(2, "/")))))
        detect = field(1, field(1, field(1, DETECT_SECONDS)), route)
        protocol = field(1, field(2) if fields(request)[2] in OPAQUE else detect)
        labels = [field(4, field(1, key), field(2, value)) for key, value in
                  (("group", ""), ("kind", "default"), ("name", policy))]
        return b"".join([protocol, allowed, *labels])


# -- the services
def once(answer):
    async def call(request, _):
        return answer(request)
    return grpc.unary_unary_rpc_method_handler(call)


def watched(answer):
    """The answer, and no news after it."""
    async def call(request, _):
        yield answer(request)
        await asyncio.Event().wait()
    return grpc.unary_stream_rpc_method_handler(call)


async def no_policy(_, context):
    """What is said of an address that is not a service's: the profile has the endpoint."""
    await context.abort(grpc.StatusCode.NOT_FOUND)


def services(mesh):
    return {
        "identity.Identity": {"Certify": once(mesh.certificate)},
        "destination.Destination": {"GetProfile": watched(mesh.profile)},
        "inbound.InboundServerPolicies": {"GetPort": once(mesh.server), "WatchPort": watched(mesh.server)},
        "outbound.OutboundPolicies": {
            "Get": grpc.unary_unary_rpc_method_handler(no_policy),
            "Watch": grpc.unary_stream_rpc_method_handler(no_policy),
        },
    }


async def main(listen, *mesh):
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([
        grpc.method_handlers_generic_handler("io.linkerd.proxy." + name, methods)
        for name, methods in services(Mesh(*mesh)).items()
    ])
    server.add_insecure_port(listen)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
