//! A process in a network namespace of its own that carries bytes between the test and a socket: to the server the
//! caller is that process.

use std::path::Path;
use std::process::Stdio;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tonic::transport::{Channel, Endpoint};

const PROGRAM: &str = r"
import os, socket, sys, threading
os.write(1, b'%d\n' % os.stat('/proc/self/ns/net').st_ino)
os.read(0, 1)
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
def answers():
    while data := connection.recv(65536):
        os.write(1, data)
threading.Thread(target=answers, daemon=True).start()
while data := os.read(0, 65536):
    connection.sendall(data)
";

pub(crate) struct Sandbox {
    /// Its network namespace.
    pub(crate) namespace: u64,
    input: ChildStdin,
    output: ChildStdout,
    process: Child,
}

impl Sandbox {
    /// Starts the process; it connects only when told.
    pub(crate) async fn start(socket: &Path) -> Self {
        let mut process = Command::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--net",
                "--",
                "python3",
                "-c",
                PROGRAM,
            ])
            .arg(socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("unshare(1) of util-linux");
        let input = process.stdin.take().unwrap();
        let mut output = process.stdout.take().unwrap();
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.push(
                output
                    .read_u8()
                    .await
                    .expect("python3 says its network namespace"),
            );
        }
        Self {
            namespace: String::from_utf8(line).unwrap().trim().parse().unwrap(),
            input,
            output,
            process,
        }
    }

    /// Lets it connect, and speaks gRPC through it.
    pub(crate) async fn connect(mut self) -> (Channel, Child) {
        self.input.write_all(b"!").await.unwrap();
        let mut stream = Some(TokioIo::new(tokio::io::join(self.output, self.input)));
        let connector = tower::service_fn(move |_| {
            let stream = stream
                .take()
                .ok_or_else(|| std::io::Error::other("it connects once"));
            std::future::ready(stream)
        });
        let address = Endpoint::from_static("http://sandbox");
        (
            address.connect_with_connector(connector).await.unwrap(),
            self.process,
        )
    }
}
