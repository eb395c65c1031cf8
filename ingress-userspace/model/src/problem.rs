//! A problem with one object, reported where its owner will look.

use std::fmt;

use serde::Serialize;

use super::ObjectRef;

/// How much of the object still works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object is served; a part of it is ignored.
    Warning,
    /// The object, or the rule that the field names, is not served, or only in its last good
    /// version.
    Error,
}

/// A problem in one field of one object, and the file the object came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Problem {
    /// How much still works.
    pub severity: Severity,
    /// `Ingress shop/web`, or empty if no object could be read.
    pub object: String,
    /// The same for a program, where the object is one that Forebay serves.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<ObjectRef>,
    /// Path of the field, such as `spec.rules[0].host`; may be empty.
    pub field: String,
    /// File (and line) of a folder of manifests; `None` for a cluster.
    pub file: Option<String>,
    /// Lower case, no full stop; says what to do unless that is obvious.
    pub message: String,
}

/// The object or file that has a problem; the only place that creates [`Problem`]s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    object: String,
    reference: Option<ObjectRef>,
    file: Option<String>,
}

impl Subject {
    /// One object.
    pub fn object(object: &ObjectRef) -> Self {
        Self {
            object: object.to_string(),
            reference: Some(object.clone()),
            file: None,
        }
    }

    /// A file without a known object.
    pub fn file(file: impl Into<String>) -> Self {
        Self {
            object: String::new(),
            reference: None,
            file: Some(file.into()),
        }
    }

    /// Adds the file that the object came from.
    pub fn read_from(self, file: Option<&str>) -> Self {
        Self {
            file: file.map(str::to_owned),
            ..self
        }
    }

    /// Adds the object's name: `Kind namespace/name`, or as much as is known.
    pub fn called(self, object: impl Into<String>) -> Self {
        Self {
            object: object.into(),
            ..self
        }
    }

    /// The object is served; the part that `field` names is ignored.
    pub fn warning(&self, field: impl Into<String>, message: impl Into<String>) -> Problem {
        self.problem(Severity::Warning, field.into(), message.into())
    }

    /// The object, or the part that `field` names, is not served as written.
    pub fn error(&self, field: impl Into<String>, message: impl Into<String>) -> Problem {
        self.problem(Severity::Error, field.into(), message.into())
    }

    fn problem(&self, severity: Severity, field: String, message: String) -> Problem {
        Problem {
            severity,
            object: self.object.clone(),
            reference: self.reference.clone(),
            field,
            file: self.file.clone(),
            message,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.file.as_deref().unwrap_or(""),
            &self.object,
            &self.field,
        ];
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::ObjectName, *};

    #[test]
    fn a_problem_reads_as_file_object_field_and_message() {
        let web = Subject::object(&ObjectRef::new(
            "Ingress",
            ObjectName::new("shop", "web"),
            "",
        ));
        let file = Subject::file("a.yaml:7");
        for (problem, text) in [
            (
                web.warning("spec", "is odd"),
                "Ingress shop/web: spec: is odd",
            ),
            (web.error("", "is odd"), "Ingress shop/web: is odd"),
            (
                web.clone()
                    .read_from(Some("a.yaml:1"))
                    .error("spec", "is odd"),
                "a.yaml:1: Ingress shop/web: spec: is odd",
            ),
            (
                web.clone().read_from(None).error("spec", "is odd"),
                "Ingress shop/web: spec: is odd",
            ),
            (file.error("", "is odd"), "a.yaml:7: is odd"),
            (
                file.clone().called("Service b").error("", "is odd"),
                "a.yaml:7: Service b: is odd",
            ),
        ] {
            assert_eq!(problem.to_string(), text);
        }
    }

    #[test]
    fn a_warning_is_less_than_an_error() {
        let file = Subject::file("a.yaml");
        let (warning, error) = (file.warning("", "a"), file.error("", "a"));
        assert_eq!(
            (warning.severity, error.severity),
            (Severity::Warning, Severity::Error)
        );
        assert!(warning < error);
    }
}
