//! The mesh DNS: names of the mesh from a table, all other names from the host through the socket broker.
//!
//! Listens on the gateway, so every sandbox reaches it and nobody else does.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Metadata, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};

mod forward;
mod table;

use forward::{Forwarder, Resolved};
use table::Found;

use crate::network::has_ipv6;
pub(crate) use table::{Entry, NameTable};

/// Addresses of the mesh hardly ever change, but names come and go.
const TTL_SECONDS: u32 = 5;
/// A connection over TCP that asks nothing is closed.
const TCP_IDLE: Duration = Duration::from_secs(10);
const TCP_RESPONSES: usize = 32;
const PORT: u16 = 53;

/// Why nobody answers on the gateway.
#[derive(Debug, thiserror::Error)]
#[error("listening for DNS on {address}")]
pub(crate) struct DnsError {
    address: SocketAddr,
    source: std::io::Error,
}

/// The names, and where all others come from.
#[derive(Debug)]
pub(crate) struct Dns {
    pub(crate) names: NameTable,
    forwarder: Forwarder,
}

impl Dns {
    pub(crate) fn new(broker: &Path) -> Arc<Dns> {
        Arc::new(Dns {
            names: NameTable::default(),
            forwarder: Forwarder::new(broker),
        })
    }

    /// Listens on these addresses, over UDP and TCP. The server's tasks end when it is dropped.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        gateways: [IpAddr; 2],
    ) -> Result<Server<Handler>, DnsError> {
        let mut server = Server::new(Handler(Arc::clone(self)));
        let is_spoken = |gateway: &IpAddr| gateway.is_ipv4() || has_ipv6();
        for gateway in gateways.into_iter().filter(is_spoken) {
            let address = SocketAddr::new(gateway, PORT);
            let failed = |source| DnsError { address, source };
            server.register_socket(UdpSocket::bind(address).await.map_err(failed)?);
            let listener = TcpListener::bind(address).await.map_err(failed)?;
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
