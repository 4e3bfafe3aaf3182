//! Envoy and weft with the same configuration, each with an upstream of its own, and an exchange through both.
//!
//! Both use the same ports on different loopback addresses, so nothing that they show differs by port.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::case::{Exchange, Settings};
use crate::client::{self, Client};
use crate::compare::{Difference, differences};
use crate::configuration::{ACCESS_LOG, LISTENER_PORT, Place, bootstrap};
use crate::outcome::{End, Outcome, Seen};
use crate::process::{Kind, Proxy};
use crate::upstream::Upstream;
use crate::{h2, tcp};

/// How long two proxies may take to come to the same end, log or counters.
const AGREEMENT: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(20);

/// One proxy with its upstream.
struct Side {
    proxy: Proxy,
    upstream: Upstream,
    upstream_ip: IpAddr,
    folder: PathBuf,
}

pub(crate) struct Pair {
    envoy: Side,
    weft: Side,
    _folder: TempDir,
}

impl Pair {
    /// Starts both. `index` tells runs of one process apart; the process id, processes.
    ///
    /// # Errors
    /// What one said that refuses the configuration.
    pub(crate) fn start(index: usize, settings: &Settings) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let start = |kind, name: &str, last: u8| {
            let proxy_ip = ip(index, last);
            let upstream_ip = ip(index, last + 1);
            let folder = folder.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            let place = Place {
                proxy: proxy_ip,
                upstream: upstream_ip,
                folder: &folder,
            };
            Ok::<_, String>(Side {
                upstream: Upstream::start(upstream_ip),
                proxy: Proxy::start(kind, proxy_ip, &folder, &bootstrap(settings, &place))?,
                upstream_ip,
                folder,
            })
        };
        Ok(Self {
            envoy: start(Kind::Envoy, "envoy", 1)?,
            weft: start(Kind::Weft, "weft", 3)?,
            _folder: folder,
        })
    }

    /// The exchange through both at the same time; Envoy's outcome first. Logs and counters are waited for until
    /// the differences are settled.
    pub(crate) fn exchange(
        &mut self,
        exchange: &Exchange,
        named: &[String],
        is_settled: impl Fn(Vec<Difference>) -> bool,
    ) -> (Outcome, Outcome) {
        let (envoy, weft) = (&self.envoy, &self.weft);
        let before = (envoy.counters(), weft.counters());
        let logged = (envoy.log().len(), weft.log().len());
        let (left, right) = std::thread::scope(|scope| {
            let left = scope.spawn(|| envoy.exchange(exchange));
            let right = scope.spawn(|| weft.exchange(exchange));
            (left.join(), right.join())
        });
        let (mut client_left, mut left) =
            left.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (mut client_right, mut right) =
            right.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        agree_on_end(&mut client_left, &mut client_right);
        (left.end, right.end) = (client_left.end, client_right.end);
        drop((client_left, client_right));
        let fewest = left
            .responses
            .iter()
            .filter(|each| each.status >= 200 || each.status == 101)
            .count();
        settle(&mut left, &mut right, |left, right| {
            left.upstream = envoy.seen();
            right.upstream = weft.seen();
            left.log = envoy.log().split_off(logged.0);
            right.log = weft.log().split_off(logged.1);
            left.counters = rises(&before.0, &envoy.counters());
            right.counters = rises(&before.1, &weft.counters());
            left.log.len() >= fewest && is_settled(differences(left, right, named))
        });
        (left, right)
    }

    /// Whether weft still runs: nothing that is sent may end it.
    pub(crate) fn weft_is_running(&mut self) -> bool {
        self.weft.proxy.is_running()
    }

    pub(crate) fn weft_output(&self) -> String {
        self.weft.proxy.output()
    }
}

fn ip(index: usize, last: u8) -> IpAddr {
    let process = u8::try_from(std::process::id() % 200).unwrap() + 16;
    let index = u8::try_from(index % 250).unwrap();
    IpAddr::V4(Ipv4Addr::new(127, process, index, last))
}

