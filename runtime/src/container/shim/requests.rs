//! The shim's socket: who connects is told of every change, and may ask for things.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::supervise::Event;
use crate::container::Place;
use crate::container::control::{Request, SocketPath};
use crate::container::status::Status;
use crate::files;

/// The server and, after its restart, the next one; more means that somebody misbehaves.
const MAX_CLIENTS: usize = 16;
const MAX_REQUEST_BYTES: u64 = 4096;
/// A client that does not read is dropped.
const WRITE_DEADLINE: Duration = Duration::from_secs(1);

/// Everybody who is connected, and what they were told last.
#[derive(Debug)]
pub(super) struct Clients {
    state: Mutex<(Status, Vec<UnixStream>)>,
}

impl Clients {
    /// Listens in the container's runtime directory.
    pub(super) fn listen(
        place: &Place,
        status: Status,
        events: SyncSender<Event>,
    ) -> io::Result<Arc<Clients>> {
        let path = SocketPath::in_directory(&place.runtime)?;
        files::remove(path.as_path())?;
        let listener = UnixListener::bind(path.as_path())?;
        let clients = Arc::new(Clients {
            state: Mutex::new((status, Vec::new())),
        });
        let accepting = Arc::clone(&clients);
        spawn("accept", move || accepting.accept(&listener, &events))?;
        Ok(clients)
    }

    /// Tells everybody.
    pub(super) fn tell(&self, status: &Status) {
        let mut state = self.state.lock();
        state.0 = status.clone();
        let line = line_of(status);
        state.1.retain_mut(|client| client.write_all(&line).is_ok());
    }

    fn accept(&self, listener: &UnixListener, events: &SyncSender<Event>) {
        for client in listener.incoming().flatten() {
            let events = events.clone();
            let admitted = self.admit(&client).and_then(|()| {
                spawn("requests", move || {
                    read_requests(client, &events);
                })
            });
            // Whoever is not let in sees that the connection is closed.
            drop(admitted);
        }
    }

    fn admit(&self, client: &UnixStream) -> io::Result<()> {
        client.set_write_timeout(Some(WRITE_DEADLINE))?;
        let mut state = self.state.lock();
        if state.1.len() >= MAX_CLIENTS {
            state.1.remove(0);
        }
        let mut writer = client.try_clone()?;
        writer.write_all(&line_of(&state.0))?;
        state.1.push(writer);
        Ok(())
    }
}

fn line_of(status: &Status) -> Vec<u8> {
    let mut line = serde_json::to_vec(status).unwrap_or_default();
    line.push(b'\n');
    line
}

fn read_requests(client: UnixStream, events: &SyncSender<Event>) {
    let mut reader = BufReader::new(client);
    let mut line = String::new();
    loop {
        line.clear();
        match (&mut reader).take(MAX_REQUEST_BYTES).read_line(&mut line) {
            Ok(read) if read > 0 => {}
            _ => break,
        }
        let Ok(request) = serde_json::from_str::<Request>(&line) else {
            break;
        };
        if events.send(Event::Request(request)).is_err() {
            break;
        }
    }
    // The writing half is kept by the list until a write fails, which this makes happen.
    let _ = reader.get_ref().shutdown(std::net::Shutdown::Both);
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(64 * 1024)
        .spawn(run)?;
    Ok(())
}
