//! HAProxy with one thread; hosts are looked up in a map, as HAProxy's own ingresses do.

use std::fmt::Write as _;

use super::{FIELDS, Place};

/// The file that names every host, beside the settings.
const MAP: &str = "hosts.map";

/// The settings.
pub(in super::super) fn haproxy(place: &Place<'_>) -> String {
    let Place {
        folder,
        tls,
        http,
        https,
        origin,
        echo,
        nginx_buffering: _,
        hosts: _,
    } = place;
    let (folder, tls) = (folder.display(), tls.display());
    let fields: String = FIELDS
        .iter()
        .map(|(name, _, expression)| format!("  http-request set-header {name} {expression}\n"))
        .collect();
    format!(
        "global
  nbthread 1
  maxconn 4096
  tune.ssl.default-dh-param 2048
defaults
  mode http
  timeout client 75s
  timeout server 60s
  timeout connect 5s
  timeout tunnel 60s
  http-reuse always
frontend in
  bind {http} backlog 4096
  bind {https} backlog 4096 ssl crt {tls}/tls.pem alpn h2,http/1.1
{fields}  use_backend echo if {{ path_beg /ws }}
  use_backend %[req.hdr(host),field(1,:),lower,map_str({folder}/{MAP},none)]
backend pods
  server pod {origin} pool-max-conn 320
backend echo
  server pod {echo}
backend none
  http-request deny deny_status 404
"
    )
}

/// The map's name and text: host and backend.
pub(in super::super) fn host_map(hosts: &[String]) -> (&'static str, String) {
    let mut text = String::new();
    for host in hosts {
        // Writing to memory cannot fail.
        let _ = writeln!(text, "{host} pods");
    }
    (MAP, text)
}
