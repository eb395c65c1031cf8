//! One file's text → Kubernetes objects. Pure: each document, and each item of a `List`, stands
//! alone.

use std::{collections::BTreeMap, fmt, sync::Arc};

use k8s_openapi::{
    ByteString, Resource as _,
    api::{
        core::v1::Secret,
        networking::v1::{Ingress, IngressClass},
    },
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    super::{
        kind::{self, Object, Read},
        outline::Outline,
    },
    legacy::LegacyIngress,
};
use ingress_model::ObjectName;

/// Kind and name: two manifests with the same identity are the same object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    /// `kind`.
    pub(super) kind: &'static str,
    /// Namespace (empty where the kind has none) and name.
    pub(super) name: ObjectName,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// An object, and the first line of its document.
#[derive(Clone, Debug)]
pub(super) struct Located {
    /// What it is called.
    pub(super) identity: Identity,
    /// What it says.
    pub(super) object: Object,
    /// Counted from 1.
    pub(super) line: u64,
}

/// Something in the file that is not an object, though it should be one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    /// Counted from 1.
    pub(super) line: u64,
    /// `Kind namespace/name`, as far as it is known.
    pub(super) object: String,
    /// The same, where all of it is known.
    pub(super) identity: Option<Identity>,
    /// What can be read of an Ingress.
    pub(super) outline: Option<Arc<Outline>>,
    /// Lower case, no full stop. Never a value out of a Secret.
    pub(super) message: String,
}

/// Said of what can be read and is something else, such as the values of a chart.
pub(super) const NO_OBJECT: &str = "not a Kubernetes object: apiVersion and kind are needed";

/// What a file says.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// In the order of the file.
    pub(super) objects: Vec<Located>,
    /// With any of these, what the file said before about objects that are missing now still holds.
    pub(super) faults: Vec<Fault>,
    /// Objects of kinds that are not used, by `apiVersion/kind`.
    pub(super) skipped: BTreeMap<String, u64>,
    /// What cannot be read of it may be an IngressClass.
    pub(super) mentions_classes: bool,
}

/// Reads YAML (`json` false) or one or more JSON values.
pub(super) fn read(text: &str, json: bool) -> Reading {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reading = Reading {
        mentions_classes: text.contains(IngressClass::KIND),
        ..Reading::default()
    };
    if json {
        read_json(text, &mut reading);
    } else {
        for document in documents(text) {
            read_yaml(&document, &mut reading);
        }
    }
    reading
}

/// One YAML document: its text, and the number of lines before it.
struct Document<'a> {
    text: &'a str,
    lines_before: u64,
}

/// Cuts at `---` and `...`, which YAML knows only in the first column (YAML 1.2 section 9.1.2).
fn documents(text: &str) -> Vec<Document<'_>> {
    let marks = |line: &str, mark: &str| {
        line.strip_prefix(mark)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
    };
    let mut found = Vec::new();
    let (mut start, mut lines_before, mut offset) = (0, 0, 0);
    for (number, line) in (0..).zip(text.split_inclusive('\n')) {
        let end = offset + line.len();
        if marks(line, "---") {
            found.push(Document {
                text: &text[start..offset],
                lines_before,
            });
            (start, lines_before) = (offset, number);
        } else if marks(line, "...") {
            found.push(Document {
                text: &text[start..offset],
                lines_before,
            });
            (start, lines_before) = (end, number + 1);
        }
        offset = end;
    }
    found.push(Document {
        text: &text[start..],
        lines_before,
    });
    let blank = |line: &str| line.is_empty() || line.starts_with(['#', '%']) || line == "---";
    found.retain(|document| !document.text.lines().all(|line| blank(line.trim())));
    found
}

/// Reads a document. Its aliases may make it a few times as long as it is written, and no more: what
/// is refused later has taken its memory first.
fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, serde_saphyr::Error> {
    let mut options = serde_saphyr::Options::default();
    let replayed = &mut options.alias_limits.max_total_replayed_events;
    *replayed = text.len().clamp(1000, *replayed);
    if let Some(budget) = &mut options.budget {
        let scalars = &mut budget.max_total_scalar_bytes;
        *scalars = text.len().saturating_mul(4).clamp(1 << 20, *scalars);
    }
    serde_saphyr::from_str_with_options(text, options)
}

fn read_yaml(document: &Document<'_>, reading: &mut Reading) {
    let at = |error: &serde_saphyr::Error| {
        document.lines_before
            + error
                .location()
                .map_or(1, |location| location.line().max(1))
    };
    match yaml::<Value>(document.text) {
        Ok(value) => {
            let typed = Typed::Yaml(document);
            read_value(value, typed, first_line(document), reading);
        }
        Err(error) => reading.faults.push(Fault {
            line: at(&error),
            object: String::new(),
            identity: None,
            outline: None,
            message: format!("not YAML: {}", one_line(&error)),
        }),
    }
}

fn read_json(text: &str, reading: &mut Reading) {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut line = 1;
    while let Some(value) = values.next() {
        match value {
            Ok(value) => read_value(value, Typed::Value, line, reading),
            Err(error) => {
                let line = u64::try_from(error.line()).unwrap_or(0).max(1);
                reading.faults.push(Fault {
                    line,
                    object: String::new(),
                    identity: None,
                    outline: None,
                    message: format!("not JSON: {error}"),
                });
            }
        }
        let read = text.get(..values.byte_offset()).unwrap_or(text);
        line = 1 + read
            .bytes()
            .map(|byte| u64::from(byte == b'\n'))
            .sum::<u64>();
    }
}

