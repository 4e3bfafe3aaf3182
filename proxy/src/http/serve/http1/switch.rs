//! A connection of HTTP/1.1 that becomes that of another protocol.

use std::io;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;

use super::Client;
use super::line::Line;
use crate::http::serve::switch::{ClientIo, Switching};
use crate::prefixed::Prefixed;

impl<IO: Client> Switching for Mutex<Line<IO>> {
    fn poll_switched(&self, context: &mut Context<'_>) -> Poll<io::Result<ClientIo>> {
        let (io, unread) = ready!(self.lock().poll_switched(context))?;
        Poll::Ready(Ok(match unread.is_empty() {
            true => Box::new(io),
            false => Box::new(Prefixed { prefix: unread, io }),
        }))
    }
}
