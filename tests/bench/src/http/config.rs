//! Settings that make every proxy do the same work: the same fields added for the origin, kept
//! connections both ways, no access log, one worker.

use std::{net::SocketAddr, path::Path};

/// What the origin answers: 90 bytes.
pub(super) const BODY: &str = "{\"id\":\"0123456789\",\"name\":\"a small answer, as most are\",\"price\":\"12.34\",\"stock\":\"567890\"}\n";

/// Where a proxy listens, and where it keeps its things.
pub(super) struct Place<'a> {
    pub(super) folder: &'a Path,
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    pub(super) origin: SocketAddr,
}

/// Fields that ingress-nginx adds and Forebay too, by nginx's variable and HAProxy's expression.
const FIELDS: [(&str, &str, &str); 8] = [
    (
        "X-Request-ID",
        "$request_id",
        "%[rand,hex]%[rand,hex]%[rand,hex]%[rand,hex]",
    ),
    ("X-Real-IP", "$remote_addr", "%[src]"),
    ("X-Forwarded-For", "$remote_addr", "%[src]"),
    ("X-Forwarded-Host", "$http_host", "%[req.hdr(host)]"),
    ("X-Forwarded-Port", "$server_port", "%[dst_port]"),
    ("X-Forwarded-Proto", "$scheme", "%[ssl_fc,iif(https,http)]"),
    ("X-Forwarded-Scheme", "$scheme", "%[ssl_fc,iif(https,http)]"),
    ("X-Scheme", "$scheme", "%[ssl_fc,iif(https,http)]"),
];

fn nginx_frame(folder: &Path, name: &str, http: &str) -> String {
    let folder = folder.display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {folder}/{name}-{kind};\n"))
        .collect();
    format!(
        "worker_processes 1;\ndaemon off;\npid {folder}/{name}.pid;\nerror_log {folder}/{name}.log crit;\n\
         events {{ worker_connections 4096; }}\nhttp {{\naccess_log off;\nkeepalive_requests 1000000000;\n\
         keepalive_timeout 75s;\n{paths}{http}}}\n"
    )
}

/// The origin: an nginx that answers from memory.
pub(super) fn origin(folder: &Path, address: SocketAddr) -> String {
    let body = BODY.trim_end();
    let server = format!(
        "server {{ listen {address} backlog=4096; location / {{ default_type application/json; return 200 '{body}\n'; }} }}\n"
    );
    nginx_frame(folder, "origin", &server)
}

/// nginx as ingress-nginx configures it, without its Lua.
pub(super) fn nginx(place: &Place<'_>) -> String {
    let Place {
        folder,
        http,
        https,
        origin,
    } = place;
    let fields: String = FIELDS
        .iter()
        .map(|(name, variable, _)| format!("proxy_set_header {name} {variable};\n"))
        .collect();
    let servers = format!(
        "ssl_certificate {0}/tls.crt;\nssl_certificate_key {0}/tls.key;\nssl_protocols TLSv1.2 TLSv1.3;\n\
         upstream pods {{ server {origin}; keepalive 320; keepalive_requests 1000000000; }}\n\
         server {{\nlisten {http} backlog=4096;\nlisten {https} ssl http2 backlog=4096;\nlocation / {{\n\
         proxy_pass http://pods;\nproxy_http_version 1.1;\nproxy_set_header Connection \"\";\n\
         proxy_set_header Host $http_host;\n{fields}}}\n}}\n",
        folder.display()
    );
    // HTTP/2 has no Host of its own in this version's `$http_host`.
    nginx_frame(folder, "nginx", &servers.replace("$http_host", "$host"))
}

/// HAProxy with one thread.
pub(super) fn haproxy(place: &Place<'_>) -> String {
    let Place {
        folder,
        http,
        https,
        origin,
    } = place;
    let fields: String = FIELDS
        .iter()
        .map(|(name, _, expression)| format!("  http-request set-header {name} {expression}\n"))
        .collect();
    format!(
        "global\n  nbthread 1\n  maxconn 4096\n  tune.ssl.default-dh-param 2048\n\
         defaults\n  mode http\n  timeout client 75s\n  timeout server 60s\n  timeout connect 5s\n  http-reuse always\n\
         frontend in\n  bind {http}\n  bind {https} ssl crt {0}/tls.pem alpn h2,http/1.1\n{fields}  default_backend pods\n\
         backend pods\n  server pod {origin} pool-max-conn 320\n",
        folder.display()
    )
}

/// Envoy with one worker thread.
pub(super) fn envoy(place: &Place<'_>) -> String {
    let Place {
        folder,
        http,
        https,
        origin,
    } = place;
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
    let chain = |tls: &str| {
        format!(
            "[{{{tls} filters: [{{name: http, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.\
             http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, codec_type: AUTO, use_remote_address: true, \
             route_config: {{virtual_hosts: [{{name: all, domains: ['*'], request_headers_to_add: [{fields}], routes: [{{match: \
             {{prefix: /}}, route: {{cluster: pods}}}}]}}]}}, http_filters: [{{name: router, typed_config: {{'@type': \
             type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}]"
        )
    };
    let tls = format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.\
         DownstreamTlsContext, common_tls_context: {{alpn_protocols: [h2, http/1.1], tls_certificates: [{{certificate_chain: \
         {{filename: {0}/tls.crt}}, private_key: {{filename: {0}/tls.key}}}}]}}}}}},",
        folder.display()
    );
    let address = |address: &SocketAddr| {
        format!(
            "{{socket_address: {{address: {}, port_value: {}}}}}",
            address.ip(),
            address.port()
        )
    };
    format!(
        "static_resources:\n  listeners:\n  - {{address: {}, filter_chains: {}}}\n  - {{address: {}, filter_chains: {}}}\n  \
         clusters:\n  - {{name: pods, type: STATIC, connect_timeout: 5s, load_assignment: {{cluster_name: pods, endpoints: \
         [{{lb_endpoints: [{{endpoint: {{address: {}}}}}]}}]}}}}\n",
        address(http),
        chain(""),
        address(https),
        chain(&tls),
        address(origin)
    )
}

/// Forebay's manifests: one Ingress for every host, one Service, one endpoint.
pub(super) fn manifests(origin: SocketAddr) -> String {
    let (address, port) = (origin.ip(), origin.port());
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: bench, namespace: default}}\nspec:\n  rules:\n  \
         - http:\n      paths:\n      - {{path: /, pathType: Prefix, backend: {{service: {{name: pods, port: {{number: 80}}}}}}}}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{name: pods, namespace: default}}\nspec:\n  ports:\n  \
         - {{name: http, port: 80, targetPort: {port}}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: pods-1, namespace: default, labels: \
         {{kubernetes.io/service-name: pods}}}}\naddressType: IPv4\nports:\n- {{name: http, port: {port}}}\nendpoints:\n\
         - {{addresses: [{address}], conditions: {{ready: true}}}}\n"
    )
}
