//! Forebay and a real API server, Forebay under its own ServiceAccount and the ClusterRole of `deploy/`.

use ingress_tests::{
    api_server::{self, ApiServer},
    skipped,
};

#[test]
fn smoke() {
    if let Err(reason) = api_server::available() {
        return skipped(&reason);
    }
    let api = ApiServer::shared().unwrap();
    let config = api.forebay_kubeconfig().unwrap();
    println!("{}", std::fs::read_to_string(config).unwrap());
    println!("{}", api.kubectl(&["get", "all,serviceaccounts", "-A"], "").unwrap());
    api.compact().unwrap();
    let t = std::time::Instant::now();
    api.kill_server();
    api.restart_server().unwrap();
    println!("restart {:?}", t.elapsed());
}
