//! Commands beside a container's first process.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use weft_proto::weft::node::v1::exec_input::Input;
use weft_proto::weft::node::v1::exec_output::Output;
use weft_proto::weft::node::v1::*;

use crate::runner::Tests;
use crate::support::{Mesh, PATIENCE, shell_command};

pub(crate) fn register(tests: &mut Tests) {
    tests.add("a_command_sees_the_container_and_its_input", with_input);
    tests.add("a_terminal_is_a_terminal_with_a_size", with_terminal);
    tests.add("a_probe_that_hangs_is_ended", sync_deadline);
    tests.add("a_command_ends_when_its_client_goes_away", client_gone);
}

/// Runs a command with these inputs; its output and exit code.
async fn run(mesh: &Mesh, start: ExecStart, inputs: Vec<Input>) -> (String, i32) {
    let (sender, receiver) = mpsc::channel(16);
    let mut messages = vec![Input::Start(start)];
    messages.extend(inputs);
    for input in messages {
        sender
            .send(ExecInput { input: Some(input) })
            .await
            .expect("queued");
    }
    let mut stream = mesh
        .node
        .client
        .clone()
        .exec(ReceiverStream::new(receiver))
        .await
        .expect("exec")
        .into_inner();
    let mut text = Vec::new();
    let mut code = None;
    let read = async {
        while let Some(message) = stream.next().await {
            match message.expect("output").output {
                Some(Output::Stdout(bytes) | Output::Stderr(bytes)) => {
                    text.extend_from_slice(&bytes)
                }
                Some(Output::ExitCode(exit_code)) => code = Some(exit_code),
                None => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("the command ends");
    drop(sender);
    (
        String::from_utf8_lossy(&text).into_owned(),
        code.expect("an exit code"),
    )
}

fn command(container: &str, script: &str) -> ExecStart {
    ExecStart {
        container_id: container.into(),
        command: shell_command(script),
        ..ExecStart::default()
    }
}

async fn with_input(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    mesh.shell("one", "c", "exec sleep 1000").await;

    let inputs = vec![Input::Stdin("typed\n".into()), Input::CloseStdin(true)];
    let (text, code) = run(
        &mesh,
        command("c", "cat; hostname; cat /proc/1/comm; exit 5"),
        inputs,
    )
    .await;

    assert_eq!((text.as_str(), code), ("typed\none\nsleep\n", 5));
    let (text, code) = run(
        &mesh,
        ExecStart {
            command: vec!["nothing".into()],
            ..command("c", "")
        },
        vec![],
    )
    .await;
    assert_eq!(code, 127, "{text}");
    mesh
}

async fn with_terminal(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    mesh.shell("one", "c", "exec sleep 1000").await;

    let size = TerminalSize {
        rows: 33,
        columns: 77,
    };
    let start = ExecStart {
        terminal: true,
        size: Some(size),
        ..command("c", "read line; tty; stty size; echo got $line; exit 4")
    };
    let (text, code) = run(&mesh, start, vec![Input::Stdin("word\n".into())]).await;

    assert_eq!(code, 4, "{text}");
    assert!(
        text.contains("/dev/pts/0") && text.contains("33 77") && text.contains("got word"),
        "{text}"
    );
    mesh
}

async fn sync_deadline(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    mesh.shell("one", "c", "exec sleep 1000").await;
    let request = ExecSyncRequest {
        container_id: "c".into(),
        command: shell_command("echo started; exec sleep 999"),
        timeout_millis: 300,
    };

    let answer = mesh
        .node
        .client
        .clone()
        .exec_sync(request)
        .await
        .expect("an answer")
        .into_inner();

    assert!(answer.timed_out);
    assert_eq!(answer.output, "started\n");
    let gone = async || {
        !mesh
            .exec("c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
            .await
            .1
            .contains("sleep 999")
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    while !gone().await {
        assert!(std::time::Instant::now() < deadline, "the command goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    mesh
}

async fn client_gone(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    mesh.shell("one", "c", "exec sleep 1000").await;
    let (sender, receiver) = mpsc::channel(16);
    let start = command("c", "echo started; exec sleep 998");
    sender
        .send(ExecInput {
            input: Some(Input::Start(start)),
        })
        .await
        .expect("queued");
    let mut stream = mesh
        .node
        .client
        .clone()
        .exec(ReceiverStream::new(receiver))
        .await
        .expect("exec")
        .into_inner();
    stream.next().await.expect("output").expect("output");

    drop((stream, sender));

    let deadline = std::time::Instant::now() + PATIENCE;
    while mesh
        .exec("c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        .await
        .1
        .contains("sleep 998")
    {
        assert!(std::time::Instant::now() < deadline, "the command goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    mesh
}
