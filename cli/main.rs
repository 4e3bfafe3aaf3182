//! The `weft` command: every verb that people type, and the long-running parts under their own verbs.
//!
//! `verb/` holds one file per verb: parse, call a library, print. What several verbs share is beside it: where
//! the mesh keeps its things (`paths`), how to reach it (`mesh`), how results are printed (`output`), and what
//! a failure costs (`failure`).

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

mod arguments;
mod failure;
mod mesh;
mod output;
mod paths;
mod resource;
mod suggest;
mod verb;

use crate::arguments::{Arguments, Verb};
use crate::failure::Failure;

fn main() -> ExitCode {
    // The runtime's own processes make namespaces, which the kernel allows only while there is one thread:
    // they come before everything else.
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    if let Some((verb, rest)) = words.split_first()
        && let Some(code) = weft_runtime::entry::run(&verb.to_string_lossy(), rest)
    {
        return code;
    }

    let matches = Arguments::command().get_matches();
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    match run(arguments) {
        Ok(code) => match output::loss() {
            Some(failure) => {
                output::complain(&failure);
                failure.exit_code()
            }
            None => code,
        },
        Err(failure) => {
            output::complain(&failure);
            failure.exit_code()
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { global, verb } = arguments;
    output::configure(&global);
    match verb {
        // The proxy owns its threads.
        Verb::Proxy(proxy) => verb::proxy::run(proxy),
        Verb::Completion(completion) => verb::completion::run(&completion),
        Verb::Daemon(daemon) => runtime()?.block_on(verb::daemon::run(&global, daemon)),
        verb => {
            let runtime = runtime()?;
            let outcome = runtime.block_on(dispatch(global, verb));
            // A thread that reads standard input cannot be stopped: it would wait for one more key.
            runtime.shutdown_background();
            outcome
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("starting the async runtime: {error}")))
}

async fn dispatch(global: arguments::Global, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Up(up) => verb::up::run(&global, up).await,
        Verb::Down(down) => verb::down::run(&global, down).await,
        Verb::Config(config) => verb::config::run(&global, config),
        Verb::Ps(ps) => verb::ps::run(&global, ps).await,
        Verb::Top(top) => verb::top::run(&global, top).await,
        Verb::Status(status) => verb::status::run(&global, status).await,
        Verb::Logs(logs) => verb::logs::run(&global, logs).await,
        Verb::Exec(exec) => verb::exec::run(&global, exec).await,
        Verb::Apply(apply) => verb::apply::run(&global, apply).await,
        Verb::Get(get) => verb::get::run(&global, get).await,
        Verb::Delete(delete) => verb::delete::run(&global, delete).await,
        Verb::Restart(restart) => verb::restart::run(&global, restart).await,
        Verb::Split(split) => verb::split::run(&global, split).await,
        Verb::Fault(fault) => verb::fault::run(&global, fault).await,
        Verb::Check(_) => verb::check::run(&global),
        Verb::ProxyConfig(config) => verb::proxy_config::run(&global, config).await,
        Verb::ProxyStatus(_) => verb::proxy_status::run(&global).await,
        Verb::Certs(_) => verb::certs::run(&global).await,
        Verb::Image(image) => verb::image::run(&global, image).await,
        Verb::Version => verb::version::run(&global),
        Verb::Proxy(_) | Verb::Completion(_) | Verb::Daemon(_) => {
            unreachable!("dispatched by run")
        }
    }
}
