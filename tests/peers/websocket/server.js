// Echoes messages of WebSocket, and closes as it is asked: `server.js HOST PORT`.
'use strict';

const { WebSocketServer } = require('ws');

const [host, port] = process.argv.slice(2);
const server = new WebSocketServer({ host, port: Number(port), perMessageDeflate: true, maxPayload: 8 << 20 });
server.on('connection', (connection) => {
  connection.on('message', (message, isBinary) => {
    const text = isBinary ? '' : message.toString();
    if (text.startsWith('close ')) {
      const [, code, ...reason] = text.split(' ');
      connection.close(Number(code), reason.join(' '));
      return;
    }
    connection.send(message, { binary: isBinary });
  });
});
