//! `weft proxy-config`: what a sidecar really has, asked of the sidecar itself.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::arguments::{Global, Output};
use crate::failure::Failure;
use crate::mesh::Mesh;
use crate::output;
use crate::resource::{name, text};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft proxy-config routes front\n  weft proxy-config all books-x7k2p -o json"
)]
pub(crate) struct ProxyConfig {
    /// What to show
    #[arg(value_enum)]
    part: Part,
    /// A pod, or a service (then its first pod)
    pod: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Listeners,
    Routes,
    Clusters,
    Endpoints,
    Secrets,
    All,
}

impl Part {
    /// The message of Envoy's config dump that holds it.
    fn dump(self) -> &'static str {
        match self {
            Self::Listeners => "ListenersConfigDump",
            Self::Routes => "RoutesConfigDump",
            Self::Clusters => "ClustersConfigDump",
            Self::Endpoints => "EndpointsConfigDump",
            Self::Secrets => "SecretsConfigDump",
            Self::All => "",
        }
    }
}

/// Prints one part of the sidecar's `/config_dump`, or all of it.
pub(crate) async fn run(global: &Global, config: ProxyConfig) -> Result<ExitCode, Failure> {
    let mesh = Mesh::of_running(global).await?;
    let pod = mesh.pod(&global.namespace, &config.pod).await?;
    let include = if config.part == Part::Endpoints || config.part == Part::All {
        "?include_eds"
    } else {
        ""
    };
    let path = format!(
        "/api/v1/namespaces/{}/pods/{}:{}/proxy/config_dump{include}",
        global.namespace,
        name(&pod),
        weft_proto::names::ADMIN_PORT
    );
    let dump = mesh
        .get(&path)
        .await
        .map_err(|failure| failure.while_doing(format!("asking the sidecar of {}", name(&pod))))?;
    let parts = parts(&dump, config.part);
    match (global.output, config.part) {
        (Output::Table | Output::Wide | Output::Name, part) if part != Part::All => {
            print(global.output, part, &parts);
        }
        (Output::Yaml, _) => output::line(output::yaml(&parts)?.trim_end()),
        _ => output::line(&serde_json::to_string_pretty(&parts)?),
    }
    Ok(ExitCode::SUCCESS)
}

fn parts(dump: &Value, part: Part) -> Value {
    let configs = dump["configs"].as_array().into_iter().flatten();
    let wanted: Vec<&Value> = configs
        .into_iter()
        .filter(|config| part == Part::All || text(&config["@type"]).ends_with(part.dump()))
        .collect();
    match (part, &wanted[..]) {
        (Part::All, wanted) => json!(wanted),
        (_, [only]) => (*only).clone(),
        (_, _) => json!({}),
    }
}

fn print(format: Output, part: Part, dump: &Value) {
    let (headings, rows): (&[&str], _) = match part {
        Part::Listeners => (&["LISTENER", "ADDRESS", "CHAINS"], listeners(dump)),
        Part::Routes => (&["ROUTE", "MATCH", "TO"], routes(dump)),
        Part::Clusters => (&["CLUSTER", "TYPE", "POLICY"], clusters(dump)),
        Part::Endpoints => (&["CLUSTER", "ENDPOINT", "HEALTH", "POD"], endpoints(dump)),
        Part::Secrets => (&["SECRET", "VERSION", "UPDATED"], secrets(dump)),
        Part::All => return,
    };
    match format {
        Output::Name => {
            let names: BTreeSet<&str> = rows
                .iter()
                .filter_map(|row| row.first().map(String::as_str))
                .collect();
            names.into_iter().for_each(output::line);
        }
        _ => output::table(headings, rows),
    }
}

/// The resources of a dump: static ones and the active state of dynamic ones.
fn resources<'a>(dump: &'a Value, fields: &[&str], path: &str) -> Vec<&'a Value> {
    let lists = fields
        .iter()
        .flat_map(|field| dump[*field].as_array().into_iter().flatten());
    lists.filter_map(|entry| entry.pointer(path)).collect()
}

fn listeners(dump: &Value) -> Vec<Vec<String>> {
    let mut found = resources(dump, &["dynamic_listeners"], "/active_state/listener");
    found.extend(resources(dump, &["static_listeners"], "/listener"));
    found
        .iter()
        .map(|listener| {
            let socket = &listener["address"]["socket_address"];
            let chains = listener["filter_chains"].as_array().map_or(0, Vec::len)
                + usize::from(!listener["default_filter_chain"].is_null());
            vec![
                text(&listener["name"]),
                format!("{}:{}", text(&socket["address"]), socket["port_value"]),
                chains.to_string(),
            ]
        })
        .collect()
}

