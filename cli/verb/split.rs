//! `weft split`: divide a service's traffic among others, by weight.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::arguments::{Global, Output};
use crate::failure::Failure;
use crate::mesh::Mesh;
use crate::output;
use crate::verb::apply;

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  weft split reviews reviews-v1=80 reviews-v2=20\nUndo:\n  weft delete httproute/reviews"
)]
pub(crate) struct Split {
    /// The service that callers name
    service: String,
    /// Where its requests go, each with its weight
    #[arg(required = true, value_name = "SERVICE=WEIGHT", value_parser = share)]
    shares: Vec<(String, u32)>,
    /// Only requests to this port
    #[arg(long)]
    port: Option<u16>,
    /// Validate, print, change nothing
    #[arg(long)]
    dry_run: bool,
}

/// The largest weight of a backendRef, as in the Gateway API.
const MAX_WEIGHT: u32 = 1_000_000;

/// Which route a split wrote, so that the next one may replace it.
const WRITTEN_BY: &str = "weft.dev/written-by";

/// Writes an HTTPRoute named as the service, and prints it.
pub(crate) async fn run(global: &Global, split: Split) -> Result<ExitCode, Failure> {
    check_shares(&split.shares)?;
    let mesh = Mesh::of_running(global).await?;
    let path = format!(
        "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes/{}",
        global.namespace, split.service
    );
    if let Some(existing) = mesh.find(&path).await?
        && existing["metadata"]["annotations"][WRITTEN_BY] != "split"
    {
        return Err(Failure::refused(format!(
            "httproute/{0} exists and was not written by `weft split`, which would replace its rules: change its \
             weights with `weft get httproute/{0} -o yaml` and `weft apply`",
            split.service
        )));
    }
    let route = route(&mesh, global, &split).await?;
    let applied = mesh.apply(&path, &route, split.dry_run).await?;
    match global.output {
        Output::Name => {}
        Output::Json => output::line(&serde_json::to_string_pretty(&route)?),
        _ => output::line(output::yaml(&route)?.trim_end()),
    }
    if global.output != Output::Json {
        apply::report(
            global,
            &format!("httproute.gateway.networking.k8s.io/{}", split.service),
            applied,
            split.dry_run,
        );
    }
    if split
        .shares
        .iter()
        .map(|(_, weight)| weight)
        .map(|weight| u64::from(*weight))
        .sum::<u64>()
        != 100
    {
        output::remark(global, &in_percent(&split.shares));
    }
    Ok(ExitCode::SUCCESS)
}

/// A service comes once, and the weights can be added up.
fn check_shares(shares: &[(String, u32)]) -> Result<(), Failure> {
    for (index, (service, _)) in shares.iter().enumerate() {
        if shares[..index].iter().any(|(other, _)| other == service) {
            return Err(Failure::usage(format!(
                "{service} is there twice: give each service one weight"
            )));
        }
    }
    Ok(())
}

/// What weights come to that do not add up to 100.
fn in_percent(shares: &[(String, u32)]) -> String {
    let total: f64 = shares.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let words: Vec<String> = shares
        .iter()
        .map(|(service, weight)| {
            let percent = format!("{:.1}", 100.0 * f64::from(*weight) / total);
            format!("{service} {} %", percent.trim_end_matches(".0"))
        })
        .collect();
    format!("weights are shares of their sum: {}", words.join(", "))
}

async fn route(mesh: &Mesh, global: &Global, split: &Split) -> Result<Value, Failure> {
    let port = match split.port {
        Some(port) => port,
        None => only_port(mesh, global, &split.service).await?,
    };
    let backends: Vec<Value> = split
        .shares
        .iter()
        .map(|(service, weight)| json!({ "name": service, "port": port, "weight": weight }))
        .collect();
    Ok(json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {
            "name": split.service,
            "namespace": global.namespace,
            "annotations": { WRITTEN_BY: "split" },
        },
        "spec": {
            "parentRefs": [{ "group": "", "kind": "Service", "name": split.service, "port": port }],
            "rules": [{ "backendRefs": backends }],
        },
    }))
}

/// The service's only port; with several the user has to say which.
async fn only_port(mesh: &Mesh, global: &Global, service: &str) -> Result<u16, Failure> {
    let path = format!("/api/v1/namespaces/{}/services/{service}", global.namespace);
    let found = mesh.find(&path).await?.ok_or_else(|| {
        Failure::refused(format!(
            "there is no service {service:?} in namespace {}: see `weft get services`",
            global.namespace
        ))
    })?;
    let ports: Vec<u16> = found["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|port| u16::try_from(port["port"].as_u64()?).ok())
        .collect();
    match ports[..] {
        [port] => Ok(port),
        [] => Err(Failure::refused(format!(
            "service {service:?} has no port: add `expose` to it"
        ))),
        _ => Err(Failure::usage(format!(
            "service {service:?} has ports {ports:?}: say which with --port"
        ))),
    }
}

/// `reviews-v1=80`
fn share(text: &str) -> Result<(String, u32), String> {
    let (service, weight) = text
        .split_once('=')
        .ok_or("write SERVICE=WEIGHT, like reviews-v1=80")?;
    let weight = weight
        .parse()
        .ok()
        .filter(|weight| *weight <= MAX_WEIGHT)
        .ok_or_else(|| {
            format!("{weight:?} is no weight: a whole number like 80, at most {MAX_WEIGHT}")
        })?;
    Ok((service.to_owned(), weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_service_and_a_whole_number() {
        assert_eq!(share("reviews-v1=80"), Ok(("reviews-v1".to_owned(), 80)));
        assert!(share("reviews-v1").is_err());
        assert!(share("reviews-v1=most").is_err());
        assert!(share("reviews-v1=-1").is_err());
        assert!(share("reviews-v1=4000000000").is_err());
    }

    #[test]
    fn weights_are_told_in_percent() {
        let shares = [("a".to_owned(), 1), ("b".to_owned(), 2)];

        assert!(in_percent(&shares).ends_with("a 33.3 %, b 66.7 %"));
    }

    #[test]
    fn a_service_has_one_weight() {
        let twice = [("a".to_owned(), 50), ("a".to_owned(), 50)];

        assert!(check_shares(&twice).is_err());
        assert!(check_shares(&twice[..1]).is_ok());
    }
}
