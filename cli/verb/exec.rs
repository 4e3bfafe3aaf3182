//! `weft exec`: a command in a running container, over the API's `exec` (WebSocket, `v5.channel.k8s.io`).

use std::io::{ErrorKind, IsTerminal};
use std::process::ExitCode;

use clap::Args;
use futures_util::{SinkExt, StreamExt};
use nix::sys::termios::{self, SetArg, Termios};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::tungstenite::Message;

use crate::arguments::Global;
use crate::failure::Failure;
use crate::mesh::{Mesh, WebSocket, encode};
use crate::resource::{name, text};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft exec front -- /bin/bookstore get http://books:8080/books/dune\n  weft exec -it redis -- sh"
)]
pub(crate) struct Exec {
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// With a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// The container; default: the pod's first
    #[arg(short, long)]
    container: Option<String>,
    /// A pod, or a service (then its first pod)
    pod: String,
    /// The command
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

// Channels of the protocol: the first byte of every message.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Runs the command; its exit status is this command's.
pub(crate) async fn run(global: &Global, exec: Exec) -> Result<ExitCode, Failure> {
    let mesh = Mesh::of_running(global).await?;
    let pod = mesh.pod(&global.namespace, &exec.pod).await?;
    let has_terminal = exec.tty && std::io::stdin().is_terminal();
    let socket = mesh.websocket(&path(global, &name(&pod), &exec)).await?;
    let _raw = has_terminal.then(RawTerminal::enter).transpose()?;
    let status = converse(socket, exec.stdin, has_terminal).await?;
    exit_code(&status)
}

fn path(global: &Global, pod: &str, exec: &Exec) -> String {
    let mut path = format!(
        "/api/v1/namespaces/{}/pods/{pod}/exec?stdin={}&stdout=true&stderr={}&tty={}",
        global.namespace, exec.stdin, !exec.tty, exec.tty
    );
    if let Some(container) = &exec.container {
        path.push_str(&format!("&container={}", encode(container)));
    }
    for word in &exec.command {
        path.push_str(&format!("&command={}", encode(word)));
    }
    path
}

/// Moves bytes both ways until the status comes.
async fn converse(
    socket: WebSocket,
    with_stdin: bool,
    has_terminal: bool,
) -> Result<Value, Failure> {
    let (mut sink, mut messages) = socket.split();
    let (sender, mut outgoing) = tokio::sync::mpsc::channel::<Message>(16);
    let writer = tokio::spawn(async move {
        while let Some(message) = outgoing.recv().await {
            if sink.send(message).await.is_err() {
                break;
            }
        }
    });
    let reader = with_stdin.then(|| tokio::spawn(send_stdin(sender.clone())));
    let resizer = has_terminal.then(|| tokio::spawn(send_sizes(sender.clone())));

    let mut status = Value::Null;
    while let Some(message) = messages.next().await {
        let data = match message
            .map_err(|error| Failure::new(format!("the connection broke: {error}")))?
        {
            Message::Binary(data) => data,
            Message::Close(_) => break,
            _ => continue,
        };
        match data.split_first() {
            Some((&STDOUT, bytes)) => write(&mut tokio::io::stdout(), bytes).await?,
            Some((&STDERR, bytes)) => write(&mut tokio::io::stderr(), bytes).await?,
            Some((&ERROR, bytes)) => status = serde_json::from_slice(bytes)?,
            _ => {}
        }
    }
    for task in [reader, resizer].into_iter().flatten() {
        task.abort();
    }
    writer.abort();
    Ok(status)
}

async fn write<W: tokio::io::AsyncWrite + Unpin>(
    writer: &mut W,
    bytes: &[u8],
) -> Result<(), Failure> {
    let written = writer.write_all(bytes).await;
    match written.and(writer.flush().await) {
        // Nobody reads any more (`weft exec … | head`): the command still ends by itself, and its status counts.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

async fn send_stdin(sender: tokio::sync::mpsc::Sender<Message>) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; 32 * 1024];
    while let Ok(read @ 1..) = stdin.read(&mut buffer).await {
        let mut message = vec![STDIN];
        message.extend_from_slice(&buffer[..read]);
        if sender.send(Message::Binary(message.into())).await.is_err() {
            return;
        }
    }
    // The end of input is told on a channel of its own, since version 5 of the protocol.
    let _ = sender
        .send(Message::Binary(vec![CLOSE, STDIN].into()))
        .await;
}

async fn send_sizes(sender: tokio::sync::mpsc::Sender<Message>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return;
    };
    loop {
        if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdout()) {
            let mut message = vec![RESIZE];
            message.extend(
                json!({ "Width": size.ws_col, "Height": size.ws_row })
                    .to_string()
                    .bytes(),
            );
            if sender.send(Message::Binary(message.into())).await.is_err() {
                return;
            }
        }
        changes.recv().await;
    }
}

/// The exit status that the final `Status` tells.
fn exit_code(status: &Value) -> Result<ExitCode, Failure> {
    if status["status"] == "Success" {
        return Ok(ExitCode::SUCCESS);
    }
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    let code = causes
        .into_iter()
        .find(|cause| cause["reason"] == "ExitCode")
        .map(|cause| text(&cause["message"]));
    match code.and_then(|code| code.parse::<u8>().ok()) {
        Some(code) => Ok(ExitCode::from(code)),
        None if status.is_null() => {
            Err(Failure::new("the connection ended before the command did"))
        }
        None => Err(Failure::new(text(&status["message"]))),
    }
}

/// A terminal that hands on every key; restored when dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> Result<Self, Failure> {
        let stdin = std::io::stdin();
        let explain = |error| Failure::new(format!("setting up the terminal: {error}"));
        let before = termios::tcgetattr(&stdin).map_err(explain)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&stdin, SetArg::TCSANOW, &raw).map_err(explain)?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0);
    }
}
