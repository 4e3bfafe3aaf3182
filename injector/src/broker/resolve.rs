//! Names outside the mesh, asked of the host's own resolvers.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io};

use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Resolver, TokioResolver, system_conf};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use weft_proto::handoff::BrokerReply;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Questions under way at once; more wait within their own deadline.
const MAX_QUESTIONS: usize = 64;
/// RFC 1035 §2.3.4, as text.
const MAX_NAME_BYTES: usize = 254;

/// The host's resolver, made again when its configuration changes.
pub(super) struct Names {
    resolv_conf: PathBuf,
    resolver: Mutex<Option<(SystemTime, TokioResolver)>>,
    questions: Semaphore,
}

impl Names {
    pub(super) fn new(resolv_conf: PathBuf) -> Self {
        Self {
            resolv_conf,
            resolver: Mutex::new(None),
            questions: Semaphore::new(MAX_QUESTIONS),
        }
    }

    pub(super) async fn resolve(&self, name: &str) -> BrokerReply {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return BrokerReply::NoSuchName;
        }
        if let Ok(address) = name.parse() {
            return BrokerReply::Addresses {
                addresses: vec![address],
                ttl_seconds: 86_400,
            };
        }
        let resolver = match self.resolver() {
            Ok(resolver) => resolver,
            Err(error) => {
                let path = self.resolv_conf.display();
                return failed(format!("the host has no usable {path}: {error}"));
            }
        };
        match tokio::time::timeout(TIMEOUT, self.ask(&resolver, name)).await {
            Ok(reply) => reply,
            Err(_) => failed(format!(
                "the host's resolvers did not answer for {name} in time"
            )),
        }
    }

    async fn ask(&self, resolver: &TokioResolver, name: &str) -> BrokerReply {
        let Ok(_permit) = self.questions.acquire().await else {
            return failed("the broker is stopping".to_owned());
        };
        // Fully qualified: the host's search list is not the mesh's.
        let name = format!("{}.", name.trim_end_matches('.'));
        match resolver.lookup_ip(name.as_str()).await {
            Ok(found) => {
                let left = found
                    .valid_until()
                    .saturating_duration_since(Instant::now());
                BrokerReply::Addresses {
                    addresses: found.iter().collect(),
                    ttl_seconds: u32::try_from(left.as_secs()).unwrap_or(u32::MAX),
                }
            }
            Err(error) if error.is_nx_domain() => BrokerReply::NoSuchName,
            Err(error) if error.is_no_records_found() => BrokerReply::Addresses {
                addresses: Vec::new(),
                ttl_seconds: 5,
            },
            Err(error) => failed(format!("resolving {name}: {error}")),
        }
    }

    fn resolver(&self) -> io::Result<TokioResolver> {
        let changed = fs::metadata(&self.resolv_conf)?.modified()?;
        let mut resolver = self.resolver.lock();
        if let Some((made, resolver)) = &*resolver
            && *made == changed
        {
            return Ok(resolver.clone());
        }
        let made = make(&fs::read(&self.resolv_conf)?)?;
        *resolver = Some((changed, made.clone()));
        Ok(made)
    }
}

fn make(resolv_conf: &[u8]) -> io::Result<TokioResolver> {
    let (config, mut options) =
        system_conf::parse_resolv_conf(resolv_conf).map_err(io::Error::other)?;
    if config.name_servers().is_empty() {
        return Err(io::Error::other("it names no server"));
    }
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    Resolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()
        .map_err(io::Error::other)
}

fn failed(reason: String) -> BrokerReply {
    BrokerReply::Failed { errno: 0, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_without_a_resolver_says_so() {
        let names = Names::new("/nonexistent/resolv.conf".into());

        let BrokerReply::Failed { reason, .. } = names.resolve("example.org").await else {
            panic!("resolved without a resolver");
        };

        assert!(reason.contains("/nonexistent/resolv.conf"), "{reason}");
    }

    #[tokio::test]
    async fn what_is_no_name_has_no_address() {
        let names = Names::new("/nonexistent".into());

        assert_eq!(names.resolve("").await, BrokerReply::NoSuchName);
        assert_eq!(
            names.resolve(&"a".repeat(300)).await,
            BrokerReply::NoSuchName
        );
    }

    #[tokio::test]
    async fn an_address_is_its_own_answer() {
        let names = Names::new("/nonexistent".into());

        let reply = names.resolve("192.0.2.7").await;

        let BrokerReply::Addresses { addresses, .. } = reply else {
            panic!("{reply:?}");
        };
        assert_eq!(
            addresses,
            ["192.0.2.7".parse::<std::net::IpAddr>().unwrap()]
        );
    }
}
