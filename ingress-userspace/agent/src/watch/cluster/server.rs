//! What a watch asks of an API server: pages of a list, and streams of changes.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    future::{Future, ready},
    io::ErrorKind,
    marker::PhantomData,
    sync::Arc,
    time::Duration,
};

use futures_util::{
    AsyncBufReadExt, Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use http_body_util::BodyExt;
use k8s_openapi::{
    Resource as _,
    api::{core::v1::Secret, networking::v1::Ingress},
};
use kube::{
    Client,
    api::{ListParams, VersionMatch, WatchParams},
    client::Body,
    core::{ObjectList, Request, Status, WatchEvent},
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    super::super::{kept::Unread, kind::Kind, outline::Outline},
    lean::Lean,
};
use ingress_model::ObjectName;

/// Objects per page, where a list comes in pages: client-go's number.
const PAGE: u32 = 500;
/// Characters of an error that are shown: it may quote a megabyte.
const ERROR: usize = 200;

/// An object, or as much of it as matters: one that cannot be read keeps no other back.
pub(super) type Sent<K> = Result<K, Head>;

/// What is read of an object that cannot be read, or is gone.
#[derive(Clone, Debug)]
pub(super) struct Head {
    /// `None` where nobody can say which object it is.
    pub(super) name: Option<ObjectName>,
    pub(super) version: Option<String>,
    pub(super) unread: Unread,
}

/// An API server, as one kind's watch sees it.
pub(super) trait Server<K: Clone>: Send + Sync {
    /// Changes as they come.
    type Stream: Stream<Item = kube::Result<WatchEvent<Sent<K>>>> + Send + Unpin;

    /// One page of a list that is no older than `since`: the newest at "".
    fn page(
        &self,
        since: &str,
        token: Option<String>,
    ) -> impl Future<Output = kube::Result<ObjectList<Sent<K>>>> + Send;

    /// Changes after `since`; with `listing`, all objects come first and then a bookmark says so.
    fn open(
        &self,
        since: &str,
        listing: bool,
        length: Duration,
    ) -> impl Future<Output = kube::Result<Self::Stream>> + Send;
}

/// The objects of a kind that are watched.
pub(super) struct Scope<K> {
    client: Client,
    request: Request,
    /// Field selector; all objects without one.
    selector: Option<String>,
    kind: PhantomData<K>,
}

impl<K: Kind> Scope<K> {
    /// Those in one namespace, or in all.
    pub(super) fn new(client: Client, namespace: Option<&str>, selector: Option<String>) -> Self {
        Self {
            client,
            request: Request::new(K::url_path(&(), namespace)),
            selector,
            kind: PhantomData,
        }
    }
}

impl<K> Scope<K> {
    /// The body of what a server answers, if it is no refusal. The client would take a refusal for
    /// one with code 0 if the code is in its status line only.
    async fn answer(&self, request: http::Request<Vec<u8>>) -> kube::Result<Body> {
        let answer = self.client.send(request.map(Body::from)).await?;
        let code = answer.status();
        if !code.is_client_error() && !code.is_server_error() {
            return Ok(answer.into_body());
        }
        let body = answer.into_body().collect_bytes().await?;
        let status = serde_json::from_slice(&body).unwrap_or_else(|_| {
            // Perhaps the page of a proxy in between.
            let text: String = String::from_utf8_lossy(&body).chars().take(ERROR).collect();
            Status::failure(text.trim(), "no Status")
        });
        Err(kube::Error::Api(Box::new(match status.code {
            0 => status.with_code(code.as_u16()),
            _ => status,
        })))
    }
}

impl<K: Kind> Server<K> for Scope<K> {
    type Stream = BoxStream<'static, kube::Result<WatchEvent<Sent<K>>>>;

    async fn page(&self, since: &str, token: Option<String>) -> kube::Result<ObjectList<Sent<K>>> {
        // The watch cache answers for any version but the newest, and has no pages. The client
        // would drop a version "0" that comes with a limit, and etcd would have to answer.
        let cached = !since.is_empty();
        let params = ListParams {
            field_selector: self.selector.clone(),
            limit: (!cached).then_some(PAGE),
            continue_token: token,
            version_match: cached.then_some(VersionMatch::NotOlderThan),
            resource_version: cached.then(|| since.to_owned()),
            ..ListParams::default()
        };
        let request = self.request.list(&params);
        let request = request.map_err(kube::Error::BuildRequest)?;
        // Read here: the client would log a page that it cannot read, with every private key in it.
        let body = self.answer(request).await?.collect_bytes().await?;
        let text = text(&body);
        let page: ObjectList<&RawValue> =
            serde_json::from_str(&text).map_err(kube::Error::SerdeError)?;
        Ok(ObjectList {
            types: page.types,
            metadata: page.metadata,
            items: page.items.iter().map(|text| read(text)).collect(),
        })
    }

    async fn open(
        &self,
        since: &str,
        listing: bool,
        length: Duration,
    ) -> kube::Result<Self::Stream> {
        let params = WatchParams {
            field_selector: self.selector.clone(),
            timeout: Some(u32::try_from(length.as_secs()).unwrap_or(1)),
            send_initial_events: listing,
            ..WatchParams::default()
        };
        let request = self.request.watch(&params, since);
        let request = request.map_err(kube::Error::BuildRequest)?;
        // Read here: the client takes an object that it cannot read for a refusal without a reason.
        let body = self.answer(request).await?.into_data_stream();
        let body = body.map_err(std::io::Error::other).into_async_read();
        let lines = stream::try_unfold(body, async |mut body| {
            let mut line = Vec::new();
            let length = body.read_until(b'\n', &mut line).await?;
            Ok((length > 0).then_some((line, body)))
        });
        let events = lines.filter_map(|line| {
            ready(match line {
                Ok(line) => read_event(&text(&line)).transpose(),
                Err(error) if is_end(&error) => None,
                Err(error) => Some(Err(kube::Error::ReadEvents(error))),
            })
        });
        Ok(events.boxed())
    }
}

/// What a server says, as text. Nearly always it is: but it says the names of owned fields as whoever
/// may write an object has written them, and a byte there must not keep all objects of the kind back.
fn text(said: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(said)
}

/// Whether the server just hung up, as it may at any time.
fn is_end(error: &std::io::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let kind = error
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind);
        // Of a body in chunks only the text says so.
        if kind == Some(ErrorKind::UnexpectedEof) || error.to_string().contains("unexpected EOF") {
            return true;
        }
        cause = error.source();
    }
    false
}

