//! `healthcheck`: how a service is asked whether it is well.

use std::time::Duration;

use super::Healthcheck;
use crate::compose::document::{Node, Value};
use crate::compose::error::{ComposeError, Warning};
use crate::compose::{read, schema};

/// The health check of a service.
pub(super) fn healthcheck(
    node: &Node,
    what: &str,
    warnings: &mut Vec<Warning>,
) -> Result<Healthcheck, ComposeError> {
    schema::check(node, what, schema::HEALTHCHECK, warnings)?;
    let duration = |field: &str, default: u64| {
        node.get(field)
            .map_or(Ok(Duration::from_secs(default)), |node| {
                read::duration(node, &format!("{what}.{field}"))
            })
    };
    let is_disabled = node.get("disable").map_or(Ok(false), |node| {
        read::boolean(node, &format!("{what}.disable"))
    })?;
    let test = node
        .get("test")
        .map(|node| health_command(node, &format!("{what}.test")))
        .transpose()?;
    if test.is_none() && !is_disabled {
        return Err(ComposeError::at(&node.at, format!("{what} has no test")));
    }
    Ok(Healthcheck {
        command: test.filter(|_| !is_disabled).unwrap_or_default(),
        // The defaults are docker's.
        interval: duration("interval", 30)?,
        timeout: duration("timeout", 30)?,
        retries: node
            .get("retries")
            .map_or(Ok(3), |node| read::number(node, &format!("{what}.retries")))?,
    })
}

fn health_command(node: &Node, what: &str) -> Result<Vec<String>, ComposeError> {
    let shell = |script: &str| ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    if let Value::Scalar { text, .. } = &node.value {
        return Ok(shell(text));
    }
    let words = read::texts(node, what)?;
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["NONE"] => Ok(Vec::new()),
        ["CMD", _, ..] => Ok(words[1..].to_vec()),
        ["CMD-SHELL", script] => Ok(shell(script)),
        _ => Err(read::expected(
            node,
            what,
            "[CMD, …], [CMD-SHELL, script], [NONE] or a script",
        )),
    }
}
