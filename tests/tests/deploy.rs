//! `deploy/`: what kustomize renders is what a real API server accepts, and what a surge update
//! needs.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{collections::BTreeSet, path::Path};

use ingress_lab::{
    api_server::{self, ApiServer},
    skipped,
};
use serde_json::Value;

/// Renders `deploy/` + `folder`.
fn render(api: &ApiServer, folder: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(folder);
    api.kubectl(&["kustomize", path.to_str().unwrap()], "")
        .unwrap()
}

fn get(api: &ApiServer, args: &[&str]) -> Value {
    let json = api
        .kubectl(&[&["get", "--output", "json"], args].concat(), "")
        .unwrap();
    serde_json::from_str(&json).unwrap()
}

fn daemonset(api: &ApiServer) -> Value {
    get(api, &["--namespace", "forebay-system", "daemonset/forebay"])
}

fn strings(list: &Value) -> BTreeSet<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// The variables that the rendered ConfigMap sets.
fn settings(api: &ApiServer, daemonset: &Value) -> Value {
    let container = &daemonset["spec"]["template"]["spec"]["containers"][0];
    let name = container["envFrom"][0]["configMapRef"]["name"]
        .as_str()
        .unwrap();
    get(
        api,
        &[
            "--namespace",
            "forebay-system",
            &format!("configmap/{name}"),
        ],
    )["data"]
        .take()
}

#[test]
fn base_and_overlays_are_accepted_by_an_api_server() {
    if let Err(reason) = api_server::available() {
        return skipped(&reason);
    }
    let api = ApiServer::shared().unwrap();

    api.apply(&render(&api, "base")).unwrap();
    let base = daemonset(&api);
    let pod = &base["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(pod["hostNetwork"], true);
    // A declared port would be a port of the node, and the new pod of a surge would find no place.
    assert_eq!(
        container["ports"],
        Value::Null,
        "no container port may be declared"
    );
    assert_eq!(
        base["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"],
        1
    );
    assert_eq!(
        base["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"],
        0
    );
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    let rights = &container["securityContext"];
    assert_eq!(strings(&rights["capabilities"]["drop"]), ["ALL"].into());
    assert_eq!(
        strings(&rights["capabilities"]["add"]),
        ["BPF", "NET_ADMIN", "NET_BIND_SERVICE", "PERFMON"].into()
    );
    assert_eq!(rights["readOnlyRootFilesystem"], true);
    assert_eq!(rights["allowPrivilegeEscalation"], false);
    assert_eq!(
        get(&api, &["ingressclass/forebay"])["spec"]["controller"],
        "forebay.dev/ingress"
    );

    api.apply(&render(&api, "overlays/vip")).unwrap();
    let settings = settings(&api, &daemonset(&api));
    assert!(
        settings["FOREBAY_VIP"].is_string() && settings["FOREBAY_LOG_FORMAT"].is_string(),
        "merged: {settings}"
    );

    // Another way to run the same DaemonSet: what it leaves out must go when it is applied over the
    // other.
    api.apply(&render(&api, "overlays/sockets")).unwrap();
    let sockets = daemonset(&api);
    let pod = &sockets["spec"]["template"]["spec"];
    let added = &pod["containers"][0]["securityContext"]["capabilities"]["add"];
    assert_eq!(strings(added), ["NET_BIND_SERVICE"].into());
    assert_eq!(
        pod["volumes"],
        Value::Null,
        "nothing of the node may be mounted"
    );
}
