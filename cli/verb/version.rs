//! `weft version`.

use std::process::ExitCode;

use serde_json::json;

use crate::arguments::Global;
use crate::failure::Failure;
use crate::output;

/// Prints the version of this binary.
pub(crate) fn run(global: &Global) -> Result<ExitCode, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if output::document(global.output, &json!({ "version": version }))?.is_none() {
        output::line(&format!("weft {version}"));
    }
    Ok(ExitCode::SUCCESS)
}