/// One line of a watch; `None` where it says nothing.
fn read_event<K: Kind>(line: &str) -> kube::Result<Option<WatchEvent<Sent<K>>>> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let Line { kind, object } = match serde_json::from_str(line) {
        Ok(line) => line,
        // Empty, or the last one of a stream that broke off.
        Err(error) if error.is_eof() => return Ok(None),
        Err(error) => {
            return Err(match serde_json::from_str::<Status>(line) {
                Ok(status) if status.code > 0 => kube::Error::Api(Box::new(status)),
                _ => kube::Error::SerdeError(error),
            });
        }
    };
    let text = object.get();
    Ok(match &*kind {
        "ADDED" => Some(WatchEvent::Added(read(object))),
        "MODIFIED" => Some(WatchEvent::Modified(read(object))),
        // Whatever else it says.
        "DELETED" => Some(WatchEvent::Deleted(Err(head(object, "is gone")))),
        "BOOKMARK" => Some(WatchEvent::Bookmark(
            serde_json::from_str(text).map_err(kube::Error::SerdeError)?,
        )),
        "ERROR" => Some(WatchEvent::Error(
            serde_json::from_str(text).map_err(kube::Error::SerdeError)?,
        )),
        _ => None,
    })
}

/// Reads one object.
fn read<K: Kind>(text: &RawValue) -> Sent<K> {
    let error = match serde_json::from_str::<Lean<K>>(text.get()) {
        Ok(Lean(object)) => return Ok(object),
        Err(error) => error,
    };
    // The message may quote what is there, be it a secret, long, or of several lines.
    if K::kind(&()) == Secret::KIND {
        return Err(head(text, "cannot be read"));
    }
    // Where it is says nothing to its owner, and differs with each write.
    let place = format!(" at line {} column {}", error.line(), error.column());
    let error = error.to_string();
    let error = error.strip_suffix(&place).unwrap_or(&error);
    let plain = |char: char| if char.is_control() { ' ' } else { char };
    let short: String = error.chars().take(ERROR).map(plain).collect();
    let words: Vec<_> = short.split_whitespace().collect();
    let mut head = head(text, &format!("cannot be read: {}", words.join(" ")));
    if K::kind(&()) == Ingress::KIND {
        let value = serde_json::from_str::<Value>(text.get()).ok();
        let outline = value.as_ref().and_then(Outline::read);
        head.unread.outline = outline.map(Arc::new);
    }
    Err(head)
}

/// The object as far as its name, uid and version, each by itself.
fn head(text: &RawValue, error: &str) -> Head {
    #[derive(Default, Deserialize)]
    struct Object<'a> {
        #[serde(borrow)]
        metadata: BTreeMap<String, &'a RawValue>,
    }
    let Object { metadata } = serde_json::from_str(text.get()).unwrap_or_default();
    let text = |field: &str| {
        let text = metadata.get(field)?.get();
        serde_json::from_str::<Option<String>>(text).ok()
    };
    let namespace = || match metadata.contains_key("namespace") {
        true => text("namespace").map(Option::unwrap_or_default),
        // Some kinds have none.
        false => Some(String::new()),
    };
    let name = text("name").flatten().filter(|name| !name.is_empty());
    Head {
        name: name.and_then(|name| Some(ObjectName::new(namespace()?, name))),
        version: text("resourceVersion").flatten(),
        unread: Unread {
            uid: text("uid").flatten().map(String::into),
            error: error.into(),
            outline: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

    use super::*;

    #[test]
    fn a_fault_reads_the_same_wherever_in_the_object_it_is() {
        let fault = |before: &str| {
            let text = format!(r#"{{"metadata":{{"name":"a"}},{before}"spec":7}}"#);
            let sent = read::<Service>(&RawValue::from_string(text).unwrap());
            sent.err().unwrap().unread
        };
        let near = fault("");
        assert_eq!(near, fault(r#""status":{},"#));
        assert!(near.error.starts_with("cannot be read: "), "{near:?}");
        assert!(!near.error.contains("column"), "{near:?}");
    }
}
