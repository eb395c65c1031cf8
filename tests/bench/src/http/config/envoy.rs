//! Envoy with one worker thread.

use std::net::SocketAddr;

use super::Place;

/// The settings, in YAML.
pub(in super::super) fn envoy(place: &Place<'_>) -> String {
    let Place {
        folder: _,
        tls,
        http,
        https,
        origin,
        echo,
        nginx_buffering: _,
        hosts,
    } = place;
    let tls = tls.display();
    let secure = format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.\
         tls.v3.DownstreamTlsContext, common_tls_context: {{alpn_protocols: [h2, http/1.1], tls_certificates: \
         [{{certificate_chain: {{filename: {tls}/tls.crt}}, private_key: {{filename: {tls}/tls.key}}}}]}}}}}}, "
    );
    let routes = routes(hosts);
    format!(
        "static_resources:
  listeners:
  - {{address: {}, filter_chains: {}}}
  - {{address: {}, filter_chains: {}}}
  clusters:
  - {}
  - {}
",
        socket(http),
        chains("", &routes),
        socket(https),
        chains(&secure, &routes),
        cluster("pods", origin),
        cluster("echo", echo)
    )
}

fn chains(secure: &str, routes: &str) -> String {
    format!(
        "[{{{secure}filters: [{{name: http, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.\
         http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, codec_type: AUTO, use_remote_address: true, \
         upgrade_configs: [{{upgrade_type: websocket}}], route_config: {routes}, http_filters: [{{name: router, \
         typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}]"
    )
}

/// X-Forwarded-For, X-Forwarded-Proto and X-Request-ID it adds by itself.
fn routes(hosts: &[String]) -> String {
    let fields: String = [
        ("x-real-ip", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
        ("x-forwarded-host", "%REQ(:AUTHORITY)%"),
        ("x-forwarded-port", "%DOWNSTREAM_LOCAL_PORT%"),
        ("x-forwarded-scheme", "%REQ(:SCHEME)%"),
        ("x-scheme", "%REQ(:SCHEME)%"),
    ]
    .iter()
    .map(|(name, value)| format!("{{header: {{key: {name}, value: '{value}'}}}},"))
    .collect();
    let hosts: String = hosts
        .iter()
        .enumerate()
        .map(|(place, host)| {
            let echo = if place == 0 {
                "{match: {prefix: /ws}, route: {cluster: echo}}, "
            } else {
                ""
            };
            format!(
                "{{name: {host}, domains: [{host}], routes: [{echo}{{match: {{prefix: /}}, route: {{cluster: pods}}}}]}},"
            )
        })
        .collect();
    format!("{{request_headers_to_add: [{fields}], virtual_hosts: [{hosts}]}}")
}

fn cluster(name: &str, address: &SocketAddr) -> String {
    format!(
        "{{name: {name}, type: STATIC, connect_timeout: 5s, load_assignment: {{cluster_name: {name}, endpoints: \
         [{{lb_endpoints: [{{endpoint: {{address: {}}}}}]}}]}}}}",
        socket(address)
    )
}

fn socket(address: &SocketAddr) -> String {
    format!(
        "{{socket_address: {{address: {}, port_value: {}}}}}",
        address.ip(),
        address.port()
    )
}
