//! `weft completion`: scripts that complete verbs and flags.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::failure::Failure;

#[derive(Debug, Args)]
#[command(after_help = "Example:  source <(weft completion bash)")]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(completion: &Completion) -> Result<ExitCode, Failure> {
    clap_complete::generate(
        completion.shell,
        &mut Arguments::command(),
        "weft",
        &mut std::io::stdout(),
    );
    Ok(ExitCode::SUCCESS)
}
