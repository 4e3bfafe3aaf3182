"""Echoes messages of WebSocket, and closes as it is asked: `server.py HOST PORT`."""

import asyncio
import signal
import sys

from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        if isinstance(message, str) and message.startswith("close "):
            code, reason = message.split(" ", 2)[1:]
            await connection.close(int(code), reason)
            return
        await connection.send(message)


async def main():
    ended = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set_result, None)
    async with serve(echo, sys.argv[1], int(sys.argv[2]), max_size=8 << 20, ping_interval=None):
        await ended


asyncio.run(main())
