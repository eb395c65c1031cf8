//! Two ways in which Forebay hears of an object: an API server and a folder.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use ingress_lab::{
    api_server::{self, ApiServer, POD},
    lab::Namespace,
};
use serde_json::{Value, json};

use super::site::NAMESPACE;
use crate::client::Client;

/// Where objects are written, and who hears of it.
pub(super) trait Source: Sized + Send + 'static {
    fn start() -> Result<Self>;

    /// The machine on which everything runs.
    fn namespace(&self) -> Arc<Namespace>;

    /// Where its pods listen.
    fn pod(&self) -> SocketAddr;

    /// Writes many objects at once.
    fn fill(&mut self, objects: Vec<Value>) -> Result<()>;

    /// The flags that name it.
    fn flags(&self) -> Result<[String; 2]>;

    /// What writes single objects, from a thread of the namespace.
    fn writer(&self) -> Result<Writer>;
}

/// Writes single objects.
#[derive(Debug)]
pub(super) enum Writer {
    /// Through `kubectl proxy`.
    Api(SocketAddr, Option<Client>),
    /// One file per object.
    Folder(PathBuf),
}

impl Writer {
    /// Writes an object that exists; returns once that has been confirmed.
    pub(super) fn write(&mut self, object: &Value) -> Result<()> {
        match self {
            Self::Api(address, client) => {
                let client = match client {
                    Some(client) => client,
                    None => client.insert(Client::connect(*address)?),
                };
                let path = item(object)?;
                let patch = "application/merge-patch+json";
                let answer = client.ask("PATCH", "localhost", &path, patch, &bytes(object))?;
                ensure!(answer.status == 200, "PATCH {path}: {}", text(&answer.body));
                Ok(())
            }
            Self::Folder(folder) => {
                let (file, new) = (file(folder, object), folder.join(".new"));
                std::fs::write(&new, bytes(object))?;
                std::fs::rename(&new, &file)?;
                Ok(())
            }
        }
    }
}

fn bytes(object: &Value) -> Vec<u8> {
    object.to_string().into_bytes()
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

fn file(folder: &std::path::Path, object: &Value) -> PathBuf {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    folder.join(format!("{name}.json"))
}

/// The URL of the collection that an object belongs to.
fn collection(object: &Value) -> Result<String> {
    let kind = object["kind"].as_str().unwrap_or_default();
    let plural = match kind {
        "Ingress" => "ingresses".to_owned(),
        other => format!("{}s", other.to_ascii_lowercase()),
    };
    let version = object["apiVersion"].as_str().context("no apiVersion")?;
    let group = if version.contains('/') { "apis" } else { "api" };
    Ok(format!(
        "/{group}/{version}/namespaces/{NAMESPACE}/{plural}"
    ))
}

fn item(object: &Value) -> Result<String> {
    let name = object["metadata"]["name"].as_str().context("no name")?;
    Ok(format!("{}/{name}", collection(object)?))
}

/// A kube-apiserver, and a `kubectl proxy` before it.
pub(super) struct Server {
    api: ApiServer,
    proxy: Child,
    address: SocketAddr,
}

impl Source for Server {
    fn start() -> Result<Self> {
        let api = ApiServer::start_behind_all_others()?;
        api.kubectl(&["create", "namespace", NAMESPACE], "")?;
        let mut command = Command::new(
            api_server::binaries()
                .map_err(anyhow::Error::msg)?
                .join("kubectl"),
        );
        let kubeconfig = api.admin_kubeconfig();
        command
            .args(["proxy", "--port=0", "--kubeconfig"])
            .arg(kubeconfig)
            .stdout(Stdio::piped());
        let mut proxy = api
            .namespace()
            .spawn(command)
            .context("start kubectl proxy")?;
        let mut line = String::new();
        let stdout = proxy.stdout.take().context("kubectl has no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        // "Starting to serve on 127.0.0.1:PORT"
        let address = line.trim().rsplit(' ').next().unwrap_or_default().parse();
        let address = address.with_context(|| format!("kubectl proxy said {line:?}"))?;
        Ok(Self {
            api,
            proxy,
            address,
        })
    }

    fn namespace(&self) -> Arc<Namespace> {
        Arc::clone(self.api.namespace())
    }

    fn pod(&self) -> SocketAddr {
        (POD, 0).into()
    }

    fn fill(&mut self, objects: Vec<Value>) -> Result<()> {
        // One connection per kind of load is enough: the server answers in a millisecond or two.
        let address = self.address;
        let parts: Vec<Vec<Value>> = (0..4)
            .map(|part| objects.iter().skip(part).step_by(4).cloned().collect())
            .collect();
        self.api.namespace().run(move || {
            let fill = |part: Vec<Value>| -> Result<()> {
                let mut client = Client::connect(address)?;
                for object in part {
                    let path = collection(&object)?;
                    let json = "application/json";
                    let answer = client.ask("POST", "localhost", &path, json, &bytes(&object))?;
                    ensure!(answer.status == 201, "POST {path}: {}", text(&answer.body));
                }
                Ok(())
            };
            std::thread::scope(|scope| {
                let threads: Vec<_> = parts
                    .into_iter()
                    .map(|part| scope.spawn(|| fill(part)))
                    .collect();
                threads.into_iter().try_for_each(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|_| Err(anyhow::anyhow!("a writer panicked")))
                })
            })
        })
    }

    fn flags(&self) -> Result<[String; 2]> {
        let kubeconfig = self.api.forebay_kubeconfig()?;
        Ok(["--kubeconfig".to_owned(), kubeconfig.display().to_string()])
    }

    fn writer(&self) -> Result<Writer> {
        Ok(Writer::Api(self.address, None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ended with the namespace in any case.
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

/// A folder with a file per object.
pub(super) struct Folder {
    namespace: Arc<Namespace>,
    folder: tempfile::TempDir,
}

impl Source for Folder {
    fn start() -> Result<Self> {
        let namespace = Arc::new(Namespace::new("folder")?);
        namespace.up("lo")?;
        Ok(Self {
            namespace,
            folder: tempfile::tempdir()?,
        })
    }

    fn namespace(&self) -> Arc<Namespace> {
        Arc::clone(&self.namespace)
    }

    fn pod(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    fn fill(&mut self, objects: Vec<Value>) -> Result<()> {
        // What is never edited lies together, as people keep it: a list of a hundred per file.
        let mut lists: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
        for (number, object) in objects.into_iter().enumerate() {
            if object["metadata"]["labels"]["edited"] == "true" {
                std::fs::write(file(self.folder.path(), &object), bytes(&object))?;
            } else {
                lists.entry(number / 100).or_default().push(object);
            }
        }
        for (number, items) in lists {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
            let path = self.folder.path().join(format!("list-{number}.json"));
            std::fs::write(path, bytes(&list))?;
        }
        Ok(())
    }

    fn flags(&self) -> Result<[String; 2]> {
        let folder = self.folder.path().display().to_string();
        Ok(["--manifests".to_owned(), folder])
    }

    fn writer(&self) -> Result<Writer> {
        Ok(Writer::Folder(self.folder.path().to_owned()))
    }
}
