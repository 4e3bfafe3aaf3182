//! A command that is run to its end at once, for probes.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use weft_proto::weft::node::v1::{ExecStart, ExecSyncRequest, ExecSyncResponse};

use super::{AbortOnDrop, CHUNK_BYTES, DRAIN, command, exit_code, request};
use crate::server::Shared;
use crate::server::failure::Failure;

/// What a probe may say.
const SYNC_OUTPUT_BYTES: usize = 64 * 1024;
/// A probe without a deadline has this one.
const SYNC_DEADLINE: Duration = Duration::from_secs(60);

/// Runs a command to its end; what it says beyond the bound is read and dropped.
pub(in crate::server) async fn sync(
    shared: &Arc<Shared>,
    wanted: ExecSyncRequest,
) -> Result<ExecSyncResponse, Failure> {
    let start = ExecStart {
        container_id: wanted.container_id,
        command: wanted.command,
        ..ExecStart::default()
    };
    let mut command = command(shared, &request(shared, start)?)?;
    let (reader, stdout) = io::pipe().map_err(Failure::system("making a pipe"))?;
    let stderr = stdout
        .try_clone()
        .map_err(Failure::system("making a pipe"))?;
    let mut child = command
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .map_err(Failure::system("starting a command"))?;
    // Our copies of the writing end would keep the pipe open.
    drop(command);
    let collecting = tokio::spawn(collect(OwnedFd::from(reader)));
    let deadline = match wanted.timeout_millis {
        0 => SYNC_DEADLINE,
        millis => Duration::from_millis(millis.into()),
    };
    let status = tokio::time::timeout(deadline, child.wait()).await;
    let timed_out = status.is_err();
    let exit_code = match status {
        Ok(status) => exit_code(status.map_err(Failure::system("waiting for a command"))?),
        Err(_) => {
            child
                .kill()
                .await
                .map_err(Failure::system("killing a command"))?;
            124
        }
    };
    let abort = AbortOnDrop(collecting.abort_handle());
    let output = tokio::time::timeout(DRAIN, collecting).await;
    drop(abort);
    Ok(ExecSyncResponse {
        exit_code,
        output: output.ok().and_then(Result::ok).unwrap_or_default(),
        timed_out,
    })
}

async fn collect(from: OwnedFd) -> Bytes {
    let Ok(mut from) = Receiver::from_owned_fd(from) else {
        return Bytes::new();
    };
    let mut output = Vec::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        let left = SYNC_OUTPUT_BYTES - output.len();
        output.extend_from_slice(&chunk[..read.min(left)]);
    }
    output.into()
}
