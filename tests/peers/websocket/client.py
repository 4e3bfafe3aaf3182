"""Speaks with a server that echoes: `client.py HOST PORT CHECK`, where CHECK is a function of this file."""

import asyncio
import os
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def echo(open_connection):
    async with open_connection() as connection:
        for message in ["text", "\u65e5\u672c", b"\x00\xff", "", b""]:
            await connection.send(message)
            assert await connection.recv() == message, message


async def fragments(open_connection):
    async with open_connection() as connection:
        await connection.send(["a", "b" * 70_000, "", "c"])
        assert await connection.recv() == "a" + "b" * 70_000 + "c"


async def pings(open_connection):
    async with open_connection() as connection:
        pong = await connection.ping(b"are you there")
        await pong
        await connection.send("after")
        assert await connection.recv() == "after"


async def large(open_connection):
    async with open_connection() as connection:
        for size in [125, 126, 65_535, 65_536, 1 << 20]:
            message = os.urandom(size)
            await connection.send(message)
            assert await connection.recv() == message, size


async def compressed(open_connection):
    async with open_connection() as connection:
        agreed = connection.response.headers.get("sec-websocket-extensions", "")
        assert "permessage-deflate" in agreed, agreed
        message = "the same again, " * 60_000
        await connection.send(message)
        assert await connection.recv() == message


async def close_codes(open_connection):
    for code, reason in [(1000, "done"), (1001, "going away"), (3999, "ours"), (4321, "theirs")]:
        async with open_connection() as connection:
            await connection.send(f"close {code} {reason}")
            try:
                await connection.recv()
                raise AssertionError("not closed")
            except ConnectionClosed as closed:
                assert (closed.rcvd.code, closed.rcvd.reason) == (code, reason), closed
    connection = await open_connection()
    await connection.close(4000, "the client's")
    assert connection.close_code == 4000, connection.close_code


def opener(**options):
    address = f"ws://{sys.argv[1]}:{sys.argv[2]}/"
    return lambda: connect(address, max_size=8 << 20, ping_interval=None, proxy=None, **options)


compression = "deflate" if sys.argv[3] == "compressed" else None
asyncio.run(asyncio.wait_for(globals()[sys.argv[3]](opener(compression=compression)), 60))
