//! A script on a TCP connection, of the client and of the upstream alike: send, read, close.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use serde::Deserialize;
use serde_json::Value;

use crate::case::Exchange;
use crate::client::{Client, wait};
use crate::outcome::{End, Outcome};
use crate::text;
use crate::tls::Transport;

/// A step. Without a `close` at the end the connection is read until the other side closes it or is silent.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    /// Sends this.
    Send(String),
    /// Sends so many bytes of `x`.
    Fill(usize),
    /// Reads until so many bytes have come in all.
    Read(usize),
    /// Sends no more.
    HalfClose,
    /// Reads until the other side sends no more.
    ReadToEnd,
    /// Waits so many milliseconds.
    Pause(u64),
    /// Closes with a reset.
    Reset,
    /// Closes.
    Close,
}

/// Plays the client's part.
pub(crate) fn client(address: SocketAddr, exchange: &Exchange) -> (Client, Outcome) {
    let mut client = Client::connect(address, exchange);
    let steps = exchange.tcp.as_deref().unwrap_or_default();
    play(&mut client, steps, wait(exchange));
    let outcome = Outcome {
        received: client.received.clone(),
        end: client.end,
        ..Outcome::default()
    };
    (client, outcome)
}

/// Plays the upstream's part; returns what it received.
pub(crate) fn upstream(stream: Transport, steps: &[Value]) -> (Vec<u8>, bool) {
    let mut side = Client::new(stream);
    play(&mut side, steps, Duration::from_secs(10));
    let has_ended = side.end == End::Closed;
    (side.received, has_ended)
}

fn play(side: &mut Client, steps: &[Value], limit: Duration) {
    for step in steps {
        let step: Step = serde_json::from_value(step.clone())
            .unwrap_or_else(|error| panic!("a TCP step {step}: {error}"));
        match step {
            Step::Send(bytes) => side.send(&text::bytes(&bytes)),
            Step::Fill(count) => side.send(&vec![b'x'; count]),
            Step::Read(count) => read_at_least(side, count, limit),
            Step::HalfClose => side.half_close(),
            Step::ReadToEnd => {
                side.closes_within(limit);
            }
            Step::Pause(milliseconds) => std::thread::sleep(Duration::from_millis(milliseconds)),
            Step::Reset => {
                reset_when_dropped(side.stream.socket());
                return;
            }
            Step::Close => {
                side.stream.close();
                return;
            }
        }
    }
}

/// The connection ends with a reset, as soon as the stream is dropped (socket(7), `SO_LINGER`).
pub(crate) fn reset_when_dropped(stream: &TcpStream) {
    let at_once = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // Fails only where the other side was faster.
    let _ = setsockopt(stream, sockopt::Linger, &at_once);
}

fn read_at_least(side: &mut Client, count: usize, limit: Duration) {
    let deadline = Instant::now() + limit;
    while side.received.len() < count && side.end == End::Open && Instant::now() < deadline {
        side.read();
    }
}
