//! What can be typed: the global flags and the verbs. Each verb's own flags are in its file.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::verb;

/// A service mesh that runs wherever Linux runs.
#[derive(Debug, Parser)]
#[command(
    name = "weft",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Start an application:   weft up -f compose.yaml\nSee what runs:          weft ps\nShift its traffic:      weft split reviews reviews-v1=80 reviews-v2=20\nTake it down:           weft down"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags that every verb takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// How results are printed
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    pub(crate) output: Output,
    /// The namespace to work in
    #[arg(short, long, global = true, default_value = "default")]
    pub(crate) namespace: String,
    /// Print less: no progress, no hints
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Print more; twice for debugging
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// No colours (also: the variable NO_COLOR)
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// The daemon's socket, where it is not $WEFT_RUNTIME_DIR/weft.sock
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Give up after this long, with exit status 124
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration, default_value = "5m")]
    pub(crate) timeout: Duration,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
    K8s,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start an application, or change it to what its file says now
    Up(verb::up::Up),
    /// Stop an application and remove it
    Down(verb::down::Down),
    /// Print the application as weft understands it
    Config(verb::config::Config),
    /// List pods
    Ps(verb::ps::Ps),
    /// The mesh as a whole: daemon, proxies, certificates
    Status(verb::status::Status),
    /// Requests, success and latency of each service and route
    Top(verb::top::Top),
    /// Print what services have written
    Logs(verb::logs::Logs),
    /// Run a command in a running container
    Exec(verb::exec::Exec),
    /// Replace sidecars by this version of weft, without losing a connection
    Restart(verb::restart::Restart),
    /// Create or change resources from files
    Apply(verb::apply::Apply),
    /// Show resources
    Get(verb::get::Get),
    /// Delete resources
    Delete(verb::delete::Delete),
    /// Divide a service's traffic among others
    Split(verb::split::Split),
    /// Make calls to a service fail or wait, to see what happens
    Fault(verb::fault::Fault),
    /// Can this machine run weft? Names what is missing and what to do
    Check(verb::check::Check),
    /// What a sidecar really has
    ProxyConfig(verb::proxy_config::ProxyConfig),
    /// Which sidecars have acknowledged which configuration
    ProxyStatus(verb::proxy_status::ProxyStatus),
    /// Identities and when their certificates end
    Certs(verb::certs::Certs),
    /// Images: list, import, build, inspect, remove
    Image(verb::image::Image),
    /// The control plane, launcher and broker; `weft up` starts it when needed
    Daemon(verb::daemon::Daemon),
    /// The sidecar proxy, by itself: reads an Envoy bootstrap file
    Proxy(verb::proxy::Proxy),
    /// Shell completion
    Completion(verb::completion::Completion),
    /// The version
    Version,
}

/// `90s`, `5m`, `1h30m`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 90s, 5m or 1h30m"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn no_two_flags_of_a_verb_share_a_name() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_are_written_with_units_or_as_seconds() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("soon").is_err());
    }
}
