//! Commands beside a container's first process: a stream with their input and output, or their end at once.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tonic::{Status as Refusal, Streaming};
use weft_proto::weft::node::v1::exec_input::Input;
use weft_proto::weft::node::v1::exec_output::Output;
use weft_proto::weft::node::v1::{ExecInput, ExecOutput, ExecStart, TerminalSize};

mod sync;
mod terminal;

pub(super) use sync::sync;

use super::Shared;
use super::failure::Failure;
use crate::container::bundle::Process;
use crate::container::exec::{ExecRequest, VARIABLE};
use crate::container::report::Reports;

/// Chunks that wait for the client, or for the command.
const QUEUE: usize = 64;
const CHUNK_BYTES: usize = 16 * 1024;
/// Between the end of a command and the end of its output, which something it left behind may hold open.
const DRAIN: Duration = Duration::from_millis(200);

type Sender = mpsc::Sender<Result<ExecOutput, Refusal>>;

/// Runs a command and sends its output; the first message of the input says which.
pub(super) async fn stream(
    shared: &Arc<Shared>,
    mut input: Streaming<ExecInput>,
) -> Result<mpsc::Receiver<Result<ExecOutput, Refusal>>, Refusal> {
    let first = input.message().await?.and_then(|message| message.input);
    let Some(Input::Start(start)) = first else {
        return Err(Failure::invalid("input", "the first message must be `start`").into());
    };
    let terminal = start.terminal;
    let size = start.size;
    let command = command(shared, &request(shared, start)?)?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let done = if terminal {
            with_terminal(command, size, input, &sender).await
        } else {
            with_pipes(command, input, &sender).await
        };
        if let Err(error) = done {
            let refusal = Failure::system("running a command in the container")(error);
            // A client that is gone needs no reason.
            let _ = sender.send(Err(refusal.into())).await;
        }
    });
    Ok(receiver)
}

fn request(shared: &Shared, start: ExecStart) -> Result<ExecRequest, Failure> {
    let entry = shared.containers.find(&start.container_id)?;
    let bundle = &entry.bundle;
    if start.command.is_empty() {
        return Err(Failure::invalid("command", "it is empty"));
    }
    let or = |given: String, otherwise: &str| {
        if given.is_empty() {
            otherwise.to_owned()
        } else {
            given
        }
    };
    Ok(ExecRequest {
        pid: entry.running_pid()?,
        group: bundle.group.clone(),
        hostname: bundle.hostname.clone(),
        process: Process {
            command: start.command,
            environment: [&bundle.process.environment[..], &start.environment[..]].concat(),
            working_directory: or(start.working_directory, &bundle.process.working_directory),
            user: or(start.user, &bundle.process.user),
            capabilities: bundle.process.capabilities.clone(),
            terminal: start.terminal,
        },
    })
}

fn command(shared: &Shared, request: &ExecRequest) -> Result<Command, Failure> {
    let text = serde_json::to_string(request)
        .map_err(|error| Failure::invalid("command", error.to_string()))?;
    let mut command = Command::new(shared.options.program());
    command
        .args(["init", "--exec"])
        .env_clear()
        .env(VARIABLE, text)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(command)
}

async fn with_pipes(
    mut command: Command,
    input: Streaming<ExecInput>,
    sender: &Sender,
) -> io::Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let feeding = tokio::spawn(feed(input, child.stdin.take(), None));
    let _feeding = AbortOnDrop(feeding.abort_handle());
    let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let copying = async {
        tokio::join!(
            copy(stdout, Output::Stdout, sender),
            copy(stderr, Output::Stderr, sender)
        )
    };
    let code = wait(&mut child, copying, sender).await?;
    finish(code, sender).await;
    Ok(())
}

async fn with_terminal(
    mut command: Command,
    size: Option<TerminalSize>,
    input: Streaming<ExecInput>,
    sender: &Sender,
) -> io::Result<()> {
    let (reports, theirs) = Reports::pair()?;
    let mut child = command
        .stdin(theirs)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // The other end of the socket must close with the process, not with us.
    drop(command);
    let opened = tokio::task::spawn_blocking(move || terminal::open(&reports)).await?;
    let other_end = match opened? {
        Ok(other_end) => other_end,
        Err(reason) => {
            let text = Bytes::from(format!("{reason}\r\n"));
            send(Output::Stdout(text), sender).await;
            let code = exit_code(child.wait().await?);
            finish(code, sender).await;
            return Ok(());
        }
    };
    terminal::resize(&other_end, size);
    let writer = File::from_std(other_end.try_clone()?.into());
    let reader = File::from_std(other_end.try_clone()?.into());
    let feeding = tokio::spawn(feed(input, Some(writer), Some(other_end)));
    let _feeding = AbortOnDrop(feeding.abort_handle());
    let code = wait(&mut child, copy(reader, Output::Stdout, sender), sender).await?;
    finish(code, sender).await;
    Ok(())
}

/// What the client sends goes to the command, until the client ends.
async fn feed<W: AsyncWrite + Unpin>(
    mut input: Streaming<ExecInput>,
    mut stdin: Option<W>,
    other_end: Option<OwnedFd>,
) {
    while let Ok(Some(message)) = input.message().await {
        match message.input {
            Some(Input::Stdin(bytes)) => {
                let Some(writer) = &mut stdin else { continue };
                if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                    stdin = None;
                }
            }
            // A terminal has no end of input; programs at it are sent Ctrl-D.
            Some(Input::CloseStdin(true)) if other_end.is_none() => stdin = None,
            Some(Input::Resize(size)) => {
                if let Some(other_end) = &other_end {
                    terminal::resize(other_end, Some(size));
                }
            }
            _ => {}
        }
    }
    if other_end.is_none() {
        drop(stdin);
    } else {
        // Closing our end would hang the terminal up, which is for the end of the command to do.
        std::future::pending::<()>().await;
    }
}

/// Until the command has ended and its output with it. A client that goes away ends the command.
async fn wait<T>(
    child: &mut Child,
    copying: impl Future<Output = T>,
    sender: &Sender,
) -> io::Result<i32> {
    tokio::pin!(copying);
    let mut is_copied = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            _ = &mut copying, if !is_copied => is_copied = true,
            () = sender.closed() => {
                child.start_kill()?;
                break child.wait().await?;
            }
        }
    };
    if !is_copied {
        let _ = tokio::time::timeout(DRAIN, copying).await;
    }
    Ok(exit_code(status))
}

async fn copy(mut from: impl AsyncRead + Unpin, wrap: fn(Bytes) -> Output, sender: &Sender) {
    let mut chunk = vec![0; CHUNK_BYTES];
    // A terminal whose command has ended answers EIO.
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        if !send(wrap(Bytes::copy_from_slice(&chunk[..read])), sender).await {
            return;
        }
    }
}

async fn send(output: Output, sender: &Sender) -> bool {
    sender
        .send(Ok(ExecOutput {
            output: Some(output),
        }))
        .await
        .is_ok()
}

async fn finish(code: i32, sender: &Sender) {
    send(Output::ExitCode(code), sender).await;
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Stops a task with its owner.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
