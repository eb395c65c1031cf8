//! What a watch asks of an API server: pages of a list, and streams of changes.

use std::{future::Future, time::Duration};

use futures_util::{Stream, StreamExt, stream::BoxStream};
use kube::{
    Api,
    api::{ListParams, VersionMatch, WatchParams},
    core::{ObjectList, WatchEvent},
};

use super::super::super::kind::Kind;

/// Objects per page, where a list comes in pages: client-go's number.
const PAGE: u32 = 500;

/// An API server, as one kind's watch sees it.
pub(super) trait Server<K: Clone>: Send + Sync {
    /// Changes as they come.
    type Stream: Stream<Item = kube::Result<WatchEvent<K>>> + Send + Unpin;

    /// One page of a list that is no older than `since`: any at "0", the newest at "".
    fn page(
        &self,
        since: &str,
        token: Option<String>,
    ) -> impl Future<Output = kube::Result<ObjectList<K>>> + Send;

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
    pub(super) api: Api<K>,
    /// Field selector; all objects without one.
    pub(super) selector: Option<String>,
}

impl<K: Kind> Server<K> for Scope<K> {
    type Stream = BoxStream<'static, kube::Result<WatchEvent<K>>>;

    async fn page(&self, since: &str, token: Option<String>) -> kube::Result<ObjectList<K>> {
        // The watch cache answers for any version but the newest, and has no pages. The client
        // would drop a version "0" that comes with a limit, and etcd would have to answer.
        let cached = !since.is_empty();
        self.api
            .list(&ListParams {
                field_selector: self.selector.clone(),
                limit: (!cached).then_some(PAGE),
                continue_token: token,
                version_match: cached.then_some(VersionMatch::NotOlderThan),
                resource_version: cached.then(|| since.to_owned()),
                ..ListParams::default()
            })
            .await
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
        self.api.watch(&params, since).await.map(StreamExt::boxed)
    }
}
