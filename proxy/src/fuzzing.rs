//! What is fuzzed: the decoders of bytes from outside, and what must hold of them for all bytes.
//!
//! `fuzz/` feeds each target from libFuzzer; the test below replays what is kept in `fuzz/corpus`, so that what was
//! found once is tried again wherever tests run. A target panics where a property does not hold. Those of private
//! decoders are beside them, in a module of the same name as this one. See docs/contributing/fuzzing.md.

mod choices;
mod configuration;
mod framing;
mod proxy_protocol;
mod route_match;
mod telemetry;

pub(crate) use choices::Choices;

use crate::upstream::{health, http1};

/// Something that is fed bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Feeds it; panics where a property does not hold.
    pub run: fn(&[u8]),
}

impl Target {
    pub(crate) const fn new(name: &'static str, run: fn(&[u8])) -> Self {
        Target { name, run }
    }
}

const OWN: [Target; 15] = [
    Target::new("bootstrap", configuration::bootstrap),
    Target::new("xds_cluster", configuration::cluster),
    Target::new("xds_endpoints", configuration::endpoints),
    Target::new("xds_listener", configuration::listener),
    Target::new("xds_routes", configuration::routes),
    Target::new("xds_secret", configuration::secret),
    Target::new("unknown_fields", configuration::unknown_fields),
    Target::new("grpc_health", health::grpc::fuzzing::run),
    Target::new("http1_framing", framing::run),
    Target::new("http1_response", http1::fuzzing::run),
    Target::new("proxy_protocol", proxy_protocol::run),
    Target::new("route_match", route_match::run),
    Target::new("format", telemetry::format),
    Target::new("format_json", telemetry::format_json),
    Target::new("trace_context", telemetry::trace_context),
];

/// All of them.
pub fn targets() -> impl Iterator<Item = &'static Target> {
    OWN.iter()
        .chain(&crate::connection::fuzzing::TARGETS)
        .chain(&crate::http::fuzzing::TARGETS)
        .chain(&crate::http::fuzzing::OF_FILTERS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    fn corpus() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
    }

    fn files(of: &Target) -> Vec<PathBuf> {
        let folder = corpus().join(of.name);
        let entries = std::fs::read_dir(&folder);
        let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn what_was_found_before_is_not_found_again() {
        for target in targets() {
            let files = files(target);
            assert!(!files.is_empty(), "{} has no corpus", target.name);
            for file in files {
                let bytes = std::fs::read(&file).unwrap();
                let run = std::panic::catch_unwind(|| (target.run)(&bytes));
                assert!(run.is_ok(), "{}", file.display());
            }
        }
    }

    #[test]
    fn every_corpus_is_of_a_target() {
        let names: BTreeSet<_> = targets().map(|target| target.name.to_owned()).collect();
        let folders = std::fs::read_dir(corpus()).unwrap();
        let folders: BTreeSet<_> = folders
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();

        assert_eq!(folders, names);
    }
}
