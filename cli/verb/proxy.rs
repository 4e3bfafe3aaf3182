//! `weft proxy`: the sidecar, by itself.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use weft_proxy::app::PARENT_SHUTDOWN;

use crate::failure::{Failure, chain};
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft proxy -c envoy.yaml --mode validate")]
pub(crate) struct Proxy {
    /// An Envoy bootstrap file, YAML or JSON
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Serve, or only read the file and say whether it is good
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    mode: Mode,
    /// Run as a pod's sidecar: its ports, sockets and state folder
    #[arg(long)]
    sidecar: bool,
    /// How many workers; 0: as many as there are processors
    #[arg(long, default_value_t = 0)]
    concurrency: usize,
    /// Replace the proxy that listens at this unix socket without losing a connection, then listen there
    #[arg(long, value_name = "SOCKET")]
    handover: Option<PathBuf>,
    /// How long the proxy that is replaced may finish what it has begun
    #[arg(
        long = "parent-shutdown-time-s",
        value_name = "SECONDS",
        default_value_t = PARENT_SHUTDOWN.as_secs()
    )]
    parent_shutdown_seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Serve,
    Validate,
}

/// Serves until a signal ends it, or validates and says so.
pub(crate) fn run(proxy: Proxy) -> Result<ExitCode, Failure> {
    let is_validation = proxy.mode == Mode::Validate;
    let config = proxy.config.display().to_string();
    let options = weft_proxy::Options {
        mode: match proxy.mode {
            Mode::Serve => weft_proxy::Mode::Serve,
            Mode::Validate => weft_proxy::Mode::Validate,
        },
        sidecar: proxy.sidecar,
        concurrency: proxy.concurrency,
        handover: proxy.handover,
        parent_shutdown: Duration::from_secs(proxy.parent_shutdown_seconds),
        release_memory: weft_runtime::release_free_memory,
        settle: || {
            weft_runtime::release_free_memory();
            weft_runtime::release_program_pages();
        },
        ..weft_proxy::Options::new(proxy.config)
    };
    weft_proxy::run(options).map_err(|error| Failure::new(chain(&error)))?;
    if is_validation {
        output::line(&format!("configuration {config} OK"));
    }
    Ok(ExitCode::SUCCESS)
}
