//! Commands in containers, over WebSockets as kubectl speaks them: `v5.channel.k8s.io` and `v4.channel.k8s.io`.
//!
//! Each message begins with the number of its channel. The command's end is told on the error channel as a `Status`;
//! its exit code is in there.

use std::sync::Arc;
use std::time::Duration;

use axum::RequestExt;
use axum::extract::Request;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use weft_proto::weft::node::v1::exec_input::Input;
use weft_proto::weft::node::v1::exec_output::Output;
use weft_proto::weft::node::v1::{
    ExecInput, ExecOutput, ExecStart, ListContainersRequest, TerminalSize,
};

use crate::api::query::Query;
use crate::api::{Api, node};
use crate::refusal::Refusal;
use crate::store::Name;

const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Of version 5: the channel named in the next byte has ended.
const CLOSE: u8 = 255;

/// Input that waits for the node.
const QUEUE: usize = 16;
/// No message of a client is larger.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// How often an idle connection is asked whether it is still there.
const PING: Duration = Duration::from_secs(20);
/// How long a client may take to answer the close.
const FAREWELL: Duration = Duration::from_secs(1);

type Sender = SplitSink<WebSocket, Message>;

/// Runs a command in a pod's container.
pub(super) async fn serve(
    api: &Arc<Api>,
    name: &Name,
    mut request: Request,
) -> Result<Response, Refusal> {
    let query = Query::of(request.uri())?;
    let pod = super::find(api, name)?;
    let container_id = super::container(&pod, query.text("container"))?;
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    if command.is_empty() {
        return Err(Refusal::BadRequest(
            "you must specify at least one command for the container".to_owned(),
        ));
    }
    let is_terminal = query.is_set_with_value("tty");
    let start = ExecStart {
        container_id,
        command,
        terminal: is_terminal,
        environment: if is_terminal {
            vec!["TERM=xterm".to_owned()]
        } else {
            Vec::new()
        },
        user: String::new(),
        working_directory: String::new(),
        size: None,
    };
    let Ok(upgrade) = request.extract_parts::<WebSocketUpgrade>().await else {
        return Err(not_upgraded(api, &start.container_id).await);
    };
    let (input, receiver) = mpsc::channel(QUEUE);
    let first = ExecInput {
        input: Some(Input::Start(start)),
    };
    if input.send(first).await.is_err() {
        return Err(Refusal::Internal(
            "the input of the command is closed".to_owned(),
        ));
    }
    if !query.is_set_with_value("stdin") {
        let _ = input
            .send(ExecInput {
                input: Some(Input::CloseStdin(true)),
            })
            .await;
    }
    // Asked before the answer goes out: a container that does not exist is an ordinary refusal.
    let output = api
        .node
        .call(async move |mut client| client.exec(ReceiverStream::new(receiver)).await)
        .await?;
    let shutdown = api.shutdown.clone();
    Ok(upgrade
        .protocols(PROTOCOLS)
        .max_message_size(MAX_MESSAGE_BYTES)
        .on_upgrade(move |socket| run(socket, input, output, shutdown)))
}

/// kubectl asks a second time, in an older way, where the first was refused: it shows the answer to this one.
async fn not_upgraded(api: &Api, id: &str) -> Refusal {
    let listed = api
        .node
        .call(async |mut client| client.list_containers(ListContainersRequest {}).await)
        .await;
    match listed {
        Err(refusal) => refusal,
        Ok(listed) if listed.containers.iter().any(|container| container.id == id) => {
            Refusal::BadRequest("exec needs a WebSocket: use kubectl 1.31 or newer".to_owned())
        }
        Ok(_) => Refusal::NotFound {
            resource: "containers".to_owned(),
            name: id.to_owned(),
        },
    }
}