/// The first line that is neither blank, a comment nor the document mark.
fn first_line(document: &Document<'_>) -> u64 {
    let blank =
        |line: &&str| line.trim().is_empty() || line.starts_with('#') || line.trim() == "---";
    let before = document.text.lines().take_while(blank).count();
    document.lines_before + 1 + u64::try_from(before).unwrap_or(0)
}

/// How a typed object is read: from the text where that gives lines, else from the untyped value.
#[derive(Clone, Copy)]
enum Typed<'a> {
    Yaml(&'a Document<'a>),
    Value,
}

fn read_value(mut value: Value, typed: Typed<'_>, line: u64, reading: &mut Reading) {
    if value.is_null() {
        return;
    }
    let text = |pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (version, kind, name, namespace) = (
        text("/apiVersion"),
        text("/kind"),
        text("/metadata/name"),
        text("/metadata/namespace"),
    );
    let fault = |line, object: &str, message: &str| Fault {
        line,
        object: object.to_owned(),
        identity: None,
        outline: None,
        message: message.into(),
    };
    if version.is_empty() || kind.is_empty() {
        return reading.faults.push(fault(line, "", NO_OBJECT));
    }
    if value.get("items").is_some_and(Value::is_array) && kind.ends_with("List") {
        return read_list(value, &version, &kind, line, reading);
    }
    let legacy = kind == Ingress::KIND
        && matches!(
            version.as_str(),
            "networking.k8s.io/v1beta1" | "extensions/v1beta1"
        );
    let found = if legacy {
        kind::find(Ingress::API_VERSION, &kind)
    } else {
        kind::find(&version, &kind)
    };
    let Some(kind) = found else {
        *reading
            .skipped
            .entry(format!("{version}/{kind}"))
            .or_default() += 1;
        return;
    };
    if name.is_empty() {
        return reading
            .faults
            .push(fault(line, kind.kind, "metadata.name is missing"));
    }
    let namespace = match kind.namespaced {
        false => String::new(),
        true if namespace.is_empty() => "default".to_owned(),
        true => namespace,
    };
    let identity = Identity {
        kind: kind.kind,
        name: ObjectName { namespace, name },
    };
    match object(kind, legacy, &mut value, typed) {
        Ok(object) => reading.objects.push(Located {
            identity,
            object,
            line,
        }),
        Err((inner, message)) => {
            let is_ingress = kind.kind == Ingress::KIND;
            let outline = is_ingress.then(|| Outline::read(&value)).flatten();
            reading.faults.push(Fault {
                line: inner.unwrap_or(line),
                object: identity.to_string(),
                identity: Some(identity),
                outline: outline.map(Arc::new),
                message,
            });
        }
    }
}

/// Items of `v1 List` carry their own kind; those of a typed list may leave it to the list.
fn read_list(mut list: Value, version: &str, kind: &str, line: u64, reading: &mut Reading) {
    let item_kind = kind.strip_suffix("List").unwrap_or_default();
    let items = list
        .get_mut("items")
        .and_then(Value::as_array_mut)
        .map(std::mem::take)
        .unwrap_or_default();
    for mut item in items {
        if let (Some(item), false) = (item.as_object_mut(), item_kind.is_empty()) {
            item.entry("apiVersion").or_insert_with(|| version.into());
            item.entry("kind").or_insert_with(|| item_kind.into());
        }
        read_value(item, Typed::Value, line, reading);
    }
}

/// Reads one object; of a Secret and of a legacy Ingress the way is their own.
fn object(
    kind: kind::Name,
    legacy: bool,
    value: &mut Value,
    typed: Typed<'_>,
) -> Result<Object, (Option<u64>, String)> {
    if kind.kind == Secret::KIND {
        let secret = secret(value.take()).map_err(|message| (None, message))?;
        return Ok(Object::Secret(Arc::new(secret)));
    }
    let text = TypedValue { value, typed };
    if legacy {
        return Ok(Object::Ingress(Arc::new(
            text.read::<LegacyIngress>()?.into(),
        )));
    }
    let unknown = || {
        Err((
            None,
            format!("{} is not a kind that Forebay reads", kind.kind),
        ))
    };
    Object::read(kind, text).unwrap_or_else(unknown)
}

struct TypedValue<'a> {
    value: &'a Value,
    typed: Typed<'a>,
}

impl Read for TypedValue<'_> {
    /// The line, where it is known, and the message.
    type Error = (Option<u64>, String);

    fn read<T: DeserializeOwned>(self) -> Result<T, Self::Error> {
        match self.typed {
            Typed::Yaml(document) => yaml(document.text).map_err(|error| {
                let line = error
                    .location()
                    .map(|location| document.lines_before + location.line().max(1));
                (line, one_line(&error))
            }),
            Typed::Value => T::deserialize(self.value).map_err(|error| (None, error.to_string())),
        }
    }
}

/// Reads a Secret so that no error can quote what it holds.
fn secret(mut value: Value) -> Result<Secret, String> {
    if let Some(data) = value.get_mut("data").and_then(Value::as_object_mut) {
        for (key, encoded) in data.iter_mut() {
            // As Go's decoder does: a block scalar's line ends are no part of the base64.
            if let Value::String(text) = encoded {
                text.retain(|c| !matches!(c, '\n' | '\r'));
            }
            serde_json::from_value::<ByteString>(encoded.clone())
                .map_err(|_| format!("data[{key}] is not base64"))?;
        }
    }
    let mut secret: Secret = serde_json::from_value(value)
        .map_err(|_| "does not have the form of a v1 Secret".to_owned())?;
    let data = secret.data.get_or_insert_default();
    for (key, text) in secret.string_data.take().unwrap_or_default() {
        data.insert(key, ByteString(text.into_bytes()));
    }
    Ok(secret)
}

/// The error without the excerpt of the file that its full form has.
fn one_line(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
