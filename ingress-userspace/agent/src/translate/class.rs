//! Which Ingresses are ours. The order of the rules is that of ingress-nginx.

use k8s_openapi::api::networking::v1::Ingress;

use super::super::{index::Index, settings::Settings};
use ingress_model::ObjectName;

/// The annotation that named the class before there was a field for it.
const LEGACY_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// The IngressClass on which it depends whose `ingress` is.
pub(super) fn class(ingress: &Ingress) -> Option<&str> {
    let field = ingress.spec.as_ref()?.ingress_class_name.as_deref();
    field.filter(|class| !class.is_empty())
}

/// Tells whether `ingress` asks for us.
///
/// 1. `spec.ingressClassName` names an IngressClass with our controller; where no IngressClass of
///    that name exists, one of `--ingress-class`. A class with another controller is that
///    controller's, whatever it is called;
/// 2. without the field, the legacy annotation names one of `--ingress-class`;
/// 3. without either, `--watch-ingress-without-class`.
pub(super) fn serves(ingress: &Ingress, index: &Index, settings: &Settings) -> bool {
    let field = ingress
        .spec
        .as_ref()
        .and_then(|spec| spec.ingress_class_name.as_deref());
    let annotations = ingress.metadata.annotations.as_ref();
    let annotation = annotations
        .and_then(|annotations| annotations.get(LEGACY_ANNOTATION))
        .map(String::as_str);
    let by_name = |class: &str| settings.classes.iter().any(|name| name == class);
    let named = |class: &&str| !class.is_empty();
    match (field.filter(named), annotation.filter(named)) {
        (Some(class), _) => controller(class, index).map_or_else(
            || by_name(class) && !is_unread(class, index),
            |name| settings.controllers.iter().any(|ours| ours == name),
        ),
        (None, Some(class)) => by_name(class),
        (None, None) => settings.watch_without_class,
    }
}

/// Whether there is such an IngressClass and nobody knows whose it is.
fn is_unread(class: &str, index: &Index) -> bool {
    let classes = &index.objects.classes;
    classes.unread(&ObjectName::new("", class)).is_some()
}

/// `spec.controller` of the IngressClass `class`; `None` where there is no such object
/// that can be read.
fn controller<'i>(class: &str, index: &'i Index) -> Option<&'i str> {
    let class = index.objects.classes.find(&ObjectName::new("", class))?;
    Some(
        class
            .object
            .spec
            .as_ref()
            .and_then(|spec| spec.controller.as_deref())
            .unwrap_or_default(),
    )
}
