//! EndpointSlices, as far as they are read.
//!
//! The library's own type has room for all that Kubernetes may say of an endpoint, a third of a
//! kilobyte each. Clusters have tens of thousands of endpoints, and all of them are kept.

use k8s_openapi::{
    Metadata, NamespaceResourceScope, Resource, api::discovery::v1::EndpointPort,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Deserialize, Deserializer};

/// `discovery.k8s.io/v1`, `EndpointSlice`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointSlice {
    #[serde(default)]
    pub(super) metadata: ObjectMeta,
    /// `IPv4`, `IPv6` or `FQDN`.
    #[serde(default, deserialize_with = "nullable")]
    pub(super) address_type: Box<str>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) endpoints: Box<[Endpoint]>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) ports: Box<[EndpointPort]>,
}

/// Longest name of a pod, in bytes (RFC 1123 subdomain).
const NAME: usize = 253;

/// One endpoint.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoint {
    /// Of the family that the slice says; usually one.
    #[serde(default, deserialize_with = "nullable")]
    pub(super) addresses: Box<[Box<str>]>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) conditions: Conditions,
    /// Name of the pod behind it.
    #[serde(default, rename = "targetRef", deserialize_with = "name_of_target")]
    pub(super) pod: Option<Box<str>>,
}

/// What an endpoint is good for; unset means what the API says it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Conditions {
    pub(super) ready: Option<bool>,
    pub(super) serving: Option<bool>,
    pub(super) terminating: Option<bool>,
}

impl Resource for EndpointSlice {
    const API_VERSION: &'static str = "discovery.k8s.io/v1";
    const GROUP: &'static str = "discovery.k8s.io";
    const KIND: &'static str = "EndpointSlice";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "endpointslices";
    type Scope = NamespaceResourceScope;
}

impl Metadata for EndpointSlice {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Programs in Go write `null` for a list without elements.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn name_of_target<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<str>>, D::Error> {
    #[derive(Deserialize)]
    struct Target {
        name: Option<Box<str>>,
    }
    let target = Option::<Target>::deserialize(deserializer)?;
    // The API takes any, and each port that is named has a copy.
    let name = target.and_then(|target| target.name);
    Ok(name.filter(|name| name.len() <= NAME))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::discovery::v1;
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_named_as_the_librarys_own_is() {
        type Theirs = v1::EndpointSlice;
        assert_eq!(EndpointSlice::API_VERSION, Theirs::API_VERSION);
        assert_eq!(EndpointSlice::GROUP, Theirs::GROUP);
        assert_eq!(EndpointSlice::KIND, Theirs::KIND);
        assert_eq!(EndpointSlice::VERSION, Theirs::VERSION);
        assert_eq!(EndpointSlice::URL_PATH_SEGMENT, Theirs::URL_PATH_SEGMENT);
    }

    #[test]
    fn what_is_read_is_what_the_librarys_own_type_reads() {
        let full = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "web-1", "namespace": "shop"},
            "addressType": "IPv6",
            "endpoints": [
                {
                    "addresses": ["2001:db8::1", "2001:db8::2"],
                    "conditions": {"ready": false, "serving": true, "terminating": true},
                    "hints": {"forZones": [{"name": "a"}]},
                    "nodeName": "n1",
                    "targetRef": {"kind": "Pod", "name": "web-1-a", "uid": "1"},
                },
                {"addresses": [], "conditions": null, "targetRef": null},
                {"addresses": ["2001:db8::3"], "conditions": {"ready": null}, "targetRef": {}},
            ],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {}],
        });
        let empty = json!({"addressType": "IPv4", "endpoints": null, "ports": null});
        let bare = json!({"metadata": {}, "addressType": "IPv4", "endpoints": []});
        for value in [full, empty, bare] {
            let own: EndpointSlice = serde_json::from_value(value.clone()).unwrap();
            let theirs: v1::EndpointSlice = serde_json::from_value(value).unwrap();
            assert_eq!(own.metadata, theirs.metadata);
            assert_eq!(*own.address_type, *theirs.address_type);
            assert_eq!(own.ports.to_vec(), theirs.ports.unwrap_or_default());
            let theirs = theirs.endpoints.unwrap_or_default();
            assert_eq!(own.endpoints.len(), theirs.len());
            for (own, theirs) in own.endpoints.iter().zip(theirs) {
                let addresses: Vec<_> = own.addresses.iter().map(|text| &**text).collect();
                assert_eq!(addresses, theirs.addresses);
                let conditions = theirs.conditions.unwrap_or_default();
                assert_eq!(own.conditions.ready, conditions.ready);
                assert_eq!(own.conditions.serving, conditions.serving);
                assert_eq!(own.conditions.terminating, conditions.terminating);
                let pod = theirs.target_ref.and_then(|target| target.name);
                assert_eq!(own.pod.as_deref(), pod.as_deref());
            }
        }
    }

    #[test]
    fn a_name_that_no_pod_can_have_is_left_out() {
        for (length, kept) in [(NAME, true), (NAME + 1, false)] {
            let name = "a".repeat(length);
            let endpoint = json!({"addresses": ["192.0.2.1"], "targetRef": {"name": name}});
            let endpoint: Endpoint = serde_json::from_value(endpoint).unwrap();
            assert_eq!(endpoint.pod.is_some(), kept, "{length}");
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for value in [
            json!({"addressType": 4, "endpoints": []}),
            json!({"addressType": "IPv4", "endpoints": [{"addresses": "192.0.2.1"}]}),
            json!({"addressType": "IPv4", "endpoints": [{"conditions": {"ready": "yes"}}]}),
            json!({"addressType": "IPv4", "ports": [{"port": "http"}]}),
        ] {
            let read = serde_json::from_value::<EndpointSlice>(value.clone());
            assert!(read.is_err(), "{value}");
        }
    }

    #[test]
    fn an_endpoint_takes_little() {
        assert!(size_of::<Endpoint>() <= 40, "{}", size_of::<Endpoint>());
    }
}
