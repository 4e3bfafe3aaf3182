//! One proxy: the real program, with a configuration file.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::config::{ADMIN_PORT, Door, bootstrap, clusters};
use super::place::own_address;
use super::process::{Server, until};

/// A running `weft proxy -c FILE`, all of whose doors lead to one server.
pub(crate) struct Proxy {
    ip: Ipv4Addr,
    process: Server,
}

impl Proxy {
    pub(crate) fn to(server: SocketAddr) -> Self {
        let ip = own_address();
        let listeners = Door::ALL.map(|door| door.listener(ip));
        Self::with(ip, &bootstrap(ip, &listeners, &clusters(server)))
    }

    /// One with a bootstrap of the test's own, whose admin interface is at [`ADMIN_PORT`] of `ip`.
    pub(crate) fn with(ip: Ipv4Addr, bootstrap: &Value) -> Self {
        let admin = SocketAddr::from((ip, ADMIN_PORT));
        let process = Server::start(admin, |folder| {
            let file = folder.join("proxy.json");
            std::fs::write(&file, bootstrap.to_string()).unwrap();
            let mut command = Command::new(weft());
            command
                .args(["proxy", "--concurrency", "2", "-c"])
                .arg(file);
            command
        });
        let proxy = Self { ip, process };
        until("the proxy to be ready", || {
            ask(admin, "/ready").starts_with("HTTP/1.0 200")
        });
        proxy
    }

    /// Where one of its doors is.
    pub(crate) fn at(&self, door: Door) -> SocketAddr {
        SocketAddr::from((self.ip, door.port()))
    }

    /// The body of an answer of the admin interface.
    pub(crate) fn admin(&self, path: &str) -> String {
        let answer = ask(self.process.address, path);
        let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
        body.to_owned()
    }

    /// How many connections of the door that detects have turned out to be this.
    pub(crate) fn detected(&self, verdict: &str) -> u64 {
        self.verdicts()[verdict]
            .as_u64()
            .unwrap_or_else(|| panic!("no verdict {verdict}"))
    }

    /// How many have turned out to be anything.
    pub(crate) fn detections(&self) -> u64 {
        let verdicts = self.verdicts();
        let counts: Vec<u64> = verdicts
            .as_object()
            .expect("verdicts")
            .values()
            .filter_map(Value::as_u64)
            .collect();
        assert!(
            counts.iter().any(|count| *count > 0),
            "nothing was detected"
        );
        counts.iter().sum()
    }

    fn verdicts(&self) -> Value {
        let listeners: Value = serde_json::from_str(&self.admin("/listeners?format=json")).unwrap();
        let statuses = listeners["listener_statuses"]
            .as_array()
            .expect("listeners");
        let detecting = statuses
            .iter()
            .find(|status| status["name"] == "detecting")
            .expect("the door that detects");
        detecting["detection"]["connections"].clone()
    }
}

/// What the admin interface answers, head and all; nothing where it does not.
pub(crate) fn ask(admin: SocketAddr, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(admin) else {
        return String::new();
    };
    let mut answer = String::new();
    let request = format!("GET {path} HTTP/1.0\r\nhost: admin\r\nconnection: close\r\n\r\n");
    let asked = stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .and_then(|()| stream.write_all(request.as_bytes()))
        .and_then(|()| stream.read_to_string(&mut answer));
    asked.map_or_else(|_| String::new(), |_| answer)
}

/// The one just built, or another that is to be tested.
fn weft() -> PathBuf {
    std::env::var_os("WEFT_TEST_BINARY")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_weft")), PathBuf::from)
}
