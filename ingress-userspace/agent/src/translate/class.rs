//! Which Ingresses are ours. The order of the rules is that of ingress-nginx.

use k8s_openapi::api::networking::v1::Ingress;

use super::super::{index::Index, outline::CLASS_ANNOTATION, settings::Settings};
use ingress_model::ObjectName;

/// Whose an Ingress is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Ours,
    Others,
    /// Ours by the name of its class, but there is such an IngressClass, or may be, and nobody knows what it
    /// says. It is neither served openly nor left to broader rules.
    Unclear,
}

/// The IngressClass on which it depends whose `ingress` is.
pub(super) fn class(ingress: &Ingress) -> Option<&str> {
    let field = ingress.spec.as_ref()?.ingress_class_name.as_deref();
    field.filter(|class| !class.is_empty())
}

/// Tells whom `ingress` asks for.
///
/// 1. `spec.ingressClassName` names an IngressClass with our controller; where no IngressClass of
///    that name exists, one of `--ingress-class`. A class with another controller is that
///    controller's, whatever it is called;
/// 2. without the field, the legacy annotation names one of `--ingress-class`;
/// 3. without either, `--watch-ingress-without-class`.
///
/// Unless `knows_classes`, there may be an IngressClass that was never read.
pub(super) fn whose(
    ingress: &Ingress,
    index: &Index,
    settings: &Settings,
    knows_classes: bool,
) -> Whose {
    let field = ingress
        .spec
        .as_ref()
        .and_then(|spec| spec.ingress_class_name.as_deref());
    let annotations = ingress.metadata.annotations.as_ref();
    let annotation = annotations
        .and_then(|annotations| annotations.get(CLASS_ANNOTATION))
        .map(String::as_str);
    let by_name = |class: &str| settings.classes.iter().any(|name| name == class);
    let named = |class: &&str| !class.is_empty();
    let is_ours = match (field.filter(named), annotation.filter(named)) {
        (Some(class), _) => match controller(class, index) {
            Some(name) => settings.controllers.iter().any(|ours| ours == name),
            None if by_name(class) && (!knows_classes || is_unread(class, index)) => {
                return Whose::Unclear;
            }
            None => by_name(class),
        },
        (None, Some(class)) => by_name(class),
        (None, None) => settings.watch_without_class,
    };
    if is_ours { Whose::Ours } else { Whose::Others }
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
