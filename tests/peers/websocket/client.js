// Speaks with a server that echoes: `client.js HOST PORT`. Ends with 0 if all was as it should be.
'use strict';

const assert = require('node:assert');
const { randomBytes } = require('node:crypto');
const { once } = require('node:events');
const { WebSocket } = require('ws');

const [host, port] = process.argv.slice(2);
const limit = setTimeout(() => { throw new Error('took too long'); }, 60_000);

async function open(options) {
  const connection = new WebSocket(`ws://${host}:${port}/`, { maxPayload: 8 << 20, ...options });
  await once(connection, 'open');
  return connection;
}

async function echoes(connection, message) {
  const answer = once(connection, 'message');
  connection.send(message);
  const [received] = await answer;
  assert.deepStrictEqual(received, Buffer.from(message));
}

async function main() {
  const plain = await open({ perMessageDeflate: false });
  await echoes(plain, 'text');
  await echoes(plain, randomBytes(1 << 20));

  // Fragments: each send that is not the last.
  let answer = once(plain, 'message');
  plain.send('one ', { fin: false });
  plain.send('two ', { fin: false });
  plain.send('three', { fin: true });
  assert.strictEqual((await answer)[0].toString(), 'one two three');

  answer = once(plain, 'pong');
  plain.ping('there?');
  assert.strictEqual((await answer)[0].toString(), 'there?');

  const closed = once(plain, 'close');
  plain.send('close 4001 because');
  const [code, reason] = await closed;
  assert.strictEqual(code, 4001);
  assert.strictEqual(reason.toString(), 'because');

  const deflated = await open({ perMessageDeflate: true });
  assert.match(deflated.extensions, /permessage-deflate/);
  await echoes(deflated, 'again and again, '.repeat(60_000));
  const ended = once(deflated, 'close');
  deflated.close(1000, 'done');
  assert.strictEqual((await ended)[0], 1000);
  clearTimeout(limit);
}

main();
