//! Some services of an application, and what they need: `weft up web` starts `web` and all that it depends on.
//!
//! `compose::load` asks twice: first which profiles the named services belong to, for naming a service enables its
//! profiles, then what else has to run.

use std::collections::BTreeSet;

use super::error::ComposeError;
use super::schema;
use super::service::Service;

/// The profiles of the named services.
///
/// # Errors
/// Where there is no service of a name; the nearest is named.
pub(super) fn profiles(
    services: &[Service],
    named: &[String],
) -> Result<BTreeSet<String>, ComposeError> {
    let mut profiles = BTreeSet::new();
    for name in named {
        let service = find(services, name).ok_or_else(|| unknown(services, name))?;
        profiles.extend(service.profiles.iter().cloned());
    }
    Ok(profiles)
}

/// The named services and everything that they depend on; all of them where none is named.
pub(super) fn closure(services: &[Service], named: &[String]) -> BTreeSet<String> {
    let mut waiting: Vec<&str> = match named {
        [] => services
            .iter()
            .map(|service| service.name.as_str())
            .collect(),
        named => named.iter().map(String::as_str).collect(),
    };
    let mut chosen = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        if let Some(service) = find(services, name)
            && chosen.insert(name.to_owned())
        {
            let dependencies = service.depends_on.iter();
            waiting.extend(dependencies.map(|dependency| dependency.service.as_str()));
        }
    }
    chosen
}

fn find<'a>(services: &'a [Service], name: &str) -> Option<&'a Service> {
    services.iter().find(|service| service.name == name)
}

fn unknown(services: &[Service], name: &str) -> ComposeError {
    let names = || services.iter().map(|service| service.name.as_str());
    let hint = match schema::nearest(name, names()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("services are: {}", names().collect::<Vec<_>>().join(", ")),
    };
    ComposeError::not_found(format!("the application has no service {name:?}; {hint}"))
}