async fn run(
    socket: WebSocket,
    input: mpsc::Sender<ExecInput>,
    output: Streaming<ExecOutput>,
    shutdown: CancellationToken,
) {
    let (mut sender, receiver) = socket.split();
    let mut gone = std::pin::pin!(relay_input(receiver, input));
    let status = tokio::select! {
        status = relay_output(&mut sender, output) => status,
        // The client has gone: dropping the call ends the command's streams.
        () = &mut gone => return,
        () = shutdown.cancelled() => failure("the daemon is shutting down"),
    };
    if let Some(status) = status.as_object() {
        let body = Value::Object(status.clone()).to_string();
        let _ = sender.send(message(ERROR, body.as_bytes())).await;
    }
    let farewell = CloseFrame {
        code: axum::extract::ws::close_code::NORMAL,
        reason: "".into(),
    };
    let _ = sender.send(Message::Close(Some(farewell))).await;
    // A socket that is closed under a client's last word breaks the connection before it has read ours.
    let _ = tokio::time::timeout(FAREWELL, gone).await;
}

/// Passes on what the command writes, until it ends; returns how it ended.
async fn relay_output(sender: &mut Sender, mut output: Streaming<ExecOutput>) -> Value {
    // kubectl takes the first message as the sign that the command is running.
    if sender.send(message(STDOUT, &[])).await.is_err() {
        return Value::Null;
    }
    let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
    loop {
        let next = tokio::select! {
            next = output.message() => next,
            _ = pings.tick() => {
                if sender.send(Message::Ping(Bytes::new())).await.is_err() {
                    return Value::Null;
                }
                continue;
            }
        };
        let sent = match next {
            Ok(Some(ExecOutput {
                output: Some(Output::Stdout(bytes)),
            })) => sender.send(message(STDOUT, &bytes)).await,
            Ok(Some(ExecOutput {
                output: Some(Output::Stderr(bytes)),
            })) => sender.send(message(STDERR, &bytes)).await,
            Ok(Some(ExecOutput {
                output: Some(Output::ExitCode(code)),
            })) => return ended(code),
            Ok(Some(ExecOutput { output: None })) => Ok(()),
            Ok(None) => return failure("the command's exit code is not known"),
            Err(status) => return broken(&status),
        };
        if sent.is_err() {
            return Value::Null;
        }
    }
}

/// Passes on what the client sends, until it goes.
async fn relay_input(mut receiver: SplitStream<WebSocket>, input: mpsc::Sender<ExecInput>) {
    while let Some(Ok(message)) = receiver.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        if let Some(item) = parse(&bytes)
            && input.send(ExecInput { input: Some(item) }).await.is_err()
        {
            // The command no longer reads; its end comes from the other side.
            std::future::pending::<()>().await;
        }
    }
}

fn parse(message: &Bytes) -> Option<Input> {
    let (channel, _) = message.split_first()?;
    let content = message.slice(1..);
    match *channel {
        STDIN if content.is_empty() => None,
        STDIN => Some(Input::Stdin(content)),
        RESIZE => {
            let size: Value = serde_json::from_slice(&content).ok()?;
            let cells = |field: &str| u32::try_from(size[field].as_u64()?).ok();
            Some(Input::Resize(TerminalSize {
                rows: cells("Height")?,
                columns: cells("Width")?,
            }))
        }
        CLOSE if content.first() == Some(&STDIN) => Some(Input::CloseStdin(true)),
        _ => None,
    }
}

fn message(channel: u8, content: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(content.len() + 1);
    bytes.put_u8(channel);
    bytes.put_slice(content);
    Message::Binary(bytes.freeze())
}

fn ended(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

fn failure(message: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "InternalError",
        "code": 500,
    })
}

fn broken(status: &Status) -> Value {
    failure(&node::refusal(status).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_apart_by_their_channel() {
        let parse = |bytes: &'static [u8]| parse(&Bytes::from_static(bytes));

        assert_eq!(
            parse(b"\x00ls\n"),
            Some(Input::Stdin(Bytes::from_static(b"ls\n")))
        );
        assert_eq!(parse(b"\xff\x00"), Some(Input::CloseStdin(true)));
        assert_eq!(
            parse(b"\x04{\"Width\":80,\"Height\":24}"),
            Some(Input::Resize(TerminalSize {
                rows: 24,
                columns: 80
            }))
        );
        for nonsense in [
            &b""[..],
            b"\x00",
            b"\x04",
            b"\x04{}",
            b"\xff",
            b"\xff\x01",
            b"\x09x",
        ] {
            assert_eq!(parse(nonsense), None, "{nonsense:?}");
        }
    }
}
