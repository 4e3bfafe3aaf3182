//! A proxy that is running: Envoy, or weft.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::configuration::ADMIN_PORT;
use crate::message::{Body, Head};

/// How long a proxy may take until it is ready.
const START_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Envoy,
    Weft,
}

/// A running proxy; ends when dropped.
pub(crate) struct Proxy {
    pub(crate) ip: IpAddr,
    log: PathBuf,
    child: Child,
}

impl Proxy {
    /// Starts one with this bootstrap, and waits until it is ready.
    ///
    /// # Errors
    /// What it said, where it refuses the configuration.
    pub(crate) fn start(
        kind: Kind,
        ip: IpAddr,
        folder: &Path,
        bootstrap: &str,
    ) -> Result<Self, String> {
        let config = folder.join("bootstrap.json");
        std::fs::write(&config, bootstrap).unwrap();
        let log = folder.join("output.log");
        let output = File::create(&log).unwrap();
        let child = command(kind, &config)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("starting {kind:?}: {error}"));
        let mut proxy = Self { ip, log, child };
        proxy
            .wait_until_ready()
            .map_err(|said| format!("{kind:?} does not start: {said}"))?;
        Ok(proxy)
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if self
                .admin("GET", "/ready")
                .is_some_and(|(status, _)| status == 200)
            {
                return Ok(());
            }
            let has_ended = self.child.try_wait().unwrap().is_some();
            if has_ended || Instant::now() >= deadline {
                return Err(self.output());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What it wrote.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks the admin interface; nothing where it doesn't answer.
    pub(crate) fn admin(&self, method: &str, path: &str) -> Option<(u16, Vec<u8>)> {
        let address = SocketAddr::new(self.ip, ADMIN_PORT);
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .ok()?;
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: admin\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        let head = Head::parse(&bytes)?;
        let body = Body::parse(&bytes[head.length..], head.response_framing("GET"), true);
        Some((head.status(), body.bytes))
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(kind: Kind, config: &Path) -> Command {
    let mut command = match kind {
        Kind::Envoy => Command::new(envoy()),
        Kind::Weft => Command::new(weft()),
    };
    match kind {
        Kind::Envoy => command.args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "warning",
            "--file-flush-interval-msec",
            "20",
        ]),
        Kind::Weft => command.args(["proxy", "--concurrency", "1"]),
    };
    command.arg("-c").arg(config);
    command
}

/// The one just built, or another that is to be tested.
fn weft() -> PathBuf {
    std::env::var_os("WEFT_TEST_BINARY")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_weft")), PathBuf::from)
}

/// The binary that `scripts/setup.sh --test` installs.
pub(crate) fn envoy() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target"),
        PathBuf::from,
    );
    let libraries = target.join("peers/envoy/lib");
    std::fs::read_dir(&libraries)
        .into_iter()
        .flatten()
        .flatten()
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .find(|binary| binary.exists())
        .unwrap_or_else(|| {
            panic!(
                "no Envoy in {}; install it with scripts/setup.sh --test",
                libraries.display()
            )
        })
}