fn routes(dump: &Value) -> Vec<Vec<String>> {
    let mut found = resources(dump, &["dynamic_route_configs"], "/route_config");
    found.extend(resources(dump, &["static_route_configs"], "/route_config"));
    let mut rows = Vec::new();
    for config in found {
        for host in config["virtual_hosts"].as_array().into_iter().flatten() {
            for route in host["routes"].as_array().into_iter().flatten() {
                rows.push(vec![
                    text(&config["name"]),
                    matcher(&route["match"]),
                    action(route),
                ]);
            }
        }
    }
    rows
}

/// `/books* x-user: exact` in a few words.
fn matcher(matcher: &Value) -> String {
    let path = [
        ("prefix", "*"),
        ("path_separated_prefix", "/*"),
        ("path", ""),
    ]
    .iter()
    .find_map(|(field, suffix)| Some(format!("{}{suffix}", matcher[*field].as_str()?)))
    .or_else(|| Some(format!("~{}", matcher["safe_regex"]["regex"].as_str()?)))
    .unwrap_or_else(|| "*".to_owned());
    let headers = matcher["headers"].as_array().into_iter().flatten();
    headers.into_iter().fold(path, |words, header| {
        format!("{words} {}", text(&header["name"]))
    })
}

fn action(route: &Value) -> String {
    if let Some(cluster) = route["route"]["cluster"].as_str() {
        return cluster.to_owned();
    }
    let weighted = route["route"]["weighted_clusters"]["clusters"]
        .as_array()
        .into_iter()
        .flatten();
    let shares: Vec<String> = weighted
        .into_iter()
        .map(|share| format!("{} {}", share["weight"], text(&share["name"])))
        .collect();
    match (&shares[..], &route["redirect"], &route["direct_response"]) {
        ([_, ..], ..) => shares.join(", "),
        (_, Value::Object(_), _) => "redirect".to_owned(),
        (_, _, Value::Object(response)) => format!("status {}", response["status"]),
        _ => "-".to_owned(),
    }
}

fn clusters(dump: &Value) -> Vec<Vec<String>> {
    let mut found = resources(dump, &["dynamic_active_clusters"], "/cluster");
    found.extend(resources(dump, &["static_clusters"], "/cluster"));
    let or = |value: &Value, default: &str| value.as_str().unwrap_or(default).to_owned();
    found
        .iter()
        .map(|cluster| {
            vec![
                text(&cluster["name"]),
                or(&cluster["type"], "STATIC"),
                or(&cluster["lb_policy"], "ROUND_ROBIN"),
            ]
        })
        .collect()
}

fn endpoints(dump: &Value) -> Vec<Vec<String>> {
    let mut found = resources(dump, &["dynamic_endpoint_configs"], "/endpoint_config");
    found.extend(resources(
        dump,
        &["static_endpoint_configs"],
        "/endpoint_config",
    ));
    let mut rows = Vec::new();
    for assignment in found {
        for locality in assignment["endpoints"].as_array().into_iter().flatten() {
            for entry in locality["lb_endpoints"].as_array().into_iter().flatten() {
                let socket = &entry["endpoint"]["address"]["socket_address"];
                rows.push(vec![
                    text(&assignment["cluster_name"]),
                    format!("{}:{}", text(&socket["address"]), socket["port_value"]),
                    entry["health_status"]
                        .as_str()
                        .unwrap_or("UNKNOWN")
                        .to_owned(),
                    text(&entry["metadata"]["filter_metadata"]["weft.dev"]["pod"]),
                ]);
            }
        }
    }
    rows
}

fn secrets(dump: &Value) -> Vec<Vec<String>> {
    let fields = [
        "static_secrets",
        "dynamic_active_secrets",
        "dynamic_warming_secrets",
    ];
    let lists = fields
        .iter()
        .flat_map(|field| dump[*field].as_array().into_iter().flatten());
    lists
        .map(|secret| {
            vec![
                text(&secret["name"]),
                text(&secret["version_info"]),
                text(&secret["last_updated"]),
            ]
        })
        .collect()
}