/// Where one has closed the connection, the other may be about to.
fn agree_on_end(left: &mut Client, right: &mut Client) {
    match (left.end, right.end) {
        (End::Closed, End::Open) => drop(right.closes_within(AGREEMENT)),
        (End::Open, End::Closed) => drop(left.closes_within(AGREEMENT)),
        _ => {}
    }
}

fn settle(
    left: &mut Outcome,
    right: &mut Outcome,
    mut agrees: impl FnMut(&mut Outcome, &mut Outcome) -> bool,
) {
    let deadline = Instant::now() + AGREEMENT;
    while !agrees(left, right) && Instant::now() < deadline {
        std::thread::sleep(TICK);
    }
}

fn rises(before: &BTreeMap<String, i64>, after: &BTreeMap<String, i64>) -> BTreeMap<String, i64> {
    after
        .iter()
        .map(|(name, value)| {
            let old = before.get(name).copied().unwrap_or_default();
            (name.clone(), value - old)
        })
        .collect()
}

impl Side {
    fn exchange(&self, exchange: &Exchange) -> (Client, Outcome) {
        self.upstream.script(exchange);
        let port = exchange.port.unwrap_or(LISTENER_PORT);
        let address = SocketAddr::new(self.proxy.ip, port);
        let (client, mut outcome) = if exchange.h2.is_some() {
            h2::http2(address, exchange)
        } else if exchange.tcp.is_some() {
            tcp::client(address, exchange)
        } else {
            client::http1(address, exchange)
        };
        for response in &mut outcome.responses {
            self.normalize_all(&mut response.headers);
            self.normalize_all(&mut response.trailers);
            response.body = self.anonymous(&response.body);
        }
        outcome.received = self.anonymous(&outcome.received);
        (client, outcome)
    }

    fn seen(&self) -> Vec<Seen> {
        let mut seen = self.upstream.seen();
        for request in &mut seen {
            self.normalize_all(&mut request.headers);
            self.normalize_all(&mut request.trailers);
            request.line = self.anonymous_text(&request.line);
        }
        seen
    }

    fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join(ACCESS_LOG)).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    fn counters(&self) -> BTreeMap<String, i64> {
        let (_, text) = self.proxy.admin("GET", "/stats").unwrap_or_default();
        String::from_utf8_lossy(&text)
            .lines()
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(": ")?;
                let name = self.anonymous_text(name);
                Some((name.clone(), value.parse().ok()?)).filter(|_| is_counter(&name))
            })
            .collect()
    }

    fn normalize_all(&self, headers: &mut [(String, String)]) {
        for (name, value) in headers.iter_mut() {
            let is_by_chance = ["date", "x-request-id", "x-envoy-upstream-service-time"]
                .iter()
                .any(|each| name.eq_ignore_ascii_case(each));
            *value = match is_by_chance {
                true => "(some)".into(),
                false => self.anonymous_text(value),
            };
        }
    }

    fn anonymous_text(&self, text: &str) -> String {
        text.replace(&self.proxy.ip.to_string(), "PROXY")
            .replace(&self.upstream_ip.to_string(), "UPSTREAM")
    }

    fn anonymous(&self, bytes: &[u8]) -> Vec<u8> {
        let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        let text = self.anonymous_text(&text);
        text.chars().map(|character| character as u8).collect()
    }
}

/// Gauges, and what depends on time or memory, are not compared.
fn is_counter(name: &str) -> bool {
    const NOT: [&str; 5] = [
        "server.",
        "cluster_manager.",
        "listener_manager.",
        "runtime.",
        "main_thread.",
    ];
    const GAUGES: [&str; 6] = [
        "_active",
        "_open",
        "_healthy",
        "_total_buffered",
        "_degraded",
        "membership_total",
    ];
    !NOT.iter().any(|prefix| name.starts_with(prefix))
        && !GAUGES.iter().any(|suffix| name.ends_with(suffix))
        && !name.contains("bytes")
        && !name.contains(".admin.")
        && !name.contains("membership")
}
