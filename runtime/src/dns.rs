//! The mesh DNS: names of the mesh from a table, all other names from the host through the socket broker.
//!
//! Listens on the gateway, so every sandbox reaches it and nobody else does.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Metadata, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

mod forward;
mod sockets;
mod table;

use forward::{Forwarder, Resolved};
use table::Found;

use crate::files;
pub(crate) use sockets::DnsSockets;
pub(crate) use table::{Entry, NameTable};

/// Addresses of the mesh hardly ever change, but names come and go.
const TTL_SECONDS: u32 = 5;
/// A connection over TCP that asks nothing is closed.
const TCP_IDLE: Duration = Duration::from_secs(10);
const TCP_RESPONSES: usize = 32;

/// Why nobody answers on the gateway.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DnsError {
    #[error("taking the DNS sockets, which `weft node` passes")]
    Sockets(#[source] io::Error),
    #[error("reading {}", path.display())]
    Names { path: PathBuf, source: io::Error },
}

/// The names, and where all others come from.
#[derive(Debug)]
pub(crate) struct Dns {
    pub(crate) names: NameTable,
    forwarder: Forwarder,
    /// The names as they were last set: a restarted server has them from its first answer on.
    file: PathBuf,
}

impl Dns {
    /// The file of names in the runtime directory.
    pub(crate) const FILE: &str = "names.json";

    pub(crate) fn open(broker: &Path, runtime_dir: &Path) -> Result<Arc<Dns>, DnsError> {
        let dns = Dns {
            names: NameTable::default(),
            forwarder: Forwarder::new(broker),
            file: runtime_dir.join(Self::FILE),
        };
        let entries = files::read_json(&dns.file).map_err(|source| DnsError::Names {
            path: dns.file.clone(),
            source,
        })?;
        dns.names.replace(entries.unwrap_or_default());
        Ok(Arc::new(dns))
    }

    /// Replaces all names at once, here and for the next server.
    pub(crate) fn set_names(&self, entries: Vec<Entry>) -> io::Result<()> {
        files::replace_json(&self.file, &entries)?;
        self.names.replace(entries);
        Ok(())
    }

    /// Answers on the holder's sockets. The server's tasks end when it is dropped.
    pub(crate) fn serve(
        self: &Arc<Self>,
        sockets: DnsSockets,
    ) -> Result<Server<Handler>, DnsError> {
        let mut server = Server::new(Handler(Arc::clone(self)));
        let (udp, tcp) = sockets.into_tokio().map_err(DnsError::Sockets)?;
        for socket in udp {
            server.register_socket(socket);
        }
        for listener in tcp {
            server.register_listener(listener, TCP_IDLE, TCP_RESPONSES);
        }
        Ok(server)
    }

    /// The answer to one question of one client.
    async fn answer(&self, client: IpAddr, name: &Name, kind: RecordType) -> Answer {
        let text = name.to_ascii().to_ascii_lowercase();
        let found = match kind {
            RecordType::PTR => self.names.find_reverse(&text),
            _ => self.names.find(&text, client),
        };
        match found {
            Found::Addresses(addresses) => Answer::mesh(
                ResponseCode::NoError,
                records(name, kind, &addresses, TTL_SECONDS),
            ),
            Found::Name(target) => Answer::mesh(ResponseCode::NoError, pointer(name, &target)),
            Found::NoSuchName => Answer::mesh(ResponseCode::NXDomain, Vec::new()),
            Found::NotOurs if matches!(kind, RecordType::A | RecordType::AAAA) => {
                self.forward(name, kind, &text).await
            }
            // HTTPS records are optional; a browser goes on without one.
            Found::NotOurs if kind == RecordType::HTTPS => {
                Answer::host(ResponseCode::NoError, Vec::new())
            }
            Found::NotOurs => Answer::host(ResponseCode::NotImp, Vec::new()),
        }
    }

    async fn forward(&self, name: &Name, kind: RecordType, text: &str) -> Answer {
        match self.forwarder.resolve(text).await {
            Resolved::Addresses {
                addresses,
                ttl_seconds,
            } => Answer::host(
                ResponseCode::NoError,
                records(name, kind, &addresses, ttl_seconds),
            ),
            Resolved::NoSuchName => Answer::host(ResponseCode::NXDomain, Vec::new()),
            Resolved::Unknown => Answer::host(ResponseCode::ServFail, Vec::new()),
        }
    }
}

struct Answer {
    code: ResponseCode,
    is_authoritative: bool,
    records: Vec<Record>,
}

impl Answer {
    fn mesh(code: ResponseCode, records: Vec<Record>) -> Answer {
        Answer {
            code,
            is_authoritative: true,
            records,
        }
    }

    fn host(code: ResponseCode, records: Vec<Record>) -> Answer {
        Answer {
            is_authoritative: false,
            ..Answer::mesh(code, records)
        }
    }
}

/// The addresses of the family that was asked for.
fn records(name: &Name, kind: RecordType, addresses: &[IpAddr], ttl: u32) -> Vec<Record> {
    let data = |address: &IpAddr| match (address, kind) {
        (IpAddr::V4(address), RecordType::A) => Some(RData::A(A(*address))),
        (IpAddr::V6(address), RecordType::AAAA) => Some(RData::AAAA(AAAA(*address))),
        _ => None,
    };
    let data = addresses.iter().filter_map(data);
    data.map(|data| Record::from_rdata(name.clone(), ttl, data))
        .collect()
}

fn pointer(name: &Name, target: &str) -> Vec<Record> {
    let target = Name::from_ascii(target).ok();
    let record =
        target.map(|target| Record::from_rdata(name.clone(), TTL_SECONDS, RData::PTR(PTR(target))));
    record.into_iter().collect()
}

/// Takes questions from the sockets.
#[derive(Debug)]
pub(crate) struct Handler(Arc<Dns>);

#[tonic::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let answer = match request.request_info() {
            Ok(info) if info.query.query_class() == DNSClass::IN => {
                let question = info.query.original();
                self.0
                    .answer(info.src.ip(), question.name(), question.query_type())
                    .await
            }
            Ok(_) => Answer::host(ResponseCode::NotImp, Vec::new()),
            Err(_) => Answer::host(ResponseCode::FormErr, Vec::new()),
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = answer.code;
        metadata.authoritative = answer.is_authoritative;
        metadata.recursion_available = true;
        let message = MessageResponseBuilder::from_message_request(request).build(
            metadata,
            answer.records.iter(),
            [],
            [],
            [],
        );
        let sent = response.send_response(message).await;
        sent.unwrap_or_else(|error| {
            tracing::debug!(client = %request.src(), %error, "DNS answer not sent");
            let header = hickory_proto::op::Header {
                metadata,
                counts: hickory_proto::op::HeaderCounts::default(),
            };
            ResponseInfo::from(header)
        })
    }
}
