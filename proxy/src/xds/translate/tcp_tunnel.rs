//! How bytes of TCP are carried in a request of HTTP.

use weft_proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::TunnelingConfig;

use super::at::{At, Invalid, nonempty, unsupported};
use super::headers::{formatted_mutations, template};
use crate::config::tunnel::{TunnelConfig, TunnelMethod};

/// What is asked of the upstream.
pub(super) fn tunnel(at: &At<'_>, wire: &TunnelingConfig) -> Result<TunnelConfig, Invalid> {
    let TunnelingConfig {
        hostname,
        use_post,
        headers_to_add,
        propagate_response_headers,
        post_path,
        propagate_response_trailers,
        request_id_extension,
        request_id_header,
        request_id_metadata_key,
        formatters,
    } = wire;
    unsupported!(at; propagate_response_headers, propagate_response_trailers, request_id_extension,
        request_id_header, request_id_metadata_key, formatters);
    let at_hostname = at.field("hostname");
    let hostname = template(&at_hostname, nonempty(&at_hostname, hostname)?)?;
    Ok(TunnelConfig {
        hostname,
        method: method(&at.field("post_path"), *use_post, post_path)?,
        headers: formatted_mutations(at, ("headers_to_add", headers_to_add), ("", &[]))?,
    })
}

fn method(at: &At<'_>, uses_post: bool, path: &str) -> Result<TunnelMethod, Invalid> {
    match (uses_post, path) {
        (false, "") => Ok(TunnelMethod::Connect),
        (false, _) => Err(at.refuse("a CONNECT has no path: set `use_post`, too")),
        (true, "") => Ok(TunnelMethod::Post { path: "/".into() }),
        (true, path) if path.parse::<http::uri::PathAndQuery>().is_ok() => {
            Ok(TunnelMethod::Post { path: path.into() })
        }
        (true, path) => Err(at.refuse_value(path)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::json::from_json;

    use super::super::at::Notes;
    use super::*;

    fn translated(json: serde_json::Value) -> Result<TunnelConfig, Invalid> {
        let wire: TunnelingConfig = from_json(json).expect("a tunnel");
        let notes = Notes::default();
        let root = At::root(&notes);
        tunnel(&root.field("tunneling_config"), &wire)
    }

    #[test]
    fn a_tunnel_is_asked_for_by_connect_unless_a_post_is_wanted() {
        let asked = |json| translated(json).expect("valid").method;

        assert_eq!(asked(json!({"hostname": "a:1"})), TunnelMethod::Connect);
        for (json, path) in [
            (json!({"hostname": "a:1", "use_post": true}), "/"),
            (
                json!({"hostname": "a:1", "use_post": true, "post_path": "/b"}),
                "/b",
            ),
        ] {
            assert_eq!(asked(json), TunnelMethod::Post { path: path.into() });
        }
    }

    #[test]
    fn what_cannot_be_asked_for_is_refused_by_its_path() {
        for (json, path) in [
            (json!({"hostname": ""}), "hostname"),
            (json!({"hostname": "%NO_SUCH%"}), "hostname"),
            (json!({"hostname": "a:1", "post_path": "/b"}), "post_path"),
            (
                json!({"hostname": "a:1", "use_post": true, "post_path": "a b"}),
                "post_path",
            ),
            (
                json!({"hostname": "a:1", "propagate_response_headers": true}),
                "propagate_response_headers",
            ),
        ] {
            let error = translated(json).expect_err(path);
            let path = format!("tunneling_config.{path}");
            assert!(error.to_string().starts_with(&path), "{error}");
        }
    }
}
