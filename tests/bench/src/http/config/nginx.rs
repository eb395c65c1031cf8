//! nginx: the origin of all proxies, and a peer.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use super::{FIELDS, Place};

/// The whole file: what both roles share around their servers.
fn file(folder: &Path, http: &str) -> String {
    let folder = folder.display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"))
        .collect();
    format!(
        "worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 4096; }}
http {{
access_log off;
keepalive_requests 1000000000;
keepalive_timeout 75s;
{paths}{http}}}
"
    )
}

/// The origin: small answers from memory, large ones from the page cache by sendfile. What its
/// filter for includes may change has no length, and goes out in chunks.
pub(in super::super) fn origin(
    folder: &Path,
    address: SocketAddr,
    small: &str,
    large: &Path,
) -> String {
    let large = large.display();
    let server = format!(
        "sendfile on;
tcp_nopush on;
open_file_cache max=16;
default_type application/octet-stream;
server {{
listen {address} backlog=4096;
location / {{ default_type application/json; return 200 '{small}'; }}
location = /16k {{ root {large}; }}
location = /1m {{ root {large}; }}
location = /chunked {{ ssi on; ssi_types *; alias {large}/16k; }}
}}
"
    );
    file(folder, &server)
}

/// nginx as ingress-nginx configures it, without its Lua: answers are not buffered
/// (`proxy_buffering off`), but read in pieces of 4 KiB (`proxy_buffer_size`). Large answers cost
/// it more than with its own defaults, which `nginx_buffering` leaves it.
///
/// Tickets are on, unlike there: Forebay's and HAProxy's clients come back by ticket, too.
pub(in super::super) fn nginx(place: &Place<'_>) -> String {
    let Place {
        folder,
        tls,
        http,
        https,
        origin,
        echo,
        nginx_buffering,
        hosts,
    } = place;
    let tls = tls.display();
    let buffers = if *nginx_buffering {
        ""
    } else {
        "proxy_buffering off;\nproxy_buffer_size 4k;\nproxy_buffers 4 4k;\n"
    };
    let mut text = format!(
        "ssl_certificate {tls}/tls.crt;
ssl_certificate_key {tls}/tls.key;
ssl_protocols TLSv1.2 TLSv1.3;
ssl_session_cache shared:SSL:10m;
ssl_session_tickets on;
{buffers}proxy_http_version 1.1;
proxy_set_header Host $host;
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection $connection_upgrade;
"
    );
    // Writing to memory cannot fail, here and below.
    for (name, variable, _) in FIELDS {
        let _ = writeln!(text, "proxy_set_header {name} {variable};");
    }
    let _ = write!(
        text,
        "map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
server_names_hash_max_size 65536;
server_names_hash_bucket_size 128;
upstream pods {{ server {origin}; keepalive 320; keepalive_requests 1000000000; }}
upstream echo {{ server {echo}; keepalive 320; }}
"
    );
    for (place, host) in hosts.iter().enumerate() {
        // An SSL context per server would make a thousand hosts a matter of minutes; only the
        // first is asked by TLS.
        let first = if place == 0 {
            format!(
                "listen {https} ssl http2 backlog=4096;\nlocation /ws {{ proxy_pass http://echo; }}\n"
            )
        } else {
            String::new()
        };
        let _ = write!(
            text,
            "server {{
listen {http}{};
{first}server_name {host};
location / {{ proxy_pass http://pods; }}
}}
",
            if place == 0 { " backlog=4096" } else { "" }
        );
    }
    file(folder, &text)
}
