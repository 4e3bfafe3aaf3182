//! `weft certs`: every identity and when its certificate ends.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;

use crate::arguments::{Global, Output};
use crate::failure::Failure;
use crate::mesh::Mesh;
use crate::output;
use crate::resource::text;

#[derive(Debug, Args)]
pub(crate) struct Certs {}

/// Lists the certificates that the mesh's authority has signed and that still hold.
pub(crate) async fn run(global: &Global) -> Result<ExitCode, Failure> {
    let mesh = Mesh::of_running(global).await?;
    let certificates = mesh.get("/weft/v1/certificates").await?;
    if output::document(global.output, &certificates)?.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    if global.output == Output::Name {
        let identities = certificates["certificates"]
            .as_array()
            .into_iter()
            .flatten();
        let identities: BTreeSet<String> = identities
            .map(|certificate| text(&certificate["spiffeId"]))
            .collect();
        identities
            .iter()
            .for_each(|identity| output::line(identity));
        return Ok(ExitCode::SUCCESS);
    }
    let mut headings = vec!["IDENTITY", "ENDS IN"];
    if global.output == Output::Wide {
        headings.extend(["SERIAL", "NOT AFTER"]);
    }
    let rows = certificates["certificates"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|certificate| {
            let end = certificate["notAfter"].as_i64().unwrap_or_default();
            let mut row = vec![
                text(&certificate["spiffeId"]),
                output::age(end - jiff::Timestamp::now().as_second()),
            ];
            if global.output == Output::Wide {
                row.push(text(&certificate["serial"]));
                row.push(
                    jiff::Timestamp::from_second(end)
                        .map_or_else(|_| "-".to_owned(), |end| end.to_string()),
                );
            }
            row
        });
    output::table(&headings, rows);
    Ok(ExitCode::SUCCESS)
}
