//! How the control plane's processes are told to find each other, and whom they trust.

use std::{fs, net::Ipv4Addr, path::Path};

use anyhow::Result;

/// The machine's own address, which the API server announces.
pub(super) const MACHINE: Ipv4Addr = Ipv4Addr::new(198, 18, 20, 1);
/// The namespace is ours alone, so every port is free.
pub(super) const PORT: u16 = 6443;
/// Where nobody but the administrator looks.
pub(super) const HIDDEN_PORT: u16 = 6444;
pub(super) const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEER: &str = "http://127.0.0.1:2380";
/// What a namespace needs to come and go, and a ServiceAccount to be there.
const CONTROLLERS: [&str; 5] = [
    "garbage-collector-controller",
    "namespace-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
];
/// Token of the administrator, who exists in this namespace only.
const ADMIN: &str = "administrator-of-one-test";

pub(super) fn etcd(dir: &Path) -> Vec<String> {
    vec![
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
        format!("--data-dir={}", dir.join("etcd").display()),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        format!("--listen-peer-urls={ETCD_PEER}"),
        format!("--initial-advertise-peer-urls={ETCD_PEER}"),
        format!("--initial-cluster=default={ETCD_PEER}"),
    ]
}

pub(super) fn server(dir: &Path, port: u16) -> Vec<String> {
    let path = |name: &str| dir.join(name).display().to_string();
    vec![
        format!("--etcd-servers={ETCD}"),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        // Without it the server looks for an interface that has a default route.
        format!("--advertise-address={MACHINE}"),
        "--authorization-mode=RBAC".into(),
        "--service-cluster-ip-range=10.96.0.0/16".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={}", path("accounts.pub")),
        format!(
            "--service-account-signing-key-file={}",
            path("accounts.key")
        ),
        format!("--tls-cert-file={}", path("server.crt")),
        format!("--tls-private-key-file={}", path("server.key")),
        format!("--token-auth-file={}", path("tokens.csv")),
    ]
}

pub(super) fn manager(dir: &Path) -> Vec<String> {
    let path = |name: &str| dir.join(name).display().to_string();
    vec![
        format!("--kubeconfig={}", path("admin.kubeconfig")),
        format!(
            "--service-account-private-key-file={}",
            path("accounts.key")
        ),
        format!("--root-ca-file={}", path("server.crt")),
        "--leader-elect=false".into(),
        format!("--controllers={}", CONTROLLERS.join(",")),
        "--bind-address=127.0.0.1".into(),
        "--secure-port=10257".into(),
        format!("--cert-dir={}", path("manager")),
    ]
}

/// Writes the server's certificate, the key that signs tokens, and the administrator's kubeconfig.
pub(super) fn write_credentials(dir: &Path) -> Result<()> {
    let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"].map(str::to_owned);
    let server = rcgen::generate_simple_self_signed(names)?;
    fs::write(dir.join("server.crt"), server.cert.pem())?;
    fs::write(dir.join("server.key"), server.signing_key.serialize_pem())?;
    let accounts = rcgen::KeyPair::generate()?;
    fs::write(dir.join("accounts.key"), accounts.serialize_pem())?;
    fs::write(dir.join("accounts.pub"), accounts.public_key_pem())?;
    fs::write(
        dir.join("tokens.csv"),
        format!("{ADMIN},admin,1,\"system:masters\"\n"),
    )?;
    fs::write(dir.join("admin.kubeconfig"), kubeconfig(dir, ADMIN))?;
    Ok(())
}

pub(super) fn kubeconfig(dir: &Path, token: &str) -> String {
    let authority = dir.join("server.crt");
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters: [{{name: test, cluster: {{server: 'https://127.0.0.1:{PORT}', certificate-authority: '{}'}}}}]\n\
         users: [{{name: test, user: {{token: '{token}'}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n",
        authority.display()
    )
}
