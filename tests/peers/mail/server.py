"""A mail server that keeps what it is given in a folder: `server.py HOST PORT FOLDER`."""

import asyncio
import signal
import sys
from pathlib import Path

from aiosmtpd.smtp import SMTP


class Keeper:
    async def handle_DATA(self, server, session, envelope):
        folder = Path(sys.argv[3])
        number = len(list(folder.glob("*.eml")))
        (folder / f"{number}.eml").write_bytes(envelope.content)
        return "250 kept"


async def main():
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    loop.add_signal_handler(signal.SIGTERM, ended.set_result, None)
    server = await loop.create_server(lambda: SMTP(Keeper()), sys.argv[1], int(sys.argv[2]))
    async with server:
        await ended


asyncio.run(main())
