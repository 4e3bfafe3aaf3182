//! `weft check`: can this machine run weft?

use std::process::ExitCode;

use clap::Args;
use weft_runtime::check::{Finding, Status};

use crate::arguments::{Global, Output};
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct Check {}

/// Prints each finding; exit status 1 where weft cannot run.
pub(crate) fn run(global: &Global) -> Result<ExitCode, Failure> {
    let findings = weft_runtime::check::check();
    if output::document(global.output, &findings)?.is_none() {
        print(global, &findings);
    }
    let can_run = findings
        .iter()
        .all(|finding| finding.status != Status::Failed);
    Ok(if can_run {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(global: &Global, findings: &[Finding]) {
    let rows = findings.iter().map(|finding| {
        let word = match finding.status {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Failed => "failed",
        };
        vec![
            word.to_owned(),
            finding.name.to_string(),
            finding.detail.clone(),
        ]
    });
    output::table(&["STATUS", "CHECK", "DETAIL"], rows);
    for finding in findings {
        if finding.status != Status::Ok
            && let Some(fix) = &finding.fix
            && global.output != Output::Name
        {
            output::remark(global, &format!("\n{}: {fix}", finding.name));
        }
    }
}
