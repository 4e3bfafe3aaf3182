//! Envoy and weft with the same configuration, each with an upstream of its own, and an exchange through both.
//!
//! Both use the same ports on different loopback addresses, so nothing that they show differs by port.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::case::{Case, Exchange, Settings};
use crate::client::{self, Client};
use crate::compare::{Difference, differences};
use crate::configuration::{ACCESS_LOG, LISTENER_PORT, Place, bootstrap};
use crate::outcome::{End, Outcome, Seen};
use crate::process::{Kind, Proxy};
use crate::upstream::Upstream;
use crate::{h2, tcp, tls};

/// How long two proxies may take to come to the same end, log or counters: on a busy machine it takes a while.
const AGREEMENT: Duration = Duration::from_secs(10);
/// How long is waited for what need not come: an end that is expected to differ, lines of a log that may not be kept.
const COURTESY: Duration = Duration::from_secs(2);
/// How long a proxy may take to notice what an exchange waits for.
const EVENTUALLY: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(20);

/// One proxy with its upstream.
struct Side {
    kind: Kind,
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
            tls::write_certificates(&folder);
            let place = Place {
                proxy: proxy_ip,
                upstream: upstream_ip,
                folder: &folder,
            };
            Ok::<_, String>(Side {
                kind,
                upstream: Upstream::start(upstream_ip, settings.upstream_settings.as_ref()),
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
        case: &Case,
        is_settled: impl Fn(Vec<Difference>) -> bool,
    ) -> (Outcome, Outcome) {
        let (envoy, weft) = (&self.envoy, &self.weft);
        envoy.prepare(exchange);
        weft.prepare(exchange);
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
        let may_end_alike = match case.expects("end") {
            true => COURTESY,
            false => AGREEMENT,
        };
        agree_on_end(&mut client_left, &mut client_right, may_end_alike);
        (left.end, right.end) = (client_left.end, client_right.end);
        if case.any_order {
            for outcome in [&mut left, &mut right] {
                outcome.responses.sort_by_key(|response| response.status);
            }
        }
        drop((client_left, client_right));
        let fewest = left
            .responses
            .iter()
            .filter(|each| each.status >= 200 || each.status == 101)
            .count();
        // A TCP connection has a line, whatever becomes of it.
        let fewest = fewest.max(usize::from(exchange.tcp.is_some()));
        settle(&mut left, &mut right, |left, right| {
            left.upstream = envoy.seen(case.any_order);
            right.upstream = weft.seen(case.any_order);
            left.log = envoy.log().split_off(logged.0);
            right.log = weft.log().split_off(logged.1);
            left.counters = rises(&before.0, &envoy.counters());
            right.counters = rises(&before.1, &weft.counters());
            Settled {
                agrees: is_settled(differences(left, right, case)),
                is_logged: left.log.len() >= fewest,
            }
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
fn agree_on_end(left: &mut Client, right: &mut Client, limit: Duration) {
    match (left.end, right.end) {
        (End::Closed, End::Open) => drop(right.closes_within(limit)),
        (End::Open, End::Closed) => drop(left.closes_within(limit)),
        _ => {}
    }
}

/// What is known of two outcomes so far.
struct Settled {
    /// They differ as expected, and in nothing else.
    agrees: bool,
    /// Envoy has written a line for each response, or for the connection.
    is_logged: bool,
}

fn settle(
    left: &mut Outcome,
    right: &mut Outcome,
    mut look: impl FnMut(&mut Outcome, &mut Outcome) -> Settled,
) {
    let start = Instant::now();
    loop {
        let settled = look(left, right);
        let is_over = match settled.agrees {
            true => settled.is_logged || start.elapsed() >= COURTESY,
            false => start.elapsed() >= AGREEMENT,
        };
        if is_over {
            return;
        }
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
    /// Brings proxy and upstream to where an exchange begins.
    fn prepare(&self, exchange: &Exchange) {
        self.upstream.script(exchange);
        if let Some(request) = &exchange.admin {
            let (method, path) = request.split_once(' ').expect("a method and a path");
            let status = self.proxy.admin(method, path).map(|(status, _)| status);
            assert_eq!(
                status,
                Some(200),
                "{request} of the admin interface of {:?}",
                self.kind
            );
        }
        let deadline = Instant::now() + EVENTUALLY;
        let mut clusters = self.clusters();
        while !exchange.until.iter().all(|line| clusters.contains(line)) {
            assert!(
                Instant::now() < deadline,
                "{:?} still says\n{}",
                self.kind,
                health_flags(&clusters)
            );
            std::thread::sleep(TICK);
            clusters = self.clusters();
        }
        self.upstream.forget();
    }

    /// What the admin interface says of clusters.
    fn clusters(&self) -> String {
        let (_, text) = self.proxy.admin("GET", "/clusters").unwrap_or_default();
        self.anonymous_text(&String::from_utf8_lossy(&text))
    }

    fn exchange(&self, exchange: &Exchange) -> (Client, Outcome) {
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
        outcome.tls = client.failure.clone().or_else(|| client.stream.agreed());
        (client, outcome)
    }

    fn seen(&self, any_order: bool) -> Vec<Seen> {
        let mut seen = self.upstream.seen();
        if any_order {
            seen.sort_by(|one, other| (&one.line, one.port).cmp(&(&other.line, other.port)));
        }
        for request in &mut seen {
            self.normalize_all(&mut request.headers);
            self.normalize_all(&mut request.trailers);
            request.line = self.anonymous_text(&request.line);
        }
        seen
    }

    fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join(ACCESS_LOG)).unwrap_or_default();
        text.lines().map(|line| self.anonymous_text(line)).collect()
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
                false => without_digest(name, &self.anonymous_text(value)),
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

/// A cookie that is made of the addresses of a connection (`name="0123456789abcdef"; …`) is another in each proxy.
fn without_digest(name: &str, value: &str) -> String {
    let parts: Vec<&str> = value.splitn(3, '"').collect();
    match parts.as_slice() {
        [cookie, digest, rest]
            if name.eq_ignore_ascii_case("set-cookie")
                && digest.len() <= 16
                && digest.chars().all(|digit| digit.is_ascii_hexdigit()) =>
        {
            format!("{cookie}\"(some)\"{rest}")
        }
        _ => value.to_owned(),
    }
}

fn health_flags(clusters: &str) -> String {
    let lines = clusters
        .lines()
        .filter(|line| line.contains("::health_flags::"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Heads are other bytes in each proxy; what is passed on as it came is the same.
fn is_of_opaque_bytes(name: &str) -> bool {
    name.starts_with("tcp.") && name.ends_with("_bytes_total")
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
    const GAUGES: [&str; 8] = [
        "_active",
        "_open",
        "_healthy",
        "_total_buffered",
        "_degraded",
        "membership_total",
        "health_check.healthy",
        "health_check.degraded",
    ];
    !NOT.iter().any(|prefix| name.starts_with(prefix))
        && (!GAUGES.iter().any(|suffix| name.ends_with(suffix)) || name.ends_with("_none_healthy"))
        && (!name.contains("bytes") || is_of_opaque_bytes(name))
        && !name.contains(".admin.")
        && !name.contains("membership")
}
