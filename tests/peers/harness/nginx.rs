//! nginx as the server behind the proxy.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::peer::program;
use super::place::own_address;
use super::process::Server;

/// A running nginx with a folder of files, in HTTP/1.1 on one port and in HTTP/2 on another.
pub(crate) struct Nginx {
    server: Server,
}

/// Its answer to any request below `/text`.
pub(crate) const TEXT: &str = "a page of some length: 0123456789 0123456789 0123456789";
const HTTP2_PORT: u16 = 8081;

impl Nginx {
    pub(crate) fn start() -> Self {
        let address = SocketAddr::from((own_address(), 8080));
        let server = Server::start(address, |folder| {
            std::fs::create_dir(folder.join("files")).unwrap();
            let file = folder.join("nginx.conf");
            std::fs::write(&file, configuration(folder, address)).unwrap();
            let mut nginx = program("nginx");
            nginx.arg("-p").arg(folder).arg("-c").arg(file);
            nginx
        });
        Self { server }
    }

    /// Where it speaks HTTP/1.1.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Where it speaks HTTP/2.
    pub(crate) fn http2(&self) -> SocketAddr {
        SocketAddr::new(self.server.address.ip(), HTTP2_PORT)
    }

    /// A file that it serves, and may be given.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.server.folder().join("files").join(name)
    }

    /// Its access log: number of the connection, number of the request on it, version, status and path.
    pub(crate) fn requests(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.server.folder().join("access.log"));
        log.unwrap_or_default()
            .lines()
            .map(ToOwned::to_owned)
            .collect()
    }
}

fn configuration(folder: &Path, address: SocketAddr) -> String {
    let folder = folder.display();
    let ip = address.ip();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"))
        .concat();
    format!(
        r#"daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    log_format peers '$connection $connection_requests $server_protocol $status $uri';
    access_log {folder}/access.log peers;
    {temporary}
    client_max_body_size 64m;
    gzip on;
    gzip_proxied any;
    gzip_types text/css;
    types {{ text/css css; text/plain txt; }}
    server {{
        listen {address};
        listen {ip}:{HTTP2_PORT} http2;
        root {folder}/files;
        location / {{ dav_methods PUT DELETE; }}
        location /text {{ default_type text/plain; return 200 "{TEXT}"; }}
    }}
}}
"#
    )
}
